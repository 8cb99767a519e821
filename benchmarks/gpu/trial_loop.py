"""Trains the trials of a plan one after another, without Ray, into a run directory that a search can go on with."""

from __future__ import annotations

import gc
import itertools
import platform
import statistics
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from nls_tune.errors import CompileError, error_line, is_out_of_memory
from nls_tune.machine.provenance import cpu_name
from nls_tune.metrics import best_epoch
from nls_tune.plan.plan import SearchPlan
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_epochs, read_trials
from nls_tune.session.confirming import missing_trials
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.compiling import Compiler
from nls_tune.training.data import DeviceData
from nls_tune.training.devices import empty_cache
from nls_tune.training.training import Training
from nls_tune.training.warmup import SharedWarmup
from nls_tune.tune.experiment import trial_config
from nls_tune.tune.rows import TrainedTrial, trial_row

#: Statuses whose trials run again, once a piece.
_RUN_AGAIN = ("interrupted", "out_of_memory", "failed")
#: So many trials that fail one after another say that it is not the trials.
_FAILURES = 2
#: A trial is begun or gone on with only if this many times its expected time is left.
_SAFETY = 1.15
#: So many epochs must have been measured before any time is expected: the first one is slow.
_MEASURED = 3


class PieceEnds(Exception):  # noqa: N818 (it says what happens)
    """This process cannot go on; the message is one line and says why and what to do."""


@dataclass
class Clock:
    """The time of a piece.

    Attributes:
        deadline: In seconds of ``time.time``, the same for all processes.
        earlier: Of the epochs of earlier pieces, as long as they would be in this one.
        epoch_seconds: Of the epochs of this process: once there are some, nothing else counts, because a piece may
            have another ``--processes`` or ``--compile`` than those before.
    """

    deadline: float
    earlier: list[float] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)

    def left(self) -> float:
        """Seconds until the piece must end."""
        return self.deadline - time.time()

    def fits(self, epochs: int) -> bool:
        """Whether so many epochs can be expected to end in time."""
        known = self.epoch_seconds[-20:] if len(self.epoch_seconds) >= _MEASURED else self.earlier
        if len(known) < _MEASURED:
            return self.left() > 0
        return self.left() > _SAFETY * epochs * statistics.median(known)


