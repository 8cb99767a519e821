"""What a search may spend: wall time, and how the trials are spread over the noise levels."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nls_tune.errors import InputError, unknown_name
from nls_tune.noise_levels import NoiseLevel, parse_noise_level

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)\s*([smh]?)", re.IGNORECASE | re.ASCII)
#: The used time is kept this often, so that a process that is killed loses little of the count.
_SAVE_SECONDS = 10.0
#: More than this between two levels is a slip of the keyboard.
_LARGEST_WEIGHT = 1000.0


def parse_duration(text: str) -> float:
    """Return the seconds of a duration: ``90s``, ``30m``, ``2h``, ``1.5h``, or plain seconds.

    Raises:
        InputError: If it is none, or not above 0.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    if not 0 < seconds < math.inf:
        raise InputError(
            f"a duration must be above 0 and be written like 90s, 30m, 1.5h or plain seconds, got {text!r}"
        )
    return seconds


@dataclass
class TimeBudget:
    """The wall time of a search, summed over the sessions of its run.

    Attributes:
        seconds: How much there is; None for no limit: then the time is counted all the same.
        used_before: Seconds that earlier sessions used.
        save: Takes the seconds of this session now and then.
    """

    seconds: float | None = None
    used_before: float = 0.0
    save: Callable[[float], None] = lambda seconds: None
    _began: float | None = field(default=None, init=False)
    _session: float = field(default=0.0, init=False)
    _saved: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Begin to count."""
        self._began = time.monotonic()

    def stop(self) -> None:
        """Stop counting and save; without ``start`` nothing happens."""
        if self._began is not None:
            self._session, self._began = self._in_session(), None
            self.save(self._session)

    def left(self) -> float | None:
        """Return the seconds that are left, at least 0; None without a limit."""
        return None if self.seconds is None else max(0.0, self.seconds - self.used_before - self._in_session())

    def used_up(self) -> bool:
        """Whether nothing is left."""
        return self.left() == 0

    def check(self) -> bool:
        """Save the used time if the last time is long enough ago, and say whether nothing is left."""
        if self._in_session() - self._saved >= _SAVE_SECONDS:
            self._saved = self._in_session()
            self.save(self._saved)
        return self.used_up()

    def _in_session(self) -> float:
        return self._session + (0.0 if self._began is None else time.monotonic() - self._began)


def parse_level_weights(texts: Sequence[str], levels: Sequence[NoiseLevel]) -> dict[str, float]:
    """Return the weights of noise levels.

    Args:
        texts: ``LEVEL=WEIGHT``, also several of them in a comma-separated list.
        levels: Those of the run.

    Returns:
        The weights that were given, by level in its stored spelling, in the order of the levels.

    Raises:
        InputError: For a level that the run does not have or that is given twice, and for a weight that is not
            above 0.
    """
    stored, found = [str(level) for level in levels], dict[str, float]()
    for item in (part.strip() for text in texts for part in text.split(",")):
        name, equals, value = item.rpartition("=")
        if not equals:
            raise InputError(f"--level-weight must be LEVEL=WEIGHT, got {item!r}; write for example {stored[0]}=2")
        level = _stored_spelling(name)
        if level not in stored:
            raise InputError(f"--level-weight: {unknown_name('noise level of this run', name, stored)}")
        if level in found:
            raise InputError(f"--level-weight names {level!r} twice, got {item!r}; give one weight a level")
        found[level] = _weight(value, item)
    return {level: found[level] for level in stored if level in found}


def _stored_spelling(name: str) -> str:
    try:
        return str(parse_noise_level(name))
    except InputError:
        return name  # the caller says which levels there are


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
