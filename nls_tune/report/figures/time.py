"""The figure of where the time of a run went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from nls_tune.report.figures.style import ARM_COLOURS, ARM_LEGEND, DOUBLE, MOST_VECTORS, OKABE_ITO, level_label
from nls_tune.report.text import ARM_NAMES, duration, paused, percent
from nls_tune.spaces.space import ARMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nls_tune.analysis.allocation import Allocation, TrialSpan
    from nls_tune.analysis.analysis import RunAnalysis

_UNITS = ((3 * 86400, 86400, "days"), (3 * 3600, 3600, "hours"), (180, 60, "minutes"), (0, 1, "seconds"))
#: In the line of a panel's title, at its right.
_LEGEND: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 0.98), "fontsize": 6.5, "borderaxespad": 0}
_STAGE_NAMES = {"search": "search", "confirm": "confirmation", "confirm_all": "confirmation, all labels"}


def allocation(run: RunAnalysis) -> Figure | str:
    """Draw which trial held which slot when, and what the epochs of each group were."""
    found = run.allocation
    if found is None or not found.spans:
        return "no trial has started"
    slots = max(span.slot for span in found.spans) + 1
    heights = [min(3.0, 0.35 + 0.16 * slots), 1.5]
    figure = Figure(figsize=(DOUBLE, sum(heights) + 1.1), layout="constrained")
    above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": heights})
    _timeline(above, found, slots)
    _epochs(below, found)
    figure.suptitle("Where the time of the run went")
    return figure


def _timeline(axis: Axes, found: Allocation, slots: int) -> None:
    unit, name = next((unit, name) for least, unit, name in _UNITS if found.wall_seconds >= least)
    for slot in range(slots):
        rows: dict[bool, list[TrialSpan]] = {}
        for span in found.spans:
            if span.slot == slot:
                rows.setdefault(span.stage != "search", []).append(span)
        for confirms, spans in sorted(rows.items()):
            axis.broken_barh(
                [(span.start_seconds / unit, span.seconds / unit) for span in spans],
                (slot - 0.4, 0.8),
                facecolors=[ARM_COLOURS[span.arm] for span in spans], edgecolor="white", linewidth=0.3,
                alpha=0.45 if confirms else 0.9, rasterized=len(spans) > MOST_VECTORS,
            )  # fmt: skip
    axis.set_ylim(slots - 0.5, -0.5)
    axis.yaxis.set_major_locator(MaxNLocator(min(slots, 8), integer=True))
    axis.yaxis.set_major_formatter(lambda value, position: f"{value + 1:g}")
    axis.set_ylabel("slot")
    axis.set_xlabel(f"{name} since the first trial began")
    axis.grid(visible=False, axis="y")
    axis.set_title(
        f"{len(found.spans):,} trials in {duration(found.wall_seconds)}, slots busy {percent(found.busy_share, 0)}"
        f"{paused(found.paused_seconds)}",
        loc="left",
    )
    patches = [Patch(color=ARM_COLOURS[arm], label=ARM_LEGEND[arm]) for arm in ARMS]
    if any(span.stage != "search" for span in found.spans):
        patches.append(Patch(color=ARM_COLOURS["ce"], alpha=0.45, label="pale: confirmation"))
    axis.legend(handles=patches, ncols=4, **_LEGEND)


def _epochs(axis: Axes, found: Allocation) -> None:
    places = range(len(found.groups))
    bottom = [0.0] * len(found.groups)
    kinds = (
        ("trained", [g.epochs_trained for g in found.groups], OKABE_ITO[0], None),
        ("reused: shared warm-ups", [g.epochs_reused for g in found.groups], OKABE_ITO[5], "...."),
        ("saved: stopped early", [g.epochs_saved for g in found.groups], "#f2f2f2", "////"),
    )
    for name, counts, colour, hatch in kinds:
        axis.bar(
            places,
            counts,
            0.8,
            bottom=bottom,
            color=colour,
            hatch=hatch,
            edgecolor="#8a8a8a",
            linewidth=0.4,
            label=name,
        )
        bottom = [b + count for b, count in zip(bottom, counts, strict=True)]
    turned = len(found.groups) > 8
    axis.set_xticks(places, [ARM_NAMES[g.arm] for g in found.groups], rotation=90 if turned else 0)
    axis.set_xlim(-0.6, len(found.groups) - 0.4)
    axis.set_ylabel("epochs")
    axis.grid(visible=False, axis="x")
    axis.set_title("Epochs of each group", loc="left")
    axis.legend(ncols=3, **_LEGEND)
    _name_levels(axis, found, below=30 if turned else 16)


def _name_levels(axis: Axes, found: Allocation, below: float) -> None:
    """Write the name of each level below its arms, and a line between two."""
    begin = 0
    keys = [(g.stage, g.noise_level) for g in found.groups]
    for i, key in enumerate(keys):
        if i + 1 < len(keys) and keys[i + 1] == key:
            continue
        stage, level = key
        text = level_label(level) if stage == "search" else f"{level_label(level)}\n{_STAGE_NAMES.get(stage, '')}"
        axis.annotate(
            text.replace(", ", "\n", 1), ((begin + i) / 2, 0), (0, -below), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="top", fontsize=5.5,
        )  # fmt: skip
        if i + 1 < len(keys):
            axis.axvline(i + 0.5, color="#8a8a8a", linewidth=0.5)
        begin = i + 1
