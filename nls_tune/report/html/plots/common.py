"""What the plots of the report page share: the plot itself, text and numbers for plotly, the axis of smooth rates."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from nls_tune.report.text import rate as rate_text

#: More points than this are thinned: a plot of more is slow and shows no more.
MAX_POINTS = 400
#: Longer names are cut: they would push the plot out of its frame.
_MAX_LABEL = 48
#: Rates are spaced by log(1 - r), which ends at 1; what is nearer is drawn here.
_LAST_RATE = 0.99
_RATE_TICKS = (0, -1, -2, -4, -8, -16, -32, -64, 0.8, 0.4, 0.6, -0.5, 0.2, 0.9, 0.95, _LAST_RATE, -0.25, -0.1, 0.1)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Plot:
    """A plot as the page shows it.

    Attributes:
        key: Unique in a page; letters, digits and dashes.
        title: Plain text, like all texts here but those in ``figure``.
        reading: One sentence: how to read it.
        summary: What a reader who cannot see it is told: numbers, not decoration.
        figure: ``data`` and ``layout`` of plotly; None where there is nothing to draw.
        height: In pixels.
        note: What is left out or uncertain, or why there is no figure.
    """

    key: str
    title: str
    reading: str
    summary: str
    figure: dict[str, Any] | None
    height: int = 400
    note: str | None = None


def plotly_text(value: Any) -> str:
    """Return text that plotly shows as it is: its titles, names and hover texts are a kind of HTML with templates."""
    text = " ".join(str(value).split())
    text = text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"
    return html.escape(text, quote=False).replace("%{", "%&#123;")


def percentage(value: float | None) -> float | None:
    """Return a fraction in percent, rounded to hundredths; None for what is no number: JSON has none of those."""
    return rounded(None if value is None else 100 * value, 2)


def rounded(value: float | None, digits: int) -> float | None:
    """Return a rounded number; None for what is no number."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits) + 0.0


def significant(value: float | None, digits: int = 5) -> float | None:
    """Return a number with so many significant digits; None for what is no number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def thinned(items: Sequence[_T], most: int = MAX_POINTS) -> list[_T]:
    """Return at most so many items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def thinning_note(shown: int, total: int, what: str) -> str | None:
    """Say that only some are shown; None if all are."""
    return None if shown >= total else f"{shown:,} of {total:,} {what} are drawn, evenly spread."


def joined(*notes: str | None) -> str | None:
    """Join the notes that there are; None without any."""
    return " ".join(note for note in notes if note) or None


def rate_position(rate: float) -> float:
    """Return where a smooth rate stands on its axis: ``-log(1 - r)``, which grows with the rate."""
    return round(-math.log1p(-min(rate, _LAST_RATE)), 4) + 0.0


def rate_axis(rates: Iterable[float], title: str = "Smooth rate r, spaced by log(1 − r)") -> dict[str, Any]:
    """Return the plotly axis of smooth rates that shows all of some rates.

    Args:
        rates: At least one.
        title: Of the axis.
    """
    positions = [rate_position(rate) for rate in rates]
    low, high = min(positions), max(positions)
    pad = 0.06 * (high - low) or 0.3
    low, high = low - pad, high + pad
    chosen: list[float] = []
    for tick in _RATE_TICKS:
        position = rate_position(tick)
        if low <= position <= high and all(abs(position - rate_position(c)) > (high - low) / 9 for c in chosen):
            chosen.append(tick)
    ticks = sorted(chosen)
    return {
        "title": {"text": title},
        "range": [round(low, 4), round(high, 4)],
        "tickvals": [rate_position(tick) for tick in ticks],
        "ticktext": [("≥ " if tick == _LAST_RATE else "") + rate_text(tick) for tick in ticks],
    }


def fitted_range(values: Iterable[float | None], least: float = 0.0) -> list[float] | None:
    """Return the range of an axis that shows some values with a margin; None without any.

    Args:
        values: In the units of the axis.
        least: How much the axis covers at least, so that differences of no importance do not look large.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    half = max(high - low, least) / 2 * 1.12 or 0.5
    middle = (low + high) / 2
    return [round(middle - half, 3), round(middle + half, 3)]


def layout(**changes: Any) -> dict[str, Any]:
    """Return the layout that all plots start from: the legend below, narrow margins."""
    return {
        "margin": {"l": 56, "r": 12, "t": 16, "b": 40},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        "hovermode": "closest",
        # Zoom and hidden curves survive a change of the theme.
        "uirevision": "kept",
        **changes,
    }


def error_bars(low: Sequence[float | None], middle: Sequence[float | None], high: Sequence[float | None]) -> Any:
    """Return plotly's error bars of intervals; an interval without ends has no bar."""

    def distances(ends: Sequence[float | None], sign: int) -> list[float]:
        return [
            0.0 if end is None or mid is None else max(0.0, round(sign * (end - mid), 4))
            for end, mid in zip(ends, middle, strict=True)
        ]

    return {
        "type": "data",
        "symmetric": False,
        "array": distances(high, 1),
        "arrayminus": distances(low, -1),
        "thickness": 1.5,
        "width": 5,
    }
