"""Panels side by side, one column of them per noise level, with one legend below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from nls_tune.report.figures import style
from nls_tune.report.rate_scale import rate_position
from nls_tune.report.text import of_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nls_tune.metrics import Metric

    #: The panels of each noise level, the upper one first.
    Columns = list[list[Axes]]

#: The most panels side by side, and the width of all of them.
MOST_COLUMNS, PANEL_INCHES = 5, 5.5
#: Noise-cancelling rates down to twice this one are always in sight.
USUAL_RATE = -4.0


def panels(num: int, heights: list[float]) -> tuple[Figure, Columns]:
    """Make a figure with a column of panels of these heights per noise level; more than fit go on below."""
    blocks = math.ceil(num / MOST_COLUMNS)
    columns, rows = math.ceil(num / blocks), len(heights)
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(style.DOUBLE, blocks * sum(heights) + 0.75), layout=layout)
    grid = figure.subplots(blocks * rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights * blocks})
    axes = [[grid[i // columns * rows + row, i % columns] for row in range(rows)] for i in range(blocks * columns)]
    for axis in (axis for unused in axes[num:] for axis in unused):
        axis.set_visible(False)
    return figure, axes[:num]


def label_panels(columns: Columns, column: list[Axes], rates: Sequence[float], metrics: Sequence[Metric]) -> None:
    """Label the axes of a level: rates below, validation accuracy in the last panel, test in the one above, if any."""
    for axis in column:
        style.label_rates(axis, "x", rates, inches=PANEL_INCHES / len(columns[:MOST_COLUMNS]))
        axis.tick_params(labelbottom=axis is column[-1])
    column[-1].set_xlabel("smooth rate r")
    spec = column[0].get_subplotspec()
    if spec is not None and spec.is_first_col():
        column[-1].set_ylabel(of_metric("validation accuracy, %\n(noisy labels)", metrics))
        if len(column) > 1:
            column[0].set_ylabel(of_metric("test accuracy, %", metrics))


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """Put one legend for all panels below them; each name stands there once."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    figure.legend(
        list(found.values()), list(found), loc="outside lower center", ncols=min(6, len(found)), columnspacing=1.4,
        handletextpad=0.5,
    )  # fmt: skip


def mark_theory(axis: Axes, noise_cancelling_rate: float | None) -> None:
    """Draw the line of theory, where there is one."""
    if noise_cancelling_rate is not None:
        axis.axvline(
            rate_position(noise_cancelling_rate), color=style.THEORY, linestyle=(0, (1, 1.2)), linewidth=1.3,
            zorder=1, label="noise-cancelling rate",
        )  # fmt: skip
