"""Accuracy against smooth rate at one noise level: on test above, on noisy validation, which chooses, below."""

from __future__ import annotations

from typing import Any

from nls_tune.analysis.level_summaries import LevelSummary
from nls_tune.analysis.rate_curves import RateCurve, RatePoint, SmoothedCurve
from nls_tune.report.html.plots.common import (
    Plot,
    fitted_range,
    joined,
    layout,
    percentage,
    plotly_text,
    rate_axis,
    rate_position,
    significant,
    thinned,
    thinning_note,
)
from nls_tune.report.html.plots.theme import ARM_COLOURS, ARM_SYMBOLS
from nls_tune.report.text import ARM_NAMES, percent, rate
from nls_tune.spaces.space import ARMS

_READING = (
    "Each marker is a search trial that ran to its end, at its best epoch; the line is a local mean with its 95 % "
    "bootstrap band, and the dashed line is the level of the selected cross-entropy: a rate gains only above it."
)
#: Points of accuracy that an axis covers at least.
_LEAST_SPAN = 1.0
_HOVER = (
    "<b>r = %{customdata[1]}</b>, %{y:.2f} %<br>warm-up %{customdata[2]}, lr %{customdata[3]:.4g}"
    "<br>trial %{customdata[0]}<extra></extra>"
)


def rate_curve_plot(key: str, curve: RateCurve, summary: LevelSummary | None) -> Plot:
    """Draw the curve of one noise level.

    Args:
        key: Of the plot.
        curve: What to draw.
        summary: Of the same level: where CE stands; None where there is none.
    """
    title = f"{curve.noise_level}: accuracy against smooth rate"
    left_out = (
        f"{curve.num_left_out:,} trials that were stopped, diverged or failed are not drawn."
        if curve.num_left_out
        else None
    )
    if not curve.points:
        note = joined("No search trial of this level has run to its end.", left_out)
        return Plot(key, title, _READING, note or "", None, note=note)
    points = thinned(curve.points)
    has_test = any(point.test_accuracy is not None for point in points)
    traces = _traces(points, curve, summary, has_test)
    figure: dict[str, Any] = {"data": traces, "layout": _layout(points, curve, has_test)}
    for axis, name in (("y", "yaxis"), ("y2", "yaxis2")):
        values = [value for trace in traces if trace["yaxis"] == axis for value in trace["y"]]
        if values:
            figure["layout"][name]["range"] = fitted_range(values, _LEAST_SPAN)
    smoother = None if curve.validation else "Too few trials for a local mean."
    note = joined(left_out, thinning_note(len(points), len(curve.points), "trials"), smoother)
    return Plot(key, title, _READING, _summary(curve, summary), figure, 520 if has_test else 360, note)


def _traces(
    points: list[RatePoint], curve: RateCurve, summary: LevelSummary | None, has_test: bool
) -> list[dict[str, Any]]:
    ce = summary.arms.get("ce") if summary else None
    panels = [("validation", "y", curve.validation, ce.val_accuracy if ce else None)]
    if has_test:
        panels.append(("test", "y2", curve.test, ce.test_accuracy_at_best if ce else None))
    traces: list[dict[str, Any]] = []
    for index, (split, axis, smoothed, level) in enumerate(panels):
        first = index == 0
        if smoothed is not None:
            traces += _smoothed(smoothed, axis, first)
        if level is not None:
            traces.append(_ce_line(level, points, curve, axis, first))
        traces += _markers(points, split, axis, first)
    return traces


def _markers(points: list[RatePoint], split: str, axis: str, first: bool) -> list[dict[str, Any]]:
    traces = []
    for arm in ARMS:
        mine = [point for point in points if point.arm == arm]
        if not mine:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": ARM_NAMES[arm].replace(">", "&gt;").replace("<", "&lt;"),
                "legendgroup": arm,
                "showlegend": first,
                "yaxis": axis,
                "x": [rate_position(point.smooth_rate) for point in mine],
                "y": [
                    percentage(point.val_accuracy if split == "validation" else point.test_accuracy) for point in mine
                ],
                "customdata": [
                    [plotly_text(p.trial_id), rate(p.smooth_rate), p.warmup_epochs, significant(p.lr)] for p in mine
                ],
                "hovertemplate": _HOVER,
                "marker": {
                    "color": ARM_COLOURS[arm],
                    "symbol": ARM_SYMBOLS[arm],
                    "size": 8 if len(points) <= 200 else 5,
                    "opacity": 0.85,
                },
            }
        )
    return traces


