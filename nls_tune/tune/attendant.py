"""A Tune callback that looks after trials: it ends hung ones, and says when none gets a slot."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from nls_tune.report.text import duration
from nls_tune.tune.adapters import NotPickled
from nls_tune.tune.cluster import Slots
from nls_tune.tune.lost import LostTrials

#: Seconds between two looks, until the first word about missing slots, and until it is said again.
_LOOK, _PATIENCE, _AGAIN = 1.0, 60.0, 600.0


class Attendant(NotPickled, tune.Callback):
    """Ends the process of a trial without a report for ``timeout`` seconds, which then goes on as a lost one does.

    With ``free``, which returns the free and all resources of a cluster, it says by ``say`` that no trial gets a slot.
    """

    def __init__(
        self,
        lost: LostTrials,
        slots: Slots,
        timeout: float | None,
        say: Callable[[str], None],
        free: Callable[[], tuple[Mapping[str, float], Mapping[str, float]]] | None = None,
        end: Callable[[Trial], None] | None = None,
    ) -> None:
        self._lost, self._slots, self._timeout, self._say, self._free = lost, slots, timeout, say, free
        self._end = end or end_process
        self._heard: dict[str, float] = {}
        self._looked_at = self._running_at = time.monotonic()
        self._said_at: float | None = None

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Begin to wait for the trial's first report."""
        self._heard[trial.trial_id] = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: object
    ) -> None:
        """Begin to wait for the next report."""
        self._heard[trial.trial_id] = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Look after the trials, now and then."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK:
            return
        self._looked_at = now
        running = [trial for trial in trials if trial.status == Trial.RUNNING]
        self._end_hung(running, now)
        self._say_if_none_starts(running, trials, now)

    def _end_hung(self, running: Sequence[Trial], now: float) -> None:
        timeout = self._timeout
        if timeout is None:
            return
        for trial in running:
            if now - self._heard.get(trial.trial_id, now) > timeout:
                self._heard[trial.trial_id] = now  # a process that survives this is ended again
                self._lost.hung(trial.trial_id, f"it has reported nothing for {duration(timeout)}")
                self._end(trial)

    def _say_if_none_starts(self, running: Sequence[Trial], trials: Sequence[Trial], now: float) -> None:
        if running or self._free is None or not any(trial.status == Trial.PENDING for trial in trials):
            self._running_at, self._said_at = now, None
            return
        waits = now - self._running_at
        if waits < _PATIENCE or (self._said_at is not None and now - self._said_at < _AGAIN):
            return
        self._said_at = now
        free, everything = self._free()
        each = _amounts({"CPU": self._slots.cpus_per_trial, "GPU": self._slots.gpus_per_trial})
        self._say(
            f"no slot has been free for {duration(waits)}: a trial asks for {each}, free in the cluster now are "
            f"{_amounts(free, everything)} of {_amounts(everything)}; the search waits, Ctrl-C ends it"
        )


def _amounts(resources: Mapping[str, float], named: Mapping[str, float] | None = None) -> str:
    """Return CPUs and GPUs in words; GPUs only where ``named``, by default the resources themselves, has any."""
    shown = [name for name in ("CPU", "GPU") if name == "CPU" or (named or resources).get(name, 0)]
    return " and ".join(
        f"{resources.get(name, 0):g} {name}{'' if resources.get(name, 0) == 1 else 's'}" for name in shown
    )


def cluster_resources() -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Return the free and all resources of the cluster."""
    import ray

    return ray.available_resources(), ray.cluster_resources()  # type: ignore[no-untyped-call] # Ray's


def end_process(trial: Trial) -> None:
    """End the process that trains a trial; one on this machine also where it hears nothing any more."""
    import ray

    actor: Any = trial.temporary_state.ray_actor
    with suppress(Exception):  # it may have ended just now
        ray.kill(actor)
    last = trial.last_result or {}
    if last.get("hostname") == platform.node() and last.get("pid"):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(last["pid"], signal.SIGKILL)
