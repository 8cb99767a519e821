"""The axis of smooth rates, spaced by log(1 - r): where a rate stands and which rates are labelled."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nls_tune.report.text import rate as rate_text

#: log(1 - r) ends at 1: nearer rates are drawn here.
_LAST_RATE = 0.99
#: Rates that may be labelled, the most wanted first.
_TICKS = (0, -1, -2, -4, -8, -16, -32, -64, 0.8, 0.4, 0.6, -0.5, 0.2, 0.9, 0.95, _LAST_RATE, -0.25, -0.1, 0.1)


@dataclass(frozen=True)
class RateScale:
    """An axis of smooth rates: its ends as positions, and the labels by their positions."""

    low: float
    high: float
    ticks: dict[float, str]


def rate_position(rate: float) -> float:
    """Return where a smooth rate stands on its axis: ``-log(1 - r)``, which grows with the rate."""
    return round(-math.log1p(-min(rate, _LAST_RATE)), 4) + 0.0


def rate_positions(rates: Iterable[float]) -> list[float]:
    """Return where smooth rates stand on their axis."""
    return [rate_position(rate) for rate in rates]


def rate_scale(rates: Iterable[float], gap: float) -> RateScale:
    """Return an axis that shows all of some rates, at least one; labels are ``gap`` of its length apart, or more."""
    positions = rate_positions(rates)
    low, high = min(positions), max(positions)
    pad = max(0.06 * (high - low), 0.01) if high > low else 0.3  # positions are rounded, and so are axes
    low, high = low - pad, high + pad
    chosen: dict[float, float] = {}
    for tick in _TICKS:
        position = rate_position(tick)
        if low <= position <= high and all(abs(position - other) > gap * (high - low) for other in chosen):
            chosen[position] = tick
    labels = {p: ("≥ " if tick == _LAST_RATE else "") + rate_text(tick) for p, tick in sorted(chosen.items())}
    return RateScale(low, high, labels)
