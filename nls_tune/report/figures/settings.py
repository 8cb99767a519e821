"""Figures of the searched settings: how the rate acts with another one, and which matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from nls_tune.analysis.interactions import Crossed, Interaction
from nls_tune.report.figures.style import (
    DOUBLE,
    MOST_VECTORS,
    OKABE_ITO,
    label,
    legend_below,
    level_label,
    limits,
    panels,
    percentages,
    rate_scale,
    setting_label,
    starts_row,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

    from nls_tune.analysis.analysis import RunAnalysis

_STATUS_MARKERS = {
    "completed": ("o", "completed"),
    "stopped": ("_", "stopped"),
    "diverged": ("x", "diverged"),
}


def interactions(run: RunAnalysis) -> Figure | str:
    """Draw where the trials of each level lie, rate against learning rate and warm-up, over the best of each cell."""
    settings = [name for name in get_args(Crossed) if any(i.setting == name for i in run.interactions)]
    if not settings:
        return "no noise level has completed trials with different learning rates or warm-ups"
    levels = list(dict.fromkeys(i.noise_level for i in run.interactions))
    by_place: dict[tuple[str, str], Interaction] = {(i.noise_level, i.setting): i for i in run.interactions}
    rates = [rate for i in run.interactions for rate in (*i.rate_edges, *(point.smooth_rate for point in i.points))]
    figure, columns = panels(len(levels), DOUBLE, [1.4] * len(settings), extra=1.2)
    for level, column in zip(levels, columns, strict=True):
        column[0].set_title(level_label(level))
        meshes = []
        for setting, axis in zip(settings, column, strict=True):
            found = by_place.get((level, setting))
            if found is None:
                axis.set_visible(False)
                continue
            meshes.append((_cells(axis, found, rates), found))
            axis.set_xlabel("smooth rate r" if axis is column[-1] else "")
            if starts_row(axis):
                axis.set_ylabel(setting_label(setting) + (", epochs" if setting == "warmup_epochs" else ""))
        _colour_bar(figure, column, meshes)
    figure.suptitle("Best validation accuracy of each cell (noisy labels, %): smooth rate and another setting")
    legend_below(figure, [axis for column in columns for axis in column])
    return figure


def _cells(axis: Axes, found: Interaction, rates: Sequence[float]) -> QuadMesh:
    best = np.array([[math.nan if cell is None else cell for cell in row] for row in found.best], dtype=float)
    mesh = axis.pcolormesh(
        np.array(found.rate_edges), np.array(found.value_edges), np.ma.masked_invalid(best), cmap="cividis", alpha=0.85
    )
    for status, (marker, name) in _STATUS_MARKERS.items():
        mine = [point for point in found.points if point.status == status]
        if mine:
            axis.plot(
                [p.smooth_rate for p in mine], [p.value for p in mine], linestyle="none", marker=marker, markersize=3,
                color="black" if status != "diverged" else "#D55E00", markeredgewidth=0.7,
                markerfacecolor="white", label=name, rasterized=len(mine) > MOST_VECTORS, zorder=3,
            )  # fmt: skip
    axis.grid(visible=False)
    rate_scale(axis, "x", rates, inches=1.0)
    values = [*found.value_edges, *(point.value for point in found.points)]
    if found.setting == "lr" and min(values) > 0:
        axis.set_yscale("log")
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        axis.yaxis.set_major_locator(FixedLocator([10.0**power for power in range(low, high + 1)]))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:.0e}".replace("e-0", "e-")))
        axis.yaxis.set_minor_locator(NullLocator())
    else:
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.use_sticky_edges = False
    axis.margins(y=0.06)
    axis.autoscale(axis="y")
    return mesh


def _colour_bar(figure: Figure, column: list[Axes], meshes: list[tuple[QuadMesh, Interaction]]) -> None:
    """One scale for the panels of a level: levels are not comparable on noisy labels."""
    cells = [cell for _, found in meshes for row in found.best for cell in row if cell is not None]
    if not cells:
        return
    for mesh, _ in meshes:
        mesh.set_clim(limits(cells))
    bar = figure.colorbar(
        meshes[0][0], ax=[a for a in column if a.get_visible()], location="bottom", aspect=14, pad=0.02
    )
    bar.outline.set_linewidth(0.4)
    percentages(bar.ax, "x", bins=3)


def importances(run: RunAnalysis) -> Figure | str:
    """Draw the shares of the settings in each level, by two methods."""
    found = [level for level in run.importances if level.importances]
    if not found:
        reasons = list(dict.fromkeys(label(level.reason, 80) for level in run.importances if level.reason))
        return reasons[0] if reasons else "no noise level has search trials"
    most = max(len(level.importances) for level in found)
    figure, columns = panels(len(found), DOUBLE, [0.65 + 0.25 * most], most=3, extra=0.75)
    for level, (axis,) in zip(found, columns, strict=True):
        places = np.arange(len(level.importances))
        methods = (
            (
                "PED-ANOVA: what makes a trial one of the best",
                [i.ped_anova for i in level.importances],
                OKABE_ITO[0],
                None,
                -0.2,
            ),
            (
                "fANOVA: share of the variance of all trials",
                [i.fanova for i in level.importances],
                OKABE_ITO[4],
                "////",
                0.2,
            ),
        )
        for name, shares, colour, hatch, offset in methods:
            axis.barh(
                places + offset,
                shares,
                height=0.38,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0.4,
                label=name,
            )
        axis.set_yticks(places, [setting_label(i.setting) for i in level.importances])
        axis.set_ylim(most - 0.5, -0.5)
        axis.set_xlim(0, 1)
        axis.grid(visible=False, axis="y")
        percentages(axis, "x", bins=2)
        axis.set_xlabel("importance, %")
        axis.set_title(f"{level_label(level.noise_level)}\n({level.num_trials} trials)")
    figure.suptitle("Which settings matter for validation accuracy")
    legend_below(figure, [axis for column in columns for axis in column])
    return figure
