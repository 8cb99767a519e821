"""Figures of what fresh seeds say: the confirmation of a run, and several runs side by side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from nls_tune.analysis.statistics import SampleMean
from nls_tune.report.figures.style import (
    ARM_COLOURS,
    ARM_LEGEND,
    ARM_MARKERS,
    DOUBLE,
    MUTED,
    OKABE_ITO,
    RUN_MARKERS,
    label,
    legend_below,
    level_label,
    percentages,
)
from nls_tune.report.text import number, rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nls_tune.analysis.analysis import RunAnalysis
    from nls_tune.analysis.comparison import Comparison
    from nls_tune.analysis.confirmation import ConfirmedConfiguration


def confirmation(run: RunAnalysis) -> Figure | str:
    """Draw test accuracy and its difference to the strongest CE of each confirmed configuration."""
    levels = [level for level in run.confirmations if any(c.test_at_best is not None for c in level.configurations)]
    if not levels:
        return "no configuration was confirmed on a test set; --confirm-seeds 5 does that"
    rows = sum(len(level.configurations) + 1 for level in levels)
    figure = Figure(figsize=(DOUBLE, 0.9 + 0.165 * rows), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1])
    ticks: list[tuple[int, str]] = []
    place = 0
    for level in levels:
        left.text(0.0, place, f" {level_label(level.noise_level)}", transform=left.get_yaxis_transform(), va="center",
                  fontsize=7, fontweight="bold", clip_on=False)  # fmt: skip
        place += 1
        for i, found in enumerate(level.configurations):
            chosen, strongest = i == level.recommended, i == level.strongest_ce
            ticks.append((place, _configuration(found) + (" ★" if chosen else "")))
            if found.test_at_best is not None:
                _interval(left, found.test_at_best, place, found, filled=chosen)
            comparison = level.comparisons[i]
            if strongest:
                right.plot([0.0], [place], marker="|", markersize=8, color=ARM_COLOURS["ce"], linestyle="none")
                right.annotate(
                    "strongest CE",
                    (0.0, place),
                    (5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=6,
                    color=MUTED,
                )
            elif comparison is not None:
                _interval(right, comparison.difference, place, found, filled=chosen)
            place += 1
    left.set_yticks([at for at, _ in ticks], [text for _, text in ticks], fontsize=6)
    left.set_ylim(place - 0.3, -0.7)
    for axis, signed in ((left, False), (right, True)):
        percentages(axis, "x", signed=signed, bins=6)
        axis.grid(visible=False, axis="y")
    right.axvline(0.0, color=MUTED, linewidth=0.8, zorder=1)
    left.set_xlabel("test accuracy at the best epoch, %")
    right.set_xlabel("difference to the strongest CE, points")
    counts = {len(c.seeds) for level in levels for c in level.configurations}
    seeds = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    figure.suptitle(f"Confirmation with {seeds} fresh seeds: means with 95 % t intervals; ★ recommended by validation")
    return figure


def _configuration(found: ConfirmedConfiguration) -> str:
    config = found.config
    name = "CE" if found.arm == "ce" else f"r = {rate(config['smooth_rate'])}"
    return f"{name}, warm-up {config['warmup_epochs']}, lr {number(config['lr'])}"


def _interval(axis: Axes, mean: SampleMean, place: float, found: ConfirmedConfiguration, *, filled: bool) -> None:
    colour = ARM_COLOURS[found.arm]
    _mean(
        axis, mean, place, color=colour, marker=ARM_MARKERS[found.arm],
        markerfacecolor=colour if filled else "white", label=ARM_LEGEND[found.arm],
    )  # fmt: skip


def _mean(axis: Axes, mean: SampleMean, place: float, *, vertical: bool = False, **options: Any) -> None:
    """A mean and its interval; one seed has no interval."""
    ends = [mean.mean - mean.low, mean.high - mean.mean]
    bar = None if any(math.isinf(end) for end in ends) else [[max(0.0, end)] for end in ends]
    x, y = ([place], [mean.mean]) if vertical else ([mean.mean], [place])
    axis.errorbar(
        x, y, xerr=None if vertical else bar, yerr=bar if vertical else None, linestyle="none", markersize=4.2,
        markeredgewidth=0.9, elinewidth=0.9, capsize=2, **options,
    )  # fmt: skip


def comparison(found: Comparison) -> Figure | str:
    """Draw what each run recommends at each level, on test, and its difference to the strongest CE."""
    entries = [(i, j, run) for i, level in enumerate(found.levels) for j, run in enumerate(_in_order(found, i))]
    has_test = [
        (i, j, run) for i, j, run in entries if run and (run.confirmed or run.test_accuracy_at_best is not None)
    ]
    if not has_test:
        return "no run has a recommended configuration with a test accuracy"
    figure = Figure(figsize=(DOUBLE, 3.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.3, 1])
    count = len(found.runs)
    for i, j, run in has_test:
        place = i + (j - (count - 1) / 2) * min(0.12, 0.7 / count)
        colour, marker = OKABE_ITO[j % len(OKABE_ITO)], RUN_MARKERS[j % len(RUN_MARKERS)]
        options = {"color": colour, "marker": marker, "label": label(found.runs[j], 30)}
        if run.confirmed is not None:
            _mean(above, run.confirmed, place, vertical=True, **options)
        else:
            above.plot(
                [place],
                [run.test_accuracy_at_best],
                linestyle="none",
                markersize=4.2,
                markerfacecolor="white",
                **options,
            )
        if run.against_ce is not None:
            _mean(below, run.against_ce, place, vertical=True, **options)
    below.axhline(0.0, color=MUTED, linewidth=0.8, zorder=1)
    percentages(above)
    percentages(below, signed=True)
    above.set_ylabel("test accuracy of the\nrecommended, %")
    below.set_ylabel("difference to the\nstrongest CE, points")
    below.set_xticks(
        range(len(found.levels)), [level_label(level.noise_level) for level in found.levels],
        rotation=30 if len(found.levels) > 7 else 0,
    )  # fmt: skip
    below.set_xlim(-0.6, len(found.levels) - 0.4)
    below.set_xlabel("noise level")
    figure.suptitle("Runs side by side: fresh seeds with 95 % t intervals; white: a single search trial")
    legend_below(figure, [above, below], columns=4)
    return figure


def _in_order(found: Comparison, level: int) -> list[Any]:
    """What each run has at a level, in the order of the runs; None where it lacks the level."""
    by_name = {run.run: run for run in found.levels[level].runs}
    return [by_name.get(name) for name in found.runs]
