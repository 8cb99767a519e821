"""Accuracy against smooth rate at one noise level: on test above, on noisy validation, which chooses, below."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nls_tune.analysis.level_summaries import ArmSummary, LevelSummary
from nls_tune.analysis.rate_curves import RateCurve, RatePoint, SmoothedCurve
from nls_tune.report.html.plots import common
from nls_tune.report.html.plots.common import Figure, Plot
from nls_tune.report.rate_scale import rate_position, rate_positions
from nls_tune.report.text import number, of_metric, percent, rate
from nls_tune.spaces.settings import RATE_ARMS

_READING = (
    "Each marker is a search trial that ran to its end, at its best epoch; the line is a local mean with its 95 % "
    "bootstrap band, and the dashed line is the level of the selected cross-entropy. A point above it is one seed and "
    "the luckiest of many: no gain yet."
)
#: The least range of an axis, in points of accuracy.
_LEAST_SPAN = 1.0
_HOVER = (
    "<b>r = %{customdata[1]}</b>, %{y:.2f} %<br>warm-up %{customdata[2]}, lr %{customdata[3]}"
    "<br>trial %{customdata[0]}<extra></extra>"
)


@dataclass(frozen=True)
class _Panel:
    """One of the two accuracies: its axis, the accuracy of a trial, the local mean, the level of CE."""

    axis: str
    title: str
    value: Callable[[RatePoint], float | None]
    smoothed: SmoothedCurve | None
    ce_level: float | None

    def line(self, x: list[float], y: Iterable[float | None], group: str, **more: object) -> Figure:
        """A line of one look in all panels; the legend has it once."""
        more = {"showlegend": self.axis == "y", **more}
        return common.scatter("lines", x, common.percentages(y), yaxis=self.axis, legendgroup=group, **more)


def rate_curve_plot(key: str, curve: RateCurve, summary: LevelSummary | None) -> Plot:
    """Draw the curve of one noise level; its summary says where CE stands."""
    title = f"{curve.noise_level}: {of_metric('accuracy against smooth rate', [curve.metric])}"
    left_out = f"{curve.num_left_out:,} trials that were stopped, diverged or failed are not drawn."
    note = left_out if curve.num_left_out else None
    if few := common.too_few(len(curve.points)):
        reason = common.joined(few, note)
        return Plot.empty(key, title, _READING, reason or "")
    points, ce = common.thinned(curve.points), summary.arms.get("ce") if summary else None
    cancelling = [] if curve.noise_cancelling_rate is None else [curve.noise_cancelling_rate]
    xaxis = {**common.rate_axis([0.0, *cancelling, *(point.smooth_rate for point in points)]), "anchor": "y"}
    panels = _panels(points, curve, ce)
    found = common.layout(xaxis=xaxis, shapes=[], annotations=[])
    data = []
    for panel in panels:
        traces = _traces(panel, points, xaxis["range"])
        values = [value for trace in traces for value in trace["y"]]
        found[panel.axis.replace("y", "yaxis")] = {
            "title": {"text": panel.title},
            "domain": [0, 1] if len(panels) == 1 else [0, 0.47] if panel.axis == "y" else [0.53, 1],
            "range": common.fitted_range(values, _LEAST_SPAN),
        }
        data += traces
    for cancelling_rate in cancelling:
        _mark_noise_cancelling(found, cancelling_rate)
    smoother = None if curve.validation else "Too few trials for a local mean."
    note = common.joined(note, common.thinning_note(len(points), len(curve.points), "trials"), smoother)
    height = 360 if len(panels) == 1 else 520
    return Plot(key, title, _READING, _summary(curve, ce), {"data": data, "layout": found}, height, note)


def _panels(points: list[RatePoint], curve: RateCurve, ce: ArmSummary | None) -> list[_Panel]:
    level = ce.val_accuracy if ce else None
    panels = [_Panel("y", "Validation (noisy labels), %", lambda point: point.val_accuracy, curve.validation, level)]
    if any(point.test_accuracy is not None for point in points):
        level = ce.test_accuracy_at_best if ce else None
        panels.append(_Panel("y2", "Test, %", lambda point: point.test_accuracy, curve.test, level))
    return panels


def _traces(panel: _Panel, points: list[RatePoint], ends: list[float]) -> list[Figure]:
    traces = [] if panel.smoothed is None else _smoothed(panel.smoothed, panel)
    if panel.ce_level is not None:
        look = {"color": "@ce", "dash": "dash", "width": 1.5}
        hover = "selected CE: %{y:.2f} %<extra></extra>"
        level = [panel.ce_level] * 2
        traces.append(panel.line(ends, level, "ce-level", name="selected CE", line=look, hovertemplate=hover))
    for arm in RATE_ARMS:
        if mine := [point for point in points if point.arm == arm]:
            details = [
                [common.plotly_text(p.trial_id), rate(p.smooth_rate), p.warmup_epochs, number(p.lr)] for p in mine
            ]
            traces.append(
                common.scatter(
                    "markers",
                    rate_positions(point.smooth_rate for point in mine),
                    common.percentages(map(panel.value, mine)),
                    yaxis=panel.axis,
                    name=arm,
                    legendgroup=arm,
                    showlegend=panel.axis == "y",
                    customdata=details,
                    hovertemplate=_HOVER,
                    marker=common.arm_marker(arm, 8 if len(points) <= 200 else 5, opacity=0.85),
                )
            )
    return traces


def _smoothed(curve: SmoothedCurve, panel: _Panel) -> list[Figure]:
    x, edge, middle = rate_positions(curve.rates), {"width": 0, "color": "@curve"}, {"width": 2, "color": "@curve"}
    band = {"fill": "tonexty", "fillcolor": "@curve-band"}
    return [
        panel.line(x, curve.low, "mean", line=edge, hoverinfo="skip", showlegend=False),
        panel.line(x, curve.high, "mean", line=edge, hoverinfo="skip", showlegend=False, **band),
        panel.line(x, curve.mean, "mean", line=middle, hoverinfo="skip", name="local mean, 95 % band"),
    ]


def _mark_noise_cancelling(found: Figure, noise_cancelling_rate: float) -> None:
    x, (low, high) = rate_position(noise_cancelling_rate), found["xaxis"]["range"]
    found["shapes"].append(common.vertical_line(x, color="@theory", dash="dot", width=2))
    # Near an end of a narrow axis the words would be cut.
    anchor = "left" if x < low + (high - low) / 4 else "right" if x > high - (high - low) / 4 else "center"
    text = {"text": f"noise-cancelling rate {rate(noise_cancelling_rate)}", "font": {"color": "@theory", "size": 11}}
    place = {"x": x, "xanchor": anchor, "xref": "x", "y": 1, "yanchor": "bottom", "yref": "paper"}
    found["annotations"].append({**text, **place, "showarrow": False})
    found["margin"]["t"] = 24


def _summary(curve: RateCurve, ce: ArmSummary | None) -> str:
    best = max(curve.points, key=lambda point: point.val_accuracy)
    what = of_metric("validation accuracy", [curve.metric])
    text = (
        f"{len(curve.points)} trials with rates from {rate(curve.points[0].smooth_rate)} to "
        f"{rate(curve.points[-1].smooth_rate)}; the highest {what} is {percent(best.val_accuracy)} at "
        f"rate {rate(best.smooth_rate)}{_test(best.test_accuracy)}"
    )
    if ce is not None:
        reached = f"{percent(ce.val_accuracy)}{_test(ce.test_accuracy_at_best)}"
        text += f"; the selected cross-entropy reaches {reached}"
    return text + "."


def _test(accuracy: float | None) -> str:
    return "" if accuracy is None else f" (test {percent(accuracy)})"
