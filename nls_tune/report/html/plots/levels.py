"""All noise levels in one figure: test accuracy against smooth rate, over fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.confirmation import LevelConfirmation
from nls_tune.analysis.rate_sweep import RateSweep
from nls_tune.analysis.statistics import SampleMean
from nls_tune.report.html.plots import common
from nls_tune.report.html.plots.common import Figure, Plot
from nls_tune.report.rate_scale import rate_positions
from nls_tune.report.text import configuration, of_metric, percent, rate_name
from nls_tune.spaces.settings import RATE_ARMS, Arm

_TITLE = "Test accuracy against smooth rate"
_READING = (
    "Each marker is the mean test accuracy of a confirmed rate, or of one of the sweep, over fresh "
    "seeds, with its 95 % t interval; rate 0 is the strongest cross-entropy. Whether a rate gains is what the verdict "
    "says."
)
_NONE = (
    "No configuration was confirmed on a test set, so nothing can be compared over seeds; --confirm-seeds 5 on the "
    "same command does that."
)


class _Point(NamedTuple):
    """A configuration over fresh seeds."""

    arm: Arm
    config: Config
    test: SampleMean


def levels_plot(key: str, levels: Sequence[LevelConfirmation], sweeps: Sequence[RateSweep] = ()) -> Plot:
    """Draw the confirmed configurations of all noise levels of a run; of a level with a sweep, all its rates."""
    metrics = [level.metric for level in levels]
    title, reading = of_metric(_TITLE, metrics), of_metric(_READING, metrics)
    swept = {sweep.noise_level: sweep for sweep in sweeps}
    points = {level.noise_level: _points(level, swept.get(level.noise_level)) for level in levels}
    traces = [_trace(name, found, i) for i, (name, found) in enumerate(points.items()) if found]
    if not traces:
        return Plot.empty(key, title, reading, _NONE)
    shown = [point for found in points.values() for point in found]
    ends = common.percentages(end for point in shown for end in (point.test.low, point.test.mean, point.test.high))
    look = common.layout(
        xaxis=common.rate_axis(point.config["smooth_rate"] for point in shown),
        yaxis={
            "title": {"text": of_metric("Test accuracy, %", metrics)},
            "range": common.fitted_range(ends, 1.0),
        },
        showlegend=True,
    )
    what = of_metric("Test accuracy", metrics)
    return Plot(
        key, title, reading, f"{what} over fresh seeds. {_summary(points)}", {"data": traces, "layout": look}, 440
    )


def _points(level: LevelConfirmation, sweep: RateSweep | None) -> list[_Point]:
    """Return what is drawn of a level, from the highest rate to the lowest."""
    found = [
        _Point(one.arm, one.config, one.test_at_best)
        for i, one in enumerate(level.configurations)
        if one.test_at_best is not None and one.arm in RATE_ARMS and (one.arm != "ce" or i == level.strongest_ce)
    ]
    if sweep is not None:
        found = [_Point(rate.arm, rate.config, rate.test) for rate in sweep.rates if rate.test is not None]
    return sorted(found, key=lambda point: -point.config["smooth_rate"])


def _trace(noise_level: str, points: Sequence[_Point], index: int) -> Figure:
    means, (colour, symbol) = [point.test for point in points], common.run_look(index)
    return common.scatter(
        "lines+markers",
        rate_positions(point.config["smooth_rate"] for point in points),
        common.percentages(mean.mean for mean in means),
        name=common.plotly_text(noise_level),
        error_y=common.error_bars(means, colour),
        customdata=[
            [common.plotly_text(noise_level), common.plotly_text(configuration(point.config))] for point in points
        ],
        hovertemplate="<b>%{customdata[0]}</b>, %{customdata[1]}: %{y:.2f} %<extra></extra>",
        line={"color": colour, "width": 1},
        marker={"color": colour, "size": 9, "symbol": symbol},
    )


def _summary(points: Mapping[str, Sequence[_Point]]) -> str:
    parts = []
    for noise_level, found in points.items():
        reached = [f"{rate_name(p.arm, p.config['smooth_rate'])} {percent(p.test.mean, 2)}" for p in found]
        if reached:
            parts.append(f"{noise_level}: {', '.join(reached)}")
    return f"{'; '.join(parts)}."
