"""Curves of one line of text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
#: For consoles that cannot show blocks: characters of rising height, then of rising weight.
_ASCII = "_.-=+*%@"


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """Draw a curve with one character per value, from the lowest block for the lowest to the highest for the highest.

    Values that are not finite leave a gap, and a flat curve is a line in the middle. Where there are more values than
    the width has characters, neighbours are averaged.

    Raises:
        ValueError: If the width is below 1.
    """
    if width < 1:
        raise ValueError(f"a curve needs a width of at least 1, got {width}")
    count = min(width, len(values))
    edges = [i * len(values) // count for i in range(count + 1)] if count else []
    means = [_mean(values[a:b]) for a, b in itertools.pairwise(edges)]
    finite = [mean for mean in means if mean is not None]
    blocks = _ASCII if ascii_only else _BLOCKS
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join(" " if mean is None else blocks[_height(mean, low, high, len(blocks))] for mean in means)


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    # Each divided before the sum: the sum of large numbers may be infinite.
    return sum(value / len(finite) for value in finite) if finite else None


def _height(value: float, low: float, high: float, num_heights: int) -> int:
    if not low < high:
        return num_heights // 2 - 1
    return min(num_heights - 1, int((value / 2 - low / 2) / (high / 2 - low / 2) * num_heights))
