"""Parts that the plots of the report page share: the plot itself, text and numbers for plotly, traces and axes."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from nls_tune.analysis.statistics import SampleMean
from nls_tune.report.html.plots.theme import ARM_COLOURS, ARM_SYMBOLS, NUM_RUN_COLOURS, RUN_SYMBOLS
from nls_tune.report.rate_scale import rate_scale
from nls_tune.report.text import amount
from nls_tune.spaces.settings import Arm

#: A figure of plotly, or a part of one, as its JSON.
Figure = dict[str, Any]
#: More points than this are thinned: a plot of more is slow and shows no more.
MAX_POINTS = 400
#: A plot of fewer trials says nothing.
_LEAST_TRIALS = 4
#: Longer names are cut: they would push the plot out of its frame.
_MAX_LABEL = 48
_T = TypeVar("_T")


@dataclass(frozen=True)
class Plot:
    """A plot as the page shows it, with plain texts: how to read it, what it says to a reader who cannot see it.

    The key (letters, digits and dashes) is unique in a page. The figure holds ``data`` and ``layout`` of plotly; where
    it is None, the note says why, else what is left out or uncertain. The height is in pixels.
    """

    key: str
    title: str
    reading: str
    summary: str
    figure: Figure | None
    height: int = 400
    note: str | None = None

    @classmethod
    def empty(cls, key: str, title: str, reading: str, reason: str) -> Plot:
        """Return a plot that says why there is nothing to draw."""
        return cls(key, title, reading, reason, None, note=reason)


def too_few(count: int) -> str | None:
    """Return why so few trials are not drawn, and how to get more; None where they are enough to say something."""
    if count >= _LEAST_TRIALS:
        return None
    return f"{amount(count, 'search trial')} of this level ran to the end, too few to draw; --num-trials gives it more."


def plotly_text(value: Any) -> str:
    """Return text that plotly shows as it is: it takes titles, names and hover texts as HTML with templates."""
    text = " ".join(str(value).split())
    text = text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"
    return html.escape(text, quote=False).replace("%{", "%&#123;")


def percentage(value: float | None) -> float | None:
    """Return a fraction in percent, rounded to hundredths; None for NaN and infinities, which JSON does not have."""
    return rounded(None if value is None else 100 * value, 2)


def percentages(values: Iterable[float | None]) -> list[float | None]:
    """Return fractions in percent, see ``percentage``."""
    return [percentage(value) for value in values]


def rounded(value: float | None, digits: int) -> float | None:
    """Return a rounded number; None for NaN and infinities."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits) + 0.0


def thinned(items: Sequence[_T], most: int = MAX_POINTS) -> list[_T]:
    """Return at most so many items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def thinning_note(shown: int, total: int, what: str) -> str | None:
    """Say that only some are shown; None if all are."""
    return None if shown >= total else f"{shown:,} of {total:,} {what} are drawn, evenly spread."


def joined(*notes: str | None) -> str | None:
    """Join notes, of which some may be missing; None without any."""
    return " ".join(note for note in notes if note) or None


def rate_axis(rates: Iterable[float]) -> Figure:
    """Return the plotly axis of smooth rates that shows all of some rates, at least one."""
    scale = rate_scale(rates, 1 / 9)
    return {
        "title": {"text": "Smooth rate r, spaced by log(1 − r)"},
        "range": [round(scale.low, 4), round(scale.high, 4)],
        "tickvals": list(scale.ticks),
        "ticktext": list(scale.ticks.values()),
    }


def fitted_range(values: Iterable[float | None], least: float = 0.0) -> list[float] | None:
    """Return the range of an axis that shows some values with a margin; None without any.

    It is at least ``least`` wide, so that differences of no importance do not look large.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    half = max(high - low, least) / 2 * 1.12 or 0.5
    middle = (low + high) / 2
    return [round(middle - half, 3), round(middle + half, 3)]


def layout(**changes: Any) -> Figure:
    """Return the layout that all plots start from: the legend below, narrow margins."""
    return {
        "margin": {"l": 56, "r": 12, "t": 16, "b": 40},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        "hovermode": "closest",
        # Zoom and hidden curves survive a change of the theme.
        "uirevision": "kept",
        **changes,
    }


def scatter(mode: str, x: Sequence[object], y: Sequence[object], **more: Any) -> Figure:
    """Return a trace of ``markers`` or ``lines``."""
    return {"type": "scatter", "mode": mode, "x": list(x), "y": list(y), **more}


def arm_marker(arm: Arm, size: int, **more: Any) -> Figure:
    """Return the marker of an arm."""
    return {"color": ARM_COLOURS[arm], "symbol": ARM_SYMBOLS[arm], "size": size, **more}


def vertical_line(x: float | None, **line: Any) -> Figure:
    """Return a line over the whole height of a figure."""
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}


def run_look(index: int) -> tuple[str, str]:
    """Return the colour and the marker of one of several runs or noise levels."""
    return f"@run-{index % NUM_RUN_COLOURS}", RUN_SYMBOLS[index % len(RUN_SYMBOLS)]


def error_bars(means: Sequence[SampleMean], colour: str) -> Figure:
    """Return plotly's error bars, in percent; a mean without an interval has no bar."""

    def distances(ends: Iterable[float]) -> list[float]:
        pairs = [(percentage(end), percentage(found.mean)) for end, found in zip(ends, means, strict=True)]
        return [0.0 if end is None or mean is None else round(abs(end - mean), 4) for end, mean in pairs]

    return {
        "type": "data",
        "symmetric": False,
        "array": distances(found.high for found in means),
        "arrayminus": distances(found.low for found in means),
        "thickness": 1.5,
        "width": 5,
        "color": colour,
    }