class TrialLoop:
    """Works off what is missing of a plan: the search's grid first, then the confirmation.

    Several processes may do so in one run directory: a trial is held by a lock. What is not finished leaves no row.

    Args:
        plan: With the sampler ``grid``.
        run: Its directory, created.
        run_id: Of the run.
        scratch: A folder of this machine, for locks and the store of shared CE warm-ups.
        device: Where to train.
        compiler: Of this process.
        clock: When to stop.
        processes: That train at once.
    """

    def __init__(
        self,
        plan: SearchPlan,
        run: RunDirectory,
        run_id: str,
        scratch: Path,
        device: torch.device,
        compiler: Compiler,
        clock: Clock,
        processes: int = 1,
    ) -> None:
        self._plan, self._run, self._run_id, self._clock = plan, run, run_id, clock
        self._device, self._compiler, self._shared_gpu = device, compiler, processes > 1
        self._device_name = torch.cuda.get_device_name() if device.type == "cuda" else cpu_name()
        self._claims, self._store = scratch / "claims", scratch / "warmups"
        self._claims.mkdir(parents=True, exist_ok=True)
        self._data: dict[str, DeviceData] = {}
        clock.earlier += earlier_seconds(run, self._device_name, processes)

    def run(self, first: int = 0) -> Iterator[dict[str, Any]]:
        """Train until nothing is missing or the time is over.

        Args:
            first: Which of the seeds of the confirmation to begin with, so that processes do not wait for each
                other's warm-ups.

        Yields:
            The row of every trial that ended here, already written.

        Raises:
            PieceEnds: If no other trial can be expected to do better here.
        """
        too_long: set[str] = set()
        ended: set[str] = set()  # also those that run again, but not in this piece
        failures = 0
        while jobs := [job for job in missing(self._plan, self._run, ended) if job["trial_id"] not in too_long]:
            # With the first seed first, and then in the order of the plan.
            seeds = sorted({job["settings"]["seed"] for job in jobs})
            rank = {seed: (i - first) % len(seeds) for i, seed in enumerate(seeds)}
            claimed = False
            for job in sorted(jobs, key=lambda job: rank[job["settings"]["seed"]]):
                lock = FileLock(self._claims / f"{job['trial_id']}.lock")
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                try:
                    if job["trial_id"] in done_trials(self._run):
                        continue  # another process has just finished it
                    claimed = True
                    row = self._train(job)
                finally:
                    lock.release()
                if row is None:
                    too_long.add(job["trial_id"])
                else:
                    ended.add(job["trial_id"])
                    yield row
                    failures = failures + 1 if row["status"] == "failed" else 0
                    if failures == _FAILURES:
                        raise PieceEnds(f"{failures} trials failed one after another, the last with {row['error']}")
                break  # what is missing has changed
            if not claimed:
                time.sleep(0.2)  # the others train all that is left
            if self._clock.left() <= 0:
                return

    def _train(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """Train one trial and write its epochs and its row; None if it does not fit into the time that is left.

        Raises:
            PieceEnds: If it failed for a reason that every other one would fail for; it leaves no row.
        """
        settings = TrainingSettings(**job["settings"])
        started_at, training = datetime.now(UTC), None
        status: str | None
        try:
            dataset = self._plan.dataset(job["noise_level"], job["noise_seed"])
            if job["data"] not in self._data:
                self._data = {job["data"]: DeviceData.load(dataset, self._device)}
            data = self._data[job["data"]]
            if self._device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            training = Training(dataset, settings, self._device, data=data, compiler=self._compiler)
            status, error = self._train_epochs(training), None
        except Exception as caught:  # its row says why; the other trials go on
            error = error_line(caught)
            status = "out_of_memory" if is_out_of_memory(caught, shared_gpu=self._shared_gpu) else "failed"
            if status == "failed" and (reason := _why_no_other_can_run(caught)):
                raise PieceEnds(reason) from caught
        if status is None:
            return None
        row = self._row(job, settings, training, status, error, started_at)
        if training is not None and training.history:
            named = {key: row[key] for key in ("run_id", "trial_id", "noise_level", "arm", "smooth_rate")}
            where = {"node": row["node"], "device": row["device"]}
            self._run.write_epochs([{**named, **where, **asdict(metrics)} for metrics in training.history])
        self._run.write_trial(row)
        if status == "out_of_memory":
            del training
            gc.collect()
            empty_cache(self._device)
        return row

    def _train_epochs(self, training: Training) -> Literal["completed", "diverged"] | None:
        """Train to the end; None if that does not fit into the time that is left."""
        settings = training.settings
        warmup = SharedWarmup(self._store, training, [settings.warmup_epochs])
        try:
            while not training.finished:
                turn = warmup.turn()
                if turn != "taken" and not self._clock.fits(settings.epochs - training.epoch):
                    return None
                if turn == "wait":
                    time.sleep(0.05)
                elif turn == "train":
                    self._clock.epoch_seconds.append(training.run_epoch().seconds)
                    warmup.trained()
        except BaseException:
            warmup.abandon()  # in the middle of an epoch the state is of no epoch
            raise
        finally:
            warmup.close()
        return "diverged" if training.diverged else "completed"

    def _row(
        self,
        job: dict[str, Any],
        settings: TrainingSettings,
        training: Training | None,
        status: str,
        error: str | None,
        started_at: datetime,
    ) -> dict[str, Any]:
        """The row of ``trials/``."""
        history, reused = (training.history, training.epochs_reused) if training else ([], 0)
        accuracies = training.val_accuracies() if training else []
        best = best_epoch(accuracies, settings.first_counting_epoch, self._plan.settings.objective)
        bits = training.correct_bits(best.epoch) if training and best else (None, None)
        trial = TrainedTrial(
            trial_id=job["trial_id"],
            level=job["noise_level"],
            noise_seed=job["noise_seed"],
            stage=job["stage"],
            settings=settings,
            started_at=started_at,
            epochs={metrics.epoch: asdict(metrics) for metrics in history},
            report={
                "best_epoch": best.epoch if best else None,
                "best_val_accuracy": best.value if best else None,
                "epochs_reused": reused,
                "val_correct_at_best": bits[0],
                "test_correct_at_best": bits[1],
                "train_seconds": sum(metrics.seconds for metrics in history[reused:]),
                "device": self._device_name,
                "node": platform.node(),
            },
        )
        return trial_row(self._plan, self._run_id, trial, status, error)


def _why_no_other_can_run(error: Exception) -> str | None:
    """Why every other trial of this process would fail, too, in one line; None if there is no such reason."""
    if isinstance(error, CompileError):
        return str(error)
    # After most errors of a kernel the process has lost its GPU: whatever it asks for fails with the same words.
    if isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error):
        return f"this process cannot use its GPU any more ({error_line(error)}); go on with another piece"
    return None