def _smoothed(curve: SmoothedCurve, axis: str, first: bool) -> list[dict[str, Any]]:
    x = [rate_position(rate) for rate in curve.rates]
    shared = {"type": "scatter", "mode": "lines", "yaxis": axis, "legendgroup": "mean", "x": x, "hoverinfo": "skip"}
    edge = {"width": 0, "color": "@curve"}
    return [
        {**shared, "y": [percentage(v) for v in curve.low], "line": edge, "showlegend": False},
        {
            **shared,
            "y": [percentage(v) for v in curve.high],
            "line": edge,
            "fill": "tonexty",
            "fillcolor": "@curve-band",
            "showlegend": False,
        },
        {
            **shared,
            "y": [percentage(v) for v in curve.mean],
            "name": "local mean, 95 % band",
            "line": {"color": "@curve", "width": 2},
            "showlegend": first,
        },
    ]


def _ce_line(level: float, points: list[RatePoint], curve: RateCurve, axis: str, first: bool) -> dict[str, Any]:
    low, high = rate_axis(_rates(points, curve))["range"]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "selected CE",
        "legendgroup": "ce-level",
        "showlegend": first,
        "yaxis": axis,
        "x": [low, high],
        "y": [percentage(level)] * 2,
        "line": {"color": "@ce", "dash": "dash", "width": 1.5},
        "hovertemplate": "selected CE: %{y:.2f} %<extra></extra>",
    }


def _rates(points: list[RatePoint], curve: RateCurve) -> list[float]:
    cancelling = [] if curve.noise_cancelling_rate is None else [curve.noise_cancelling_rate]
    return [0.0, *cancelling, *(point.smooth_rate for point in points)]


def _layout(points: list[RatePoint], curve: RateCurve, has_test: bool) -> dict[str, Any]:
    found = layout(
        xaxis={**rate_axis(_rates(points, curve)), "anchor": "y"},
        yaxis={"title": {"text": "Validation (noisy labels), %"}, "domain": [0, 0.47] if has_test else [0, 1]},
        shapes=[],
        annotations=[],
    )
    if has_test:
        found["yaxis2"] = {"title": {"text": "Test (clean labels), %"}, "domain": [0.53, 1]}
    if curve.noise_cancelling_rate is not None:
        x = rate_position(curve.noise_cancelling_rate)
        line = {"color": "@theory", "dash": "dot", "width": 2}
        found["shapes"].append(
            {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}
        )
        low, high = found["xaxis"]["range"]
        # Near an end of a narrow axis the words would be cut.
        anchor = "left" if x < low + (high - low) / 4 else "right" if x > high - (high - low) / 4 else "center"
        found["annotations"].append(
            {
                "x": x,
                "xanchor": anchor,
                "y": 1,
                "xref": "x",
                "yref": "paper",
                "yanchor": "bottom",
                "showarrow": False,
                "text": f"noise-cancelling rate {rate(curve.noise_cancelling_rate)}",
                "font": {"color": "@theory", "size": 11},
            }
        )
        found["margin"]["t"] = 24
    return found


def _summary(curve: RateCurve, summary: LevelSummary | None) -> str:
    best = max(curve.points, key=lambda point: point.val_accuracy)
    text = (
        f"{len(curve.points)} trials with rates from {rate(curve.points[0].smooth_rate)} to "
        f"{rate(curve.points[-1].smooth_rate)}; the highest validation accuracy is {percent(best.val_accuracy)} at "
        f"rate {rate(best.smooth_rate)}"
    )
    text += "" if best.test_accuracy is None else f" (test {percent(best.test_accuracy)})"
    ce = summary.arms.get("ce") if summary else None
    if ce is not None:
        text += f"; the selected cross-entropy reaches {percent(ce.val_accuracy)}"
        text += "" if ce.test_accuracy_at_best is None else f" (test {percent(ce.test_accuracy_at_best)})"
    return text + "."
