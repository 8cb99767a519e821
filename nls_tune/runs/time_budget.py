"""The wall time of a search, over all sessions of its run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: The used time is kept this often, so that a process that is killed loses little of the count.
_SAVE_SECONDS = 10.0


@dataclass
class TimeBudget:
    """The wall time of a search, summed over the sessions of its run.

    Without a limit, ``seconds`` None, the time is counted as well. ``used_before`` are the seconds of earlier sessions;
    ``save`` takes those of this session now and then.
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