def earlier_seconds(run: RunDirectory, device: str, processes: int) -> list[float]:
    """Return the seconds of the epochs of earlier pieces, as long as they would be now.

    Args:
        run: Its directory.
        device: The name of the device; epochs of others are left out.
        processes: Trainings at once now. The GPU is taken to do as much a second however many share it.
    """
    epochs, trials = read_epochs(run.path), read_trials(run.path)
    sessions = run.read_json()["sessions"]
    begun = pd.to_datetime([session["started_at"] for session in sessions], utc=True, format="ISO8601")
    before = np.array([session["slots"]["count"] for session in sessions], dtype=float)
    session_of = np.maximum(begun.searchsorted(trials["started_at"], side="right") - 1, 0)
    factors = pd.Series(processes / before[session_of], index=trials["trial_id"])
    epochs = epochs[epochs["device"] == device]
    seconds = epochs["seconds"].to_numpy(dtype=float) * factors.reindex(epochs["trial_id"]).to_numpy(dtype=float)
    return [float(value) for value in seconds if np.isfinite(value)]


def grid(plan: SearchPlan) -> list[dict[str, Any]]:
    """Return the trials of the search, the arms in turn: a search that is cut short has tried all of them."""
    jobs = []
    for level in plan.levels:
        arms = []
        for arm in level.quotas:
            space = plan.space.arm(arm)
            points = space.points()
            if points is None:
                raise ValueError(f"{plan.space.name}: every parameter must be a choice or a whole number")
            arms.append([plan.training_settings(space.decode(point)) for point in points])
        for settings in itertools.chain(*itertools.zip_longest(*arms)):
            if settings is not None:
                trial_id = plan.trial_id(level.level, settings, "search")
                jobs.append(trial_config(trial_id, level.level, settings, "search"))
    return jobs


def done_trials(run: RunDirectory) -> set[str]:
    """Return the names of the trials that need not run again."""
    trials = read_trials(run.path)
    return set(trials.loc[~trials["status"].isin(_RUN_AGAIN), "trial_id"])


def missing(plan: SearchPlan, run: RunDirectory, ended: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return the trials that are left: of the search, and once it is done, of the confirmation.

    Args:
        plan: Of the search.
        run: Its directory.
        ended: Trials whose rows stand for the moment, whatever their status.
    """
    trials = read_trials(run.path)
    standing = trials[~trials["status"].isin(_RUN_AGAIN) | trials["trial_id"].isin(list(ended))]
    done = set(standing["trial_id"])
    return [job for job in grid(plan) if job["trial_id"] not in done] or missing_trials(plan, standing)


def full_trials(plan: SearchPlan) -> float:
    """Return what the search costs, in trials of full length, a noise level: its trials share one CE warm-up."""
    settings = [TrainingSettings(**job["settings"]) for job in grid(plan)]
    warmups = {str(s.warmup_settings()): 0 for s in settings}
    for s in settings:
        warmups[str(s.warmup_settings())] = max(warmups[str(s.warmup_settings())], s.warmup_epochs)
    epochs = sum(warmups.values()) * len(plan.levels) + sum(s.epochs - s.warmup_epochs for s in settings)
    return epochs / settings[0].epochs / len(plan.levels)
