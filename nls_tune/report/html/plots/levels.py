"""All noise levels in one figure: test accuracy against smooth rate, over fresh seeds."""

from __future__ import annotations

from collections.abc import Sequence

from nls_tune.analysis.confirmation import LevelConfirmation
from nls_tune.report.html.plots import common
from nls_tune.report.html.plots.common import Figure, Plot
from nls_tune.report.rate_scale import rate_positions
from nls_tune.report.text import configuration, of_metric, percent, rate_name

_TITLE = "Test accuracy against smooth rate"
_READING = (
    "Each marker is the mean test accuracy (clean labels) of a confirmed configuration over fresh seeds, with its 95 % "
    "t interval, at its smooth rate; rate 0 is cross-entropy. Whether a rate gains is "
    "what the verdict says."
)
_NONE = (
    "No configuration was confirmed on a test set, so nothing can be compared over seeds; --confirm-seeds 5 on the "
    "same command does that."
)


def levels_plot(key: str, levels: Sequence[LevelConfirmation]) -> Plot:
    """Draw the confirmed configurations of all noise levels of a run."""
    metrics = [level.metric for level in levels]
    title, reading = of_metric(_TITLE, metrics), of_metric(_READING, metrics)
    traces = [trace for i, level in enumerate(levels) if (trace := _trace(level, i)) is not None]
    if not traces:
        return Plot.empty(key, title, reading, _NONE)
    shown = [found for level in levels for found in level.configurations]
    means = [found.test_at_best for found in shown if found.test_at_best is not None]
    ends = common.percentages(end for mean in means for end in (mean.low, mean.mean, mean.high))
    look = common.layout(
        xaxis=common.rate_axis(found.config["smooth_rate"] for found in shown),
        yaxis={
            "title": {"text": of_metric("Test accuracy (clean labels), %", metrics)},
            "range": common.fitted_range(ends, 1.0),
        },
        showlegend=True,
    )
    return Plot(key, title, reading, _summary(levels), {"data": traces, "layout": look}, 440)


def _trace(level: LevelConfirmation, index: int) -> Figure | None:
    pairs = [(found, found.test_at_best) for found in level.configurations if found.test_at_best is not None]
    if not pairs:
        return None
    pairs.sort(key=lambda pair: -pair[0].config["smooth_rate"])
    means, (colour, symbol) = [mean for _, mean in pairs], common.run_look(index)
    return common.scatter(
        "lines+markers",
        rate_positions(found.config["smooth_rate"] for found, _ in pairs),
        common.percentages(mean.mean for mean in means),
        name=common.plotly_text(level.noise_level),
        error_y=common.error_bars(means, colour),
        customdata=[
            [common.plotly_text(level.noise_level), common.plotly_text(configuration(found.config))]
            for found, _ in pairs
        ],
        hovertemplate="<b>%{customdata[0]}</b>, %{customdata[1]}: %{y:.2f} %<extra></extra>",
        line={"color": colour, "width": 1},
        marker={"color": colour, "size": 9, "symbol": symbol},
    )


def _summary(levels: Sequence[LevelConfirmation]) -> str:
    parts = []
    for level in levels:
        reached = [
            f"{rate_name(found.arm, found.config['smooth_rate'])} {percent(found.test_at_best.mean, 2)}"
            for found in level.configurations
            if found.test_at_best is not None
        ]
        if reached:
            parts.append(f"{level.noise_level}: {', '.join(reached)}")
    what = of_metric("Test accuracy", (level.metric for level in levels))
    return f"{what} over fresh seeds. {'; '.join(parts)}."
