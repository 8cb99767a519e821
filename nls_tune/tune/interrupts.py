"""Ctrl-C, SIGTERM and SIGHUP, once and again: what is being saved is saved, whatever comes meanwhile."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

#: Tune waits about 5 s for the trials to save their state; when it has not ended after so long, something hangs.
_LONGEST_END = 10.0
#: Batch systems send SIGTERM before they kill, terminals and lost connections SIGHUP.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class InterruptedAgainError(KeyboardInterrupt):
    """A second interruption, which came while the first one was handled: the program ends at once."""


class InterruptedRunError(KeyboardInterrupt):
    """A search was interrupted before it could say what it has found so far; ``run`` is its directory."""

    def __init__(self, run: Any) -> None:
        self.run = run
        super().__init__(f"interrupted; what was finished is in {run}")


def _handled() -> list[signal.Signals]:
    """The signals that end a search in order; those that it was started to ignore, as nohup does, stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt a session as Ctrl-C does, wherever it stands."""
    numbers = [number for number in _handled() if number != signal.SIGINT]
    before: dict[signal.Signals, Any] = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        _give_back(before)


def _interrupt(number: int, frame: Any) -> None:
    _leave_terminal(number)
    raise KeyboardInterrupt


def _leave_terminal(number: int) -> None:
    """After SIGHUP the terminal is gone: whoever prints to it would fail, in the middle of saving."""
    if number != signal.SIGHUP:
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            if os.isatty(stream.fileno()):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _give_back(before: Mapping[signal.Signals, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


class Interrupts:
    """The handler of signals during a Tune experiment.

    The first one tells Tune to end the trials in order. Later ones wait until the trials are saved and their rows are
    written, and then raise; one that comes when this takes too long raises at once. Nothing is handled outside of the
    main thread. ``on_first`` is called at the first one, like a signal handler: in the middle of anything.

    Attributes:
        died: What ended of Ray itself, which interrupts the experiment as well; None if nothing did.
    """

    def __init__(self, on_first: Callable[[], Any] = lambda: None) -> None:
        self._on_first = on_first
        self._stop_tune: Any = None
        self._before: dict[signal.Signals, Any] = {}
        self._times: list[float] = []
        self.died: str | None = None
        self._raised = False

    def __enter__(self) -> Interrupts:
        """Handle the signals from here on."""
        self._before = {number: signal.signal(number, self._handle) for number in _handled()}
        if threading.current_thread() is threading.main_thread():
            self._before.setdefault(signal.SIGINT, signal.SIG_IGN)  # Tune sets a handler there as well
        return self

    def tune_is_ready(self) -> None:
        """Take over from Tune, which has just set a handler of its own."""
        if self._before:
            is_ignored = self._before[signal.SIGINT] is signal.SIG_IGN
            self._stop_tune = signal.signal(signal.SIGINT, signal.SIG_IGN if is_ignored else self._handle)

    def ray_died(self, what: str) -> None:
        """End the experiment, from any thread: a process of Ray without which nothing goes on is gone."""
        self.died = what
        main = threading.main_thread().ident
        if self._before and main is not None:
            signal.pthread_kill(main, signal.SIGTERM)

    def _handle(self, number: int, frame: Any) -> None:
        if self.died is not None and not self._raised:
            self._raised = True
            raise KeyboardInterrupt  # Tune could not end anything; Ray makes any exception here this one
        _leave_terminal(number)
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
        _give_back(self._before)
        if len(self._times) > 1 and kind is None:
            raise InterruptedAgainError


@contextmanager
def held_back() -> Iterator[None]:
    """In the main thread let signals wait for the end of a short block, and raise ``InterruptedAgainError`` there."""
    pressed: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: pressed.append(number)) for number in _handled()}
    try:
        yield
    finally:
        _give_back(before)
    if pressed:
        raise InterruptedAgainError
