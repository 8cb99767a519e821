"""Ctrl-C and SIGTERM, once and again: what is being saved is saved, whatever is pressed meanwhile."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: Tune waits about 5 s for the trials to save their state; when it has not ended after so long, something hangs.
_LONGEST_END = 10.0


class InterruptedAgainError(KeyboardInterrupt):
    """A second interruption, which came while the first one was handled: the program ends at once."""


class InterruptedRunError(KeyboardInterrupt):
    """A search was interrupted before it could say what it has found so far; ``run`` is its directory."""

    def __init__(self, run: Any) -> None:
        self.run = run
        super().__init__(f"interrupted; what was finished is in {run}")


class Interrupts:
    """The handler of Ctrl-C during a Tune experiment, and of SIGTERM, which batch systems send before they kill.

    The first one tells Tune to end the trials in order. Later ones wait until the trials are saved and their rows are
    written, and then raise; one that comes when this takes too long raises at once. Nothing is handled outside of the
    main thread. ``on_first`` is called at the first one, like a signal handler: in the middle of anything.
    """

    def __init__(self, on_first: Callable[[], Any] = lambda: None) -> None:
        self._on_first = on_first
        self._stop_tune: Any = None
        self._before: dict[int, Any] = {}
        self._times: list[float] = []

    def __enter__(self) -> Interrupts:
        """Handle the signals from here on."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def tune_is_ready(self) -> None:
        """Take over from Tune, which has just set a handler of its own."""
        if self._before:
            self._stop_tune = signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: Any) -> None:
        self._times.append(time.monotonic())
        if not callable(self._stop_tune) or self._stop_tune == self._handle:
            raise KeyboardInterrupt  # no trial is running yet
        if len(self._times) == 1:
            self._on_first()
            self._stop_tune(number, frame)
        elif self._times[-1] - self._times[0] > _LONGEST_END:
            raise InterruptedAgainError

    def __exit__(self, kind: Any, *raised: Any) -> None:
        """Give the signals back; raise ``InterruptedAgainError`` if there was more than one."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if len(self._times) > 1 and kind is None:
            raise InterruptedAgainError


@contextmanager
def held_back() -> Iterator[None]:
    """In the main thread let Ctrl-C wait for the end of a short block, and raise ``InterruptedAgainError`` there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if pressed:
        raise InterruptedAgainError
