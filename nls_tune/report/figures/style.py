"""The style of the figures: sizes of papers, colours that colour-blind people tell apart, the axis of smooth rates.

Numbers are drawn as they are, accuracies as fractions; the labels of the axes turn them into percentages.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from nls_tune.report.text import printable
from nls_tune.report.text import rate as rate_text
from nls_tune.spaces.space import Arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches: one column of a paper, and two.
SINGLE, DOUBLE = 3.3, 6.8
#: So that a figure of two columns is about 1,600 pixels wide.
DPI = 240
#: The least span of an axis of accuracies: one percentage point.
LEAST_SPAN = 0.01

#: Okabe and Ito, "Color Universal Design" (2008).
ARM_COLOURS: dict[Arm, str] = {"ce": "#000000", "positive": "#0072B2", "negative": "#D55E00"}
ARM_MARKERS: dict[Arm, str] = {"ce": "D", "positive": "s", "negative": "o"}
ARM_LEGEND: dict[Arm, str] = {"ce": "CE (r = 0)", "positive": "r > 0", "negative": "r < 0"}
THEORY, SMOOTHER, MUTED, GRID = "#009E73", "#4d4d4d", "#6e6e6e", "#e3e3e3"

#: Rates that may be labelled, the most wanted first.
_RATE_TICKS = (
    0.0,
    -1.0,
    -4.0,
    -8.0,
    0.8,
    -2.0,
    0.5,
    -16.0,
    -32.0,
    -64.0,
    -0.5,
    0.9,
    1.0,
    0.2,
    -0.2,
    0.1,
    -0.1,
    0.05,
    -0.05,
)
#: Rates are spaced by log(1 - r), which ends before 1; from here on they are spaced evenly.
_EVEN_FROM = 0.9
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that all machines draw the same
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 7,
    "figure.titlesize": 8.5,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "axes.linewidth": 0.6,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "hatch.linewidth": 0.5,
    # Names come from files: a dollar in one of them is a dollar.
    "text.parse_math": False,
    # The same run gives the same bytes.
    "svg.hashsalt": "nls_tune",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
#: Settings of the process, not of a drawing.
_NOT_OURS = {"backend", "backend_fallback", "interactive", "toolbar", "timezone", "date.epoch", "webagg.port"}


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save with these settings; those of the user hold again afterwards."""
    defaults: dict[Any, Any] = {key: value for key, value in mpl.rcParamsDefault.items() if key not in _NOT_OURS}
    with warnings.catch_warnings(), mpl.rc_context():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", category=mpl.MatplotlibDeprecationWarning)
        mpl.rcParams.update(defaults)
        mpl.rcParams.update(_STYLE)
        yield


def label(text: object, most: int = 40) -> str:
    """Return a name for a figure: one line, its middle left out where it is too long."""
    shown = printable(str(text))
    return shown if len(shown) <= most else f"{shown[: most // 2]}…{shown[len(shown) - most // 2 + 1 :]}"


def level_label(noise_level: str) -> str:
    """Return a noise level as a panel's title: ``symmetric, 40 %``; others as they are stored."""
    kind, _, rate = noise_level.partition(":")
    try:
        return f"{label(kind)}, {100 * float(rate):g} %"
    except ValueError:
        return label(noise_level, 24)


def percentages(axis: Axes, which: Literal["x", "y"] = "y", *, signed: bool = False, bins: int = 4) -> None:
    """Label an axis of fractions in percent, or one of differences in points, with their signs."""

    def text(value: float, position: object = None) -> str:
        shown = round(100 * value, 6) + 0.0
        return f"{shown:{'+' if signed and shown else ''}.6g}".replace("-", "−")

    chosen = axis.yaxis if which == "y" else axis.xaxis
    chosen.set_major_formatter(FuncFormatter(text))
    chosen.set_major_locator(MaxNLocator(bins, steps=[1, 2, 5, 10]))


def rate_scale(axis: Axes, which: Literal["x", "y"], rates: Iterable[float], inches: float) -> None:
    """Space an axis of smooth rates by log(1 - r), rising, show all of some rates and label round ones.

    Args:
        axis: The axes.
        which: Its axis of rates.
        rates: At least one.
        inches: Its approximate length: labels must not touch.
    """
    positions = _forward(np.array([rate for rate in rates if math.isfinite(rate)] or [0.0]))
    low, high = float(positions.min()), float(positions.max())
    pad = 0.05 * (high - low) or 0.2
    low, high = low - pad, high + pad
    chosen: list[float] = []
    for tick, position in zip(_RATE_TICKS, _forward(np.array(_RATE_TICKS)).tolist(), strict=True):
        apart = all(
            abs(position - float(_forward(other))) / (high - low) * inches > _label_gap(tick, other, which)
            for other in chosen
        )
        if low <= position <= high and apart:
            chosen.append(tick)
    ticks = sorted(chosen)
    scaled = axis.xaxis if which == "x" else axis.yaxis
    (axis.set_xscale if which == "x" else axis.set_yscale)("function", functions=(_forward, _backward))
    scaled.set_major_locator(FixedLocator(ticks))
    scaled.set_major_formatter(FixedFormatter([rate_text(tick) for tick in ticks]))
    scaled.set_minor_locator(NullLocator())
    limits = _backward(np.array([low, high])).tolist()
    (axis.set_xlim if which == "x" else axis.set_ylim)(limits)


def _label_gap(tick: float, other: float, which: str) -> float:
    """Inches between the middles of two labels that do not touch."""
    if which == "y":
        return 0.16
    return 0.06 + 0.055 * (len(rate_text(tick)) + len(rate_text(other))) / 2


def _forward(rates: Any) -> Any:
    rates = np.asarray(rates, dtype=float)
    even = -math.log(1 - _EVEN_FROM) + (rates - _EVEN_FROM) / (1 - _EVEN_FROM)
    return np.where(rates > _EVEN_FROM, even, -np.log1p(-np.minimum(rates, _EVEN_FROM)))


def _backward(positions: Any) -> Any:
    positions = np.asarray(positions, dtype=float)
    begin = -math.log(1 - _EVEN_FROM)
    even = _EVEN_FROM + (positions - begin) * (1 - _EVEN_FROM)
    return np.where(positions > begin, even, -np.expm1(-np.minimum(positions, begin)))


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of an axis that shows some accuracies, at least one, with some space beside them.

    They are ``LEAST_SPAN`` apart at least: differences that mean nothing must not fill a panel.
    """
    low, high = min(values), max(values)
    missing = max(0.0, LEAST_SPAN - (high - low)) / 2
    pad = 0.08 * (high - low + 2 * missing)
    return low - missing - pad, high + missing + pad
