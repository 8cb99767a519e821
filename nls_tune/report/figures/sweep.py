"""The figure of a sweep: accuracy against smooth rate, each rate with its own best settings and fresh seeds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nls_tune.report.figures import style
from nls_tune.report.figures.panels import USUAL_RATE, label_panels, legend_below, mark_theory, panels
from nls_tune.report.rate_scale import rate_position, rate_positions
from nls_tune.report.text import of_metric, seed_range
from nls_tune.spaces.settings import RATE_ARMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nls_tune.analysis.rate_sweep import RateSweep
    from nls_tune.analysis.statistics import SampleMean


def accuracy_over_rates(sweeps: Sequence[RateSweep]) -> Figure:
    """Draw the rates of each level with their intervals, CE's level, the best rate and the noise-cancelling rate."""
    has_test = any(rate.test is not None for sweep in sweeps for rate in sweep.rates)
    figure, columns = panels(len(sweeps), [1.75, 1.2] if has_test else [1.75])
    metrics = [sweep.metric for sweep in sweeps]
    rates = [rate.smooth_rate for sweep in sweeps for rate in sweep.rates]
    cancelling = [sweep.noise_cancelling_rate for sweep in sweeps if sweep.noise_cancelling_rate is not None]
    rates += [rate for rate in cancelling if rate >= 2 * min([*rates, USUAL_RATE])]
    for sweep, column in zip(sweeps, columns, strict=True):
        if has_test:
            _panel(column[0], sweep, [rate.test for rate in sweep.rates])
        _panel(column[-1], sweep, [rate.validation for rate in sweep.rates])
        column[0].set_title(style.level_label(sweep.noise_level))
        label_panels(columns, column, rates, metrics)
    seeds = seed_range(rate.validation.num_seeds for sweep in sweeps for rate in sweep.rates)
    title = f"Accuracy against smooth rate, spaced by log(1 − r): means of {seeds} with 95 % t intervals"
    figure.suptitle(of_metric(title, metrics))
    legend_below(figure, [axis for column in columns for axis in column])
    return figure


def _panel(axis: Axes, sweep: RateSweep, means: Sequence[SampleMean | None]) -> None:
    found = [(rate, mean) for rate, mean in zip(sweep.rates, means, strict=True) if mean is not None]
    mark_theory(axis, sweep.noise_cancelling_rate)
    for rate, mean in found:
        if rate.arm == "ce":
            axis.axhline(mean.mean, color=style.ARM_COLOURS["ce"], linestyle=(0, (4, 2)), linewidth=0.9, zorder=2,
                         label="CE (r = 0)")  # fmt: skip
    x = rate_positions(rate.smooth_rate for rate, _ in found)
    axis.plot(x, [mean.mean for _, mean in found], color=style.SMOOTHER, linewidth=0.8, zorder=3)
    for arm in RATE_ARMS:
        mine = [(rate, mean) for rate, mean in found if rate.arm == arm]
        if mine:
            axis.errorbar(
                rate_positions(rate.smooth_rate for rate, _ in mine), [mean.mean for _, mean in mine],
                yerr=[_half(mean) for _, mean in mine], linestyle="none", marker=style.ARM_MARKERS[arm], markersize=3.6,
                color=style.ARM_COLOURS[arm], markeredgecolor="white", markeredgewidth=0.4, elinewidth=0.9, zorder=4,
                label=None if arm == "ce" else {"positive": "r > 0", "negative": "r < 0"}[arm],
            )  # fmt: skip
    best = rate_position(sweep.rates[sweep.best].smooth_rate)
    axis.axvline(best, color=style.MUTED, linewidth=0.8, zorder=1, label="best by validation")
    style.percentages(axis)
    ends = [end for _, mean in found for end in (mean.mean - _half(mean), mean.mean + _half(mean))]
    axis.set_ylim(style.limits(ends))


def _half(mean: SampleMean) -> float:
    """Half of the interval; 0 for one seed, which has none."""
    return mean.high - mean.mean if math.isfinite(mean.high) else 0.0
