"""Trackers, which follow the trials of a search, and a thread that keeps slow or failing ones apart from it."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from nls_tune.machine.provenance import without_password
from nls_tune.runs.directory import RunDirectory

_LOG = logging.getLogger(__name__)
#: Seconds that a tracker gets at the end of a session for what it has not taken yet.
_PATIENCE = 30.0


@dataclass(frozen=True)
class TrackedTrial:
    """A trial as trackers know it.

    The ``name`` holds the run's and the trial's id, so that two runs of the same trial are two. ``config`` is flat:
    what the trial is, and all its training settings. ``folder`` is the run directory, for files that wait to be sent.
    """

    name: str
    config: dict[str, Any]
    folder: Path

    def __str__(self) -> str:
        return " ".join(str(self.config[name]) for name in ("noise_level", "arm", "stage", "trial_id"))


class Tracker:
    """Follows the trials of a session; does nothing where a subclass does not say more."""

    def started(self, trial: TrackedTrial) -> None:
        """A trial starts, or goes on from an earlier session."""

    def reported(self, trial: TrackedTrial, epochs: Sequence[Mapping[str, Any]]) -> None:
        """The trial has trained these epochs: rows of ``epochs/`` without what names the trial."""

    def ended(self, trial: TrackedTrial, row: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> None:
        """The trial's row of ``trials/`` is written; all its epochs come with it."""

    def close(self) -> None:
        """Nothing more comes."""


def tracked_trial(run: RunDirectory, run_id: str, trial_id: str, config: Mapping[str, Any]) -> TrackedTrial:
    """Return a trial for trackers."""
    # Weights & Biases takes 64 characters and no special ones; the trial is at the end.
    name = re.sub(r"[^\w-]", "-", f"{run_id}-{trial_id}")[-64:]
    return TrackedTrial(name, {"trial_id": trial_id, **config}, run.path)


class BackgroundTracker(Tracker):
    """Tells another tracker from a thread of its own, so that none can hold up or end a search.

    ``make`` makes that tracker in the thread. The first failure is said as a warning, and the next trial is tried
    again. ``close`` waits at most ``patience`` seconds.
    """

    def __init__(self, name: str, make: Callable[[], Tracker], patience: float = _PATIENCE) -> None:
        self._name, self._make, self._patience = name, make, patience
        self._jobs: SimpleQueue[Callable[[Tracker], None] | None] = SimpleQueue()
        self._warned = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def started(self, trial: TrackedTrial) -> None:
        """See ``Tracker``."""
        self._jobs.put(lambda tracker: tracker.started(trial))

    def reported(self, trial: TrackedTrial, epochs: Sequence[Mapping[str, Any]]) -> None:
        """See ``Tracker``."""
        self._jobs.put(lambda tracker: tracker.reported(trial, epochs))

    def ended(self, trial: TrackedTrial, row: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> None:
        """See ``Tracker``."""
        self._jobs.put(lambda tracker: tracker.ended(trial, row, epochs))

    def close(self) -> None:
        """Wait until everything is told, as long as patience allows."""
        self._jobs.put(lambda tracker: tracker.close())
        self._jobs.put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._warn(f"did not take everything within {self._patience:g} s")

    def _run(self) -> None:
        tracker = None
        try:
            tracker = self._make()
        except Exception as error:
            self._warn(first_line(error))
        while (job := self._jobs.get()) is not None:
            try:
                if tracker is not None:
                    job(tracker)
            except Exception as error:
                self._warn(first_line(error))

    def _warn(self, reason: str) -> None:
        if not self._warned:
            _LOG.warning("%s lacks a part of this search (%s); the run directory has everything", self._name, reason)
        self._warned = True


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without passwords and not longer than a line should be."""
    line = next(iter(without_password(str(error)).strip().splitlines()), type(error).__name__)
    return line if len(line) <= 120 else f"{line[:120]}..."
