"""The figure of learning curves: accuracy epoch by epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from nls_tune.analysis.learning_curves import LearningCurve
from nls_tune.report.figures.style import (
    ARM_COLOURS,
    ARM_DASHES,
    ARM_LEGEND,
    DOUBLE,
    LEAST_SPAN,
    legend_below,
    level_label,
    limits,
    panels,
    percentages,
    starts_row,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nls_tune.analysis.analysis import RunAnalysis

#: The share of the lowest values that may lie below a panel.
_FIRST_STEPS = 0.04
_OTHERS, _DEFAULT = "#c4c4c4", "#CC79A7"


def learning_curves(run: RunAnalysis) -> Figure | str:
    """Draw the selected trials of each level, CE with the defaults and the best of the others, epoch by epoch."""
    found = [level for level in run.learning_curves if any(curve.epochs for curve in level.curves)]
    if not found:
        return "no search trial has an epoch"
    has_test = any(a is not None for level in found for curve in level.curves for a in curve.test_accuracy)
    heights = [1.3, 1.3] if has_test else [1.6]
    figure, columns = panels(len(found), DOUBLE, heights, extra=0.75)
    for level, column in zip(found, columns, strict=True):
        for curve in reversed(level.curves):  # the selected ones lie above the others
            if has_test:
                _curve(column[0], curve, [math.nan if a is None else a for a in curve.test_accuracy])
            _curve(column[-1], curve, list(curve.val_accuracy))
            if curve.role == "selected":
                column[-1].plot(
                    curve.epochs, curve.train_accuracy, color=ARM_COLOURS[curve.arm], linewidth=0.7, alpha=0.55,
                    linestyle=(0, (1, 1)), zorder=2,
                )  # fmt: skip
        column[0].set_title(level_label(level.noise_level))
        for axis in column:
            percentages(axis)
            axis.tick_params(labelbottom=axis is column[-1])
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            _show_the_selected(axis)
        column[-1].set_xlabel("epoch")
        if starts_row(column[0]):
            column[-1].set_ylabel("noisy labels, %:\nvalidation (training dotted)")
            if has_test:
                column[0].set_ylabel("test accuracy, %\n(clean labels)")
    figure.suptitle("Learning curves: selected trials, best epochs marked")
    legend_below(figure, [axis for column in columns for axis in column])
    return figure


def _show_the_selected(axis: Axes) -> None:
    """Give the panel to the selected curves but for their first steps; others may leave it."""
    values = [
        v for line in axis.get_lines() if line.get_zorder() > 1 for v in np.asarray(line.get_ydata(), dtype=float)
    ]
    values = [value for value in values if math.isfinite(value)]
    if values:
        ordered = sorted(values)
        axis.set_ylim(limits(ordered[int(_FIRST_STEPS * len(ordered)) :], least=2 * LEAST_SPAN))


def _curve(axis: Axes, curve: LearningCurve, accuracies: list[float]) -> None:
    colour, dash, width, name = {
        "selected": (ARM_COLOURS[curve.arm], ARM_DASHES[curve.arm], 1.3, f"selected {ARM_LEGEND[curve.arm]}"),
        "default_ce": (_DEFAULT, "-", 0.9, "CE with the defaults"),
        "other": (_OTHERS, "-", 0.5, "other trials"),
    }[curve.role]
    zorder = {"selected": 4, "default_ce": 3, "other": 1}[curve.role]
    axis.plot(curve.epochs, accuracies, color=colour, linestyle=dash, linewidth=width, zorder=zorder, label=name)
    if curve.role != "other" and curve.best_epoch in curve.epochs:
        at = curve.epochs.index(curve.best_epoch)
        axis.plot(
            [curve.best_epoch], [accuracies[at]], marker="o", markersize=4, markerfacecolor="white",
            markeredgecolor=colour, markeredgewidth=1, linestyle="none", zorder=5,
        )  # fmt: skip
