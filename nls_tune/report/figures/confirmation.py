"""The figure of a confirmation: what fresh seeds say of each configuration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from nls_tune.report.figures.style import ARM_COLOURS, ARM_MARKERS, DOUBLE, MUTED, level_label, percentages
from nls_tune.report.text import number, of_metric, rate_name, seed_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nls_tune.analysis.analysis import RunAnalysis
    from nls_tune.analysis.confirmation import LevelConfirmation
    from nls_tune.analysis.statistics import SampleMean
    from nls_tune.spaces.settings import Arm


def confirmation(run: RunAnalysis) -> Figure | str:
    """Draw test accuracy and its difference to the strongest CE of each confirmed configuration."""
    levels = [level for level in run.confirmations if any(c.test_at_best is not None for c in level.configurations)]
    if not levels:
        return "no configuration was confirmed on a test set; --confirm-seeds 5 does that"
    rows = sum(len(level.configurations) + 1 for level in levels)
    figure = Figure(figsize=(DOUBLE, 0.9 + 0.165 * rows), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1])
    ticks: dict[int, str] = {}
    place = 0
    for level in levels:
        left.text(0.0, place, f" {level_label(level.noise_level)}", transform=left.get_yaxis_transform(), va="center",
                  fontsize=7, fontweight="bold", clip_on=False)  # fmt: skip
        for i, found in enumerate(level.configurations):
            place += 1
            name, star = rate_name(found.arm, found.config["smooth_rate"]), " ★" if i == level.used else ""
            ticks[place] = f"{name}, warm-up {found.config['warmup_epochs']}, lr {number(found.config['lr'])}{star}"
            _draw(left, right, level, i, place)
        place += 1
    left.set_yticks(list(ticks), list(ticks.values()), fontsize=6)
    left.set_ylim(place - 0.3, -0.7)
    for axis, signed in ((left, False), (right, True)):
        percentages(axis, "x", signed=signed, bins=6)
        axis.grid(visible=False, axis="y")
    right.axvline(0.0, color=MUTED, linewidth=0.8, zorder=1)
    left.set_xlabel(of_metric("test accuracy at the best epoch, %", (level.metric for level in levels)))
    right.set_xlabel("difference to the strongest CE, points")
    seeds = seed_count(c for level in levels for c in level.configurations)
    figure.suptitle(f"Confirmation with {seeds}: means with 95 % t intervals; ★ what to use")
    return figure


def _draw(left: Axes, right: Axes, level: LevelConfirmation, index: int, place: int) -> None:
    """Draw a configuration: its accuracy at the left, its difference at the right."""
    found, comparison, filled = level.configurations[index], level.comparisons[index], index == level.used
    if found.test_at_best is not None:
        _interval(left, found.test_at_best, place, found.arm, filled=filled)
    if index == level.strongest_ce:
        right.plot([0.0], [place], marker="|", markersize=8, color=ARM_COLOURS["ce"], linestyle="none")
        right.annotate("strongest CE", (0.0, place), (5, 0), textcoords="offset points", va="center", fontsize=6,
                       color=MUTED)  # fmt: skip
    elif comparison is not None:
        _interval(right, comparison.difference, place, found.arm, filled=filled)


def _interval(axis: Axes, mean: SampleMean, place: float, arm: Arm, *, filled: bool) -> None:
    """A mean and its interval; one seed has no interval."""
    ends = [mean.mean - mean.low, mean.high - mean.mean]
    bar = None if any(math.isinf(end) for end in ends) else [[max(0.0, end)] for end in ends]
    colour = ARM_COLOURS[arm]
    axis.errorbar(
        [mean.mean], [place], xerr=bar, color=colour, marker=ARM_MARKERS[arm],
        markerfacecolor=colour if filled else "white", linestyle="none", markersize=4.2, markeredgewidth=0.9,
        elinewidth=0.9, capsize=2,
    )  # fmt: skip
