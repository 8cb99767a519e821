"""Several runs side by side: what each says to use at every noise level, and what its best rate gains over CE."""

from __future__ import annotations

import math

from nls_tune.analysis.comparison import Comparison, RunAtLevel
from nls_tune.analysis.statistics import SampleMean
from nls_tune.report.html.plots import common
from nls_tune.report.html.plots.common import Figure, Plot
from nls_tune.report.text import of_metric, percent, points


def comparison_plots(comparison: Comparison) -> tuple[Plot, ...]:
    """Draw a comparison: accuracies, and gains over cross-entropy."""
    return (
        _plot(
            comparison,
            False,
            of_metric("Accuracy of what each run says to use", comparison.metrics),
            "Each marker is what a run says to use, on test labels: filled, the mean over fresh seeds "
            "with its 95 % interval; open, the single trial of the search, which luck flatters.",
        ),
        _plot(
            comparison,
            True,
            "Best rate minus cross-entropy",
            "Each marker is a run's best rate minus the strongest cross-entropy of the same run, seed "
            "by seed; a gain is proven only where the verdict is better.",
        ),
    )


def _plot(comparison: Comparison, is_gain: bool, title: str, reading: str) -> Plot:
    key = "compare-gain" if is_gain else "compare-accuracy"
    data = [trace for i in range(len(comparison.runs)) if (trace := _trace(comparison, i, is_gain)) is not None]
    if not data:
        needed = "confirmation" if is_gain else "verdict"
        return Plot.empty(key, title, reading, f"No run has a {needed} with a test set.")
    rows = [common.plotly_text(level.noise_level) for level in comparison.levels]
    axis = "Test accuracy minus the strongest CE, points" if is_gain else "Test accuracy at the best epoch, %"
    xaxis = {
        "title": {"text": of_metric(axis, comparison.metrics)},
        "zeroline": is_gain,
        "zerolinecolor": "@ink",
        "rangemode": "tozero" if is_gain else "normal",
    }
    yaxis = {"tickvals": list(range(len(rows))), "ticktext": rows, "range": [len(rows) - 0.5, -0.5]}
    figure = {"data": data, "layout": common.layout(xaxis=xaxis, showlegend=True, yaxis=yaxis)}
    height = 160 + len(rows) * (30 + 14 * len(comparison.runs))
    return Plot(key, title, reading, _summary(comparison, is_gain), figure, height)


def _value(found: RunAtLevel, is_gain: bool) -> SampleMean | None:
    """Return the mean over fresh seeds; for accuracies without any, the search's trial, as a mean without interval."""
    if is_gain:
        return found.difference
    if found.use is not None and found.use.num_seeds:
        return found.use.test
    one = found.test_accuracy_at_best
    return None if one is None else SampleMean(0, one, math.nan, -math.inf, math.inf)


def _trace(comparison: Comparison, index: int, is_gain: bool) -> Figure | None:
    name, count = comparison.runs[index], len(comparison.runs)
    shift = 0.0 if count == 1 else 0.5 * (index / (count - 1) - 0.5)
    cells = [
        (row + shift, level.noise_level, value)
        for row, level in enumerate(comparison.levels)
        for found in level.runs
        if found.run == name and (value := _value(found, is_gain)) is not None
    ]
    if not cells:
        return None
    values, (colour, symbol) = [value for _, _, value in cells], common.run_look(index)
    return common.scatter(
        "markers",
        common.percentages(value.mean for value in values),
        [round(y, 3) for y, _, _ in cells],
        name=common.plotly_text(name),
        error_x=common.error_bars(values, colour),
        customdata=[[common.plotly_text(name), common.plotly_text(level)] for _, level, _ in cells],
        hovertemplate="<b>%{customdata[0]}</b>, %{customdata[1]}: %{x:.2f}<extra></extra>",
        marker={"color": colour, "size": 10, "symbol": [symbol + ("" if v.num_seeds else "-open") for v in values]},
    )


def _summary(comparison: Comparison, is_gain: bool) -> str:
    parts = []
    for level in comparison.levels:
        for found in level.runs:
            value = _value(found, is_gain)
            if is_gain:
                shown = "not confirmed" if value is None else f"{points(value.mean, 2)} points"
            else:
                shown = percent(None if value is None else value.mean, 2)
            parts.append(f"{level.noise_level} in {found.run}: {shown}")
    return "; ".join(parts) + "."
