"""The flags of the search settings: where the help shows them, and how a text becomes a value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nls_tune.errors import InputError
from nls_tune.losses.registry import check_loss

#: Ray counts in ten-thousandths: with more it cannot tell N trials per GPU from N + 1.
MAX_TRIALS_PER_GPU = 99
#: The panels of the help, in their order.
PANELS = ("What to search", "Your own data", "Budget", "Where it runs", "Results and trackers", "Advanced")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)\s*([smh]?)", re.IGNORECASE | re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds of a duration: ``90s``, ``30m``, ``2h``, ``1.5h``, or plain seconds.

    Raises:
        InputError: If the text is not a duration, or the duration is not above 0.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    if not 0 < seconds < math.inf:
        raise InputError(
            f"a duration must be above 0 and be written like 90s, 30m, 1.5h or plain seconds, got {text!r}"
        )
    return seconds


def read_list(value: Any) -> Any:
    """Return the parts of a text between commas; another value as it is."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def read_methods(value: Any) -> Any:
    """Return the names of losses in a text between commas; raise InputError for an unknown or a repeated one."""
    names = read_list(value)
    for name in names:
        check_loss(name)
    if len(set(names)) < len(names):
        raise InputError(f"each method must be named once, got {', '.join(names)}")
    return tuple(names)


def read_seconds(value: Any) -> Any:
    """Return the seconds of a duration that is a text; another value as it is."""
    return parse_duration(value) if isinstance(value, str) else value


def read_trials_per_gpu(value: Any) -> int:
    """Return a number of trials per GPU; raise InputError where it is none."""
    count = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if type(count) is not int or not 1 <= count <= MAX_TRIALS_PER_GPU:
        raise InputError(f"must be a whole number from 1 to {MAX_TRIALS_PER_GPU}, got {value!r}")
    return count


@dataclass(frozen=True)
class Flag:
    """The flag of a field: ``read`` turns what was given, on the command line text, into the field's value.

    By default its ``name`` is ``--`` and the field's, and its ``metavar`` in the help the field's type.
    """

    help: str
    panel: str
    metavar: str | None = None
    read: Callable[[Any], Any] | None = None
    name: str | None = None
