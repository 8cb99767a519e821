"""Several runs side by side: what each says to use at every noise level, and what its best rate gains over CE."""

from __future__ import annotations

from nls_tune.analysis.comparison import Comparison, RunAtLevel
from nls_tune.analysis.statistics import SampleMean
from nls_tune.report.html.plots.common import Figure, Plot, error_bars, layout, percentage, plotly_text, scatter
from nls_tune.report.html.plots.theme import NUM_RUN_COLOURS, RUN_SYMBOLS
from nls_tune.report.text import percent, points


def comparison_plots(comparison: Comparison) -> tuple[Plot, ...]:
    """Draw a comparison: accuracies, and gains over cross-entropy."""
    accuracy, accuracy_words = _figure(comparison, False, "Test accuracy at the best epoch, %")
    gain, gain_words = _figure(comparison, True, "Test accuracy minus the strongest CE, points")
    height = 160 + len(comparison.levels) * (30 + 14 * len(comparison.runs))
    return (
        Plot(
            "compare-accuracy",
            "Accuracy of what each run says to use",
            "Each marker is what a run says to use, on clean test labels: filled, the mean over fresh seeds "
            "with its 95 % interval; open, the single trial of the search, which luck flatters.",
            accuracy_words,
            accuracy,
            height,
            None if accuracy else accuracy_words,
        ),
        Plot(
            "compare-gain",
            "Gain over cross-entropy",
            "Each marker is a run's best rate minus the strongest cross-entropy of the same run, seed "
            "by seed; an interval that covers 0 proves nothing.",
            gain_words,
            gain,
            height,
            None if gain else gain_words,
        ),
    )


def _figure(comparison: Comparison, is_gain: bool, axis: str) -> tuple[Figure | None, str]:
    """The figure, and what it says in words: where there is none, why."""
    data = [trace for i in range(len(comparison.runs)) if (trace := _trace(comparison, i, is_gain)) is not None]
    if not data:
        return None, f"No run has a {'confirmation' if is_gain else 'verdict'} with a test set."
    rows = [plotly_text(level.noise_level) for level in comparison.levels]
    xaxis = {
        "title": {"text": axis},
        "zeroline": is_gain,
        "zerolinecolor": "@ink",
        "rangemode": "tozero" if is_gain else "normal",
    }
    yaxis = {"tickvals": list(range(len(rows))), "ticktext": rows, "range": [len(rows) - 0.5, -0.5]}
    return {"data": data, "layout": layout(xaxis=xaxis, showlegend=True, yaxis=yaxis)}, _summary(comparison, is_gain)


def _confirmed(found: RunAtLevel) -> SampleMean | None:
    use = None if found.verdict is None else found.verdict.use
    return use.test if use is not None and use.num_seeds else None


def _value(found: RunAtLevel, is_gain: bool) -> tuple[float | None, float | None, float | None]:
    """Low end, middle and high end in percent or points."""
    seeds = found.difference if is_gain else _confirmed(found)
    if seeds is not None:
        return percentage(seeds.low), percentage(seeds.mean), percentage(seeds.high)
    return None, None if is_gain else percentage(found.test_accuracy_at_best), None


def _trace(comparison: Comparison, index: int, is_gain: bool) -> Figure | None:
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
    symbols = [symbol + ("" if is_gain or _confirmed(found) else "-open") for _, _, found in cells]
    return scatter(
        "markers",
        middle,
        [round(y, 3) for y, _, _ in cells],
        name=plotly_text(name),
        error_x=error_bars(low, middle, high, colour),
        customdata=[[plotly_text(name), plotly_text(level)] for _, level, _ in cells],
        hovertemplate="<b>%{customdata[0]}</b>, %{customdata[1]}: %{x:.2f}<extra></extra>",
        marker={"color": colour, "size": 10, "symbol": symbols},
    )


def _summary(comparison: Comparison, is_gain: bool) -> str:
    parts = []
    for level in comparison.levels:
        for found in level.runs:
            if is_gain:
                shown = "not confirmed" if found.difference is None else f"{points(found.difference.mean, 2)} points"
            else:
                seeds = _confirmed(found)
                shown = percent(seeds.mean if seeds else found.test_accuracy_at_best, 2)
            parts.append(f"{level.noise_level} in {found.run}: {shown}")
    return "; ".join(parts) + "."
