"""Several runs side by side: what each recommends at every noise level, and what that gains over CE."""

from __future__ import annotations

from typing import Any

from nls_tune.analysis.comparison import Comparison, RunAtLevel
from nls_tune.report.html.plots.common import Plot, error_bars, layout, percentage, plotly_text
from nls_tune.report.html.plots.theme import NUM_RUN_COLOURS, RUN_SYMBOLS
from nls_tune.report.text import percent, points

_ACCURACY = (
    "Accuracy of what each run recommends",
    "Each marker is a run's recommended configuration on clean test labels: filled, the mean over fresh seeds with its "
    "95 % interval; open, the single trial of the search, which luck flatters.",
    "Test accuracy at the best epoch, %",
)
_GAIN = (
    "Gain over cross-entropy",
    "Each marker is a run's recommended configuration minus the strongest cross-entropy of the same run, seed by seed; "
    "an interval that covers 0 proves nothing.",
    "Test accuracy minus the strongest CE, points",
)


def comparison_plots(comparison: Comparison) -> tuple[Plot, ...]:
    """Draw a comparison: accuracies, and gains over cross-entropy."""
    return _plot("compare-accuracy", comparison, _ACCURACY, False), _plot("compare-gain", comparison, _GAIN, True)


def _plot(key: str, comparison: Comparison, texts: tuple[str, str, str], is_gain: bool) -> Plot:
    title, reading, axis = texts
    rows = {level.noise_level: i for i, level in enumerate(comparison.levels)}
    data = [trace for i in range(len(comparison.runs)) if (trace := _trace(comparison, i, is_gain)) is not None]
    if not data:
        note = (
            "No run has a confirmation with a test set." if is_gain else "No run has a recommendation with a test set."
        )
        return Plot(key, title, reading, note, None, note=note)
    figure = {
        "data": data,
        "layout": layout(
            xaxis={
                "title": {"text": axis},
                "zeroline": is_gain,
                "zerolinecolor": "@ink",
                "rangemode": "tozero" if is_gain else "normal",
            },
            showlegend=True,
            yaxis={
                "tickvals": list(rows.values()),
                "ticktext": [plotly_text(name) for name in rows],
                "range": [len(rows) - 0.5, -0.5],
            },
        ),
    }
    height = 160 + len(rows) * (30 + 14 * len(comparison.runs))
    return Plot(key, title, reading, _summary(comparison, is_gain), figure, height)


def _value(found: RunAtLevel, is_gain: bool) -> tuple[float | None, float | None, float | None]:
    """Low end, middle and high end in percent or points."""
    seeds = found.against_ce if is_gain else found.confirmed
    if seeds is not None:
        return percentage(seeds.low), percentage(seeds.mean), percentage(seeds.high)
    return None, None if is_gain else percentage(found.test_accuracy_at_best), None


def _trace(comparison: Comparison, index: int, is_gain: bool) -> dict[str, Any] | None:
    name, count = comparison.runs[index], len(comparison.runs)
    shift = 0.0 if count == 1 else 0.5 * (index / (count - 1) - 0.5)
    cells = [
        (row + shift, level.noise_level, found)
        for row, level in enumerate(comparison.levels)
        for found in level.runs
        if found.run == name and _value(found, is_gain)[1] is not None
    ]
    if not cells:
        return None
    low, middle, high = zip(*(_value(found, is_gain) for _, _, found in cells), strict=True)
    colour, symbol = f"@run-{index % NUM_RUN_COLOURS}", RUN_SYMBOLS[index % len(RUN_SYMBOLS)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plotly_text(name),
        "x": list(middle),
        "y": [round(y, 3) for y, _, _ in cells],
        "error_x": {**error_bars(low, middle, high), "color": colour},
        "customdata": [[plotly_text(name), plotly_text(level)] for _, level, _ in cells],
        "hovertemplate": "<b>%{customdata[0]}</b>, %{customdata[1]}: %{x:.2f}<extra></extra>",
        "marker": {
            "color": colour,
            "size": 10,
            "symbol": [symbol + ("" if is_gain or found.confirmed else "-open") for _, _, found in cells],
        },
    }


def _summary(comparison: Comparison, is_gain: bool) -> str:
    parts = []
    for level in comparison.levels:
        for found in level.runs:
            if is_gain:
                gain = found.against_ce
                shown = "not confirmed" if gain is None else f"{points(gain.mean, 2)} points"
            else:
                shown = percent(found.confirmed.mean if found.confirmed else found.test_accuracy_at_best, 2)
            parts.append(f"{level.noise_level} in {found.run}: {shown}")
    return "; ".join(parts) + "."
