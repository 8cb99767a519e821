"""Weights of the noise levels: how the trials are spread over them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nls_tune.errors import InputError, unknown_name
from nls_tune.noise.levels import NoiseLevel, parse_noise_level

#: More than this between two levels is a slip of the keyboard.
_LARGEST_WEIGHT = 1000.0


def parse_level_weights(texts: Sequence[str], levels: Sequence[NoiseLevel]) -> dict[str, float]:
    """Return the weights that were given, by level in its stored spelling, in the order of the levels.

    Each text is ``LEVEL=WEIGHT``, or several of these in a comma-separated list.

    Raises:
        InputError: For a level that the run does not have or that is given twice, and for a weight that is not
            above 0.
    """
    stored, found = [str(level) for level in levels], dict[str, float]()
    for item in (part.strip() for text in texts for part in text.split(",")):
        name, equals, value = item.rpartition("=")
        if not equals:
            raise InputError(f"--level-weight must be LEVEL=WEIGHT, got {item!r}; write for example {stored[0]}=2")
        try:
            level = str(parse_noise_level(name))
        except InputError:
            level = name  # is refused in the next lines
        if level not in stored:
            raise InputError(f"--level-weight: {unknown_name('noise level of this run', name, stored)}")
        if level in found:
            raise InputError(f"--level-weight names {level!r} twice, got {item!r}; give one weight per level")
        found[level] = _weight(value, item)
    return {level: found[level] for level in stored if level in found}


def _weight(value: str, item: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = math.nan
    if not 0 < weight <= _LARGEST_WEIGHT:
        raise InputError(
            f"--level-weight must be above 0 and at most {_LARGEST_WEIGHT:g}, got {item!r}; "
            "2 gives a level twice the trials"
        )
    return weight
