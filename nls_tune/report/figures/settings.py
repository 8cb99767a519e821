"""Figures of the searched settings: how the rate acts with another one, and which matter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from nls_tune.analysis.interactions import Interaction
from nls_tune.report.figures.style import (
    DOUBLE,
    MOST_VECTORS,
    OKABE_ITO,
    label,
    legend_below,
    level_label,
    panels,
    percentages,
    rate_scale,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

    from nls_tune.analysis.analysis import RunAnalysis

_SETTING_NAMES = {"lr": "learning rate", "warmup_epochs": "warm-up, epochs"}
_STATUS_MARKERS = {
    "completed": ("o", "completed"),
    "stopped": ("_", "stopped"),
    "diverged": ("x", "diverged"),
}


def interactions(run: RunAnalysis) -> Figure | str:
    """Draw where the trials of each level lie, rate against learning rate and warm-up, over the best of each cell."""
    settings = [name for name in _SETTING_NAMES if any(i.setting == name for i in run.interactions)]
    if not settings:
        return "no noise level has completed trials with different learning rates or warm-ups"
    levels = list(dict.fromkeys(i.noise_level for i in run.interactions))
    by_place = {(i.noise_level, i.setting): i for i in run.interactions}
    figure, columns = panels(len(levels), DOUBLE, [1.4] * len(settings), extra=1.2)
    for level, column in zip(levels, columns, strict=True):
        column[0].set_title(level_label(level))
        meshes = []
        for setting, axis in zip(settings, column, strict=True):
            found = by_place.get((level, setting))  # type: ignore[call-overload]
            if found is None:
                axis.set_visible(False)
                continue
            meshes.append((_cells(axis, found), found))
            spec = axis.get_subplotspec()
            if spec is not None and spec.is_first_col():
                axis.set_ylabel(_SETTING_NAMES[setting])
        _colour_bar(figure, column, meshes)
    figure.supxlabel("smooth rate r, spaced by log(1 − r)", fontsize=7)
    figure.suptitle("Best validation accuracy (noisy labels, %) by smooth rate and another setting")
    legend_below(figure, [axis for column in columns for axis in column])
    return figure


def _cells(axis: Axes, found: Interaction) -> QuadMesh:
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
    rate_scale(axis, "x", [*found.rate_edges, *(point.smooth_rate for point in found.points)], most_ticks=4)
    values = [*found.value_edges, *(point.value for point in found.points)]
    if found.setting == "lr" and min(values) > 0:
        axis.set_yscale("log")
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        axis.yaxis.set_major_locator(FixedLocator([10.0**power for power in range(low, high + 1)]))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:.0e}".replace("e-0", "e-")))
        axis.yaxis.set_minor_locator(NullLocator())
    else:
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.set_ylim(min(values), max(values))
    return mesh


def _colour_bar(figure: Figure, column: list[Axes], meshes: list[tuple[QuadMesh, Interaction]]) -> None:
    """One scale for the panels of a level: levels are not comparable on noisy labels."""
    cells = [cell for _, found in meshes for row in found.best for cell in row if cell is not None]
    if not cells:
        return
    for mesh, _ in meshes:
        mesh.set_clim(min(cells), max(cells))
    bar = figure.colorbar(
        meshes[0][0], ax=[a for a in column if a.get_visible()], location="bottom", aspect=14, pad=0.02
    )
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    percentages(bar.ax, "x", bins=3)


def importances(run: RunAnalysis) -> Figure | str:
    """Draw the shares of the settings in each level, by two methods."""
    found = [level for level in run.importances if level.importances]
    if not found:
        reasons = list(dict.fromkeys(label(level.reason, 80) for level in run.importances if level.reason))
        return reasons[0] if reasons else "no noise level has search trials"
    most = max(len(level.importances) for level in found)
    figure, columns = panels(len(found), DOUBLE, [0.35 + 0.3 * most], extra=0.75)
    for level, (axis,) in zip(found, columns, strict=True):
        places = np.arange(len(level.importances))
        methods = (
            ("PED-ANOVA: for being among the best", [i.ped_anova for i in level.importances], OKABE_ITO[0], None, -0.2),
            ("fANOVA: share of all variance", [i.fanova for i in level.importances], OKABE_ITO[4], "////", 0.2),
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
        axis.set_yticks(places, [label(i.setting, 16) for i in level.importances])
        axis.set_ylim(most - 0.5, -0.5)
        axis.set_xlim(0, 1)
        axis.grid(visible=False, axis="y")
        percentages(axis, "x", bins=2)
        axis.set_title(f"{level_label(level.noise_level)}\n({level.num_trials} trials)")
    figure.supxlabel("importance, %", fontsize=7)
    figure.suptitle("Which settings matter for validation accuracy")
    legend_below(figure, [axis for column in columns for axis in column])
    return figure
