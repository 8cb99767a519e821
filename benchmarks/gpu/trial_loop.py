"""Trains the trials of a plan one after another, without Ray, into a run directory that a search can go on with."""

from __future__ import annotations

import itertools
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout

from nls_tune.compiling import Compiler
from nls_tune.confirm import missing_trials
from nls_tune.devices import DeviceData
from nls_tune.execution import trial_config
from nls_tune.metrics import best_epoch
from nls_tune.plan import SearchPlan
from nls_tune.provenance import cpu_name
from nls_tune.results import RunDirectory, read_epochs, read_trials
from nls_tune.rows import TrainedTrial, trial_row
from nls_tune.settings import TrainingSettings
from nls_tune.training import Training
from nls_tune.warmup import SharedWarmup

#: Statuses whose trials run again.
_RUN_AGAIN = ("interrupted", "out_of_memory")
#: A trial is begun or gone on with only if this many times its expected time is left.
_SAFETY = 1.15
#: So many epochs must have been measured before any time is expected: the first one is slow.
_MEASURED = 3


@dataclass
class Clock:
    """The time of a piece.

    Attributes:
        deadline: In seconds of ``time.time``, the same for all processes.
        epoch_seconds: Of the epochs that were measured so far.
    """

    deadline: float
    epoch_seconds: list[float] = field(default_factory=list)

    def left(self) -> float:
        """Seconds until the piece must end."""
        return self.deadline - time.time()

    def fits(self, epochs: int) -> bool:
        """Whether so many epochs can be expected to end in time."""
        if len(self.epoch_seconds) < _MEASURED:
            return self.left() > 0
        return self.left() > _SAFETY * epochs * statistics.median(self.epoch_seconds[-20:])


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
    ) -> None:
        self._plan, self._run, self._run_id, self._clock = plan, run, run_id, clock
        self._device, self._compiler = device, compiler
        self._device_name = torch.cuda.get_device_name() if device.type == "cuda" else cpu_name()
        self._claims, self._store = scratch / "claims", scratch / "warmups"
        self._claims.mkdir(parents=True, exist_ok=True)
        self._data: dict[str, DeviceData] = {}
        epochs = read_epochs(run.path)
        clock.epoch_seconds += epochs.loc[epochs["device"] == self._device_name, "seconds"].tolist()

    def run(self, first: int = 0) -> Iterator[dict[str, Any]]:
        """Train until nothing is missing or the time is over.

        Args:
            first: Which of the seeds of the confirmation to begin with, so that processes do not wait for each
                other's warm-ups.

        Yields:
            The row of every trial that ended here, already written.
        """
        too_long: set[str] = set()
        while jobs := [job for job in missing(self._plan, self._run) if job["trial_id"] not in too_long]:
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
                    yield row
                break  # what is missing has changed
            if not claimed:
                time.sleep(0.2)  # the others train all that is left
            if self._clock.left() <= 0:
                return

    def _train(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """Train one trial and write its epochs and its row; None if it does not fit into the time that is left."""
        settings = TrainingSettings(**job["settings"])
        started_at, training = datetime.now(UTC), None
        status: str | None
        try:
            dataset = self._plan.dataset(job["noise_level"], job["noise_seed"])
            if job["data"] not in self._data:
                self._data = {job["data"]: DeviceData.load(dataset, self._device)}
            data = self._data[job["data"]]
            training = Training(dataset, settings, self._device, data=data, compiler=self._compiler)
            status, error = self._train_epochs(training), None
        except torch.OutOfMemoryError as caught:
            status, error = "out_of_memory", f"OutOfMemoryError: {str(caught).splitlines()[0]}"
        except Exception as caught:  # its row says why; the other trials go on
            status, error = "failed", f"{type(caught).__name__}: {str(caught).partition(chr(10))[0]}"
        if status is None:
            return None
        row = self._row(job, settings, training, status, error, started_at)
        if training is not None and training.history:
            named = {key: row[key] for key in ("run_id", "trial_id", "noise_level", "arm", "smooth_rate")}
            where = {"node": row["node"], "device": row["device"]}
            self._run.write_epochs([{**named, **where, **asdict(metrics)} for metrics in training.history])
        self._run.write_trial(row)
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


def missing(plan: SearchPlan, run: RunDirectory) -> list[dict[str, Any]]:
    """Return the trials that are left: of the search, and once it is done, of the confirmation."""
    trials = read_trials(run.path)
    standing = trials[~trials["status"].isin(_RUN_AGAIN)]
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
