"""The style of the figures: sizes of papers, colours that colour-blind people tell apart, the axis of smooth rates.

Numbers are drawn as they are, accuracies as fractions; the labels of the axes turn them into percentages.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nls_tune.report.rate_scale import rate_scale
from nls_tune.report.text import printable
from nls_tune.spaces.settings import Arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches: one column of a paper, and two.
SINGLE, DOUBLE = 3.3, 6.8
#: So that a figure of two columns is about 1,600 pixels wide.
DPI = 240
#: The least span of an axis of accuracies: one percentage point.
LEAST_SPAN = 0.01

#: Okabe and Ito, "Color Universal Design" (2008). Figures name other losses beside their marks, which are all alike.
ARM_COLOURS: dict[Arm, str] = defaultdict(
    lambda: "#009E73", {"ce": "#000000", "positive": "#0072B2", "negative": "#D55E00"}
)
ARM_MARKERS: dict[Arm, str] = defaultdict(lambda: "^", {"ce": "D", "positive": "s", "negative": "o"})
THEORY, SMOOTHER, MUTED, GRID = "#009E73", "#4d4d4d", "#6e6e6e", "#e3e3e3"

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


def label_rates(axis: Axes, which: Literal["x", "y"], rates: Iterable[float], inches: float) -> None:
    """Show all of some smooth rates, at least one, on an axis of about so many inches; data are their positions."""
    scale = rate_scale(rates, (0.19 if which == "x" else 0.16) / inches)
    if which == "x":
        axis.set_xticks(list(scale.ticks), list(scale.ticks.values()))
        axis.set_xlim(scale.low, scale.high)
    else:
        axis.set_yticks(list(scale.ticks), list(scale.ticks.values()))
        axis.set_ylim(scale.low, scale.high)


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of an axis that shows some accuracies, at least one, with some space beside them.

    They are ``LEAST_SPAN`` apart at least: differences that mean nothing must not fill a panel.
    """
    low, high = min(values), max(values)
    missing = max(0.0, LEAST_SPAN - (high - low)) / 2
    pad = 0.08 * (high - low + 2 * missing)
    return low - missing - pad, high + missing + pad
