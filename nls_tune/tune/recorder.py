"""The Tune callback that writes every trial to Parquet and shows progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from ray import tune
from ray.tune.experiment import Trial

from nls_tune.allocation.allocator import Outcome
from nls_tune.errors import is_out_of_memory
from nls_tune.plan.plan import SearchPlan
from nls_tune.report.console.live import ProgressView
from nls_tune.report.text import trial_line
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.progress import RunningTrial, SearchProgress
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.tune.rows import TrainedTrial, trial_row
from nls_tune.tune.tracker import TrackedTrial, Tracker, tracked_trial

#: The epochs of a running trial are written at most this often.
_WRITE_SECONDS = 5.0

_T = TypeVar("_T")


@dataclass(kw_only=True)
class _TrialState(TrainedTrial):
    """What is known of a trial that has started and has no row yet."""

    config: dict[str, Any]
    tracked: TrackedTrial
    epochs: dict[int, dict[str, Any]] = field(default_factory=dict)
    written_at: float = 0.0
    has_ended: bool = False


class Recorder(tune.Callback):
    """Turns reports into part files: epochs as they come, the row when the trial ends.

    Args:
        plan: What runs.
        run: Where to write.
        run_id: Of the run.
        progress: To keep up to date.
        view: To tell of every trial that ends.
        trackers: To tell of everything.
        out_of_memory: Told of a trial that ran out of memory; says how it will run again, None if it will not.

    Attributes:
        failures: The errors of trials that failed.
        on_ready: Called when Tune is about to start its first trial.
        error: The first error of the recorder itself, for example of a full disk. Tune would take it for one of the
            trial and train that once more: it is kept here, nothing more is taken note of, and ``EndOnError`` ends
            the experiment.
    """

    def __init__(
        self,
        plan: SearchPlan,
        run: RunDirectory,
        run_id: str,
        progress: SearchProgress,
        view: ProgressView,
        trackers: Sequence[Tracker] = (),
        out_of_memory: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._plan = plan
        self._run = run
        self._run_id = run_id
        self._progress = progress
        self._view = view
        self._trackers = trackers
        self._out_of_memory = out_of_memory
        self._states: dict[str, _TrialState] = {}
        self.failures: list[str] = []
        self.on_ready: Callable[[], Any] = lambda: None
        self._warnings: set[str] = set()
        self.error: Exception | None = None

    def guard(self, work: Callable[[], _T], otherwise: _T) -> _T:
        """Return what work returns; if it fails, or something did before, keep the error and return the other."""
        if self.error is not None:
            return otherwise
        try:
            return work()
        except Exception as error:
            self.error = error
            return otherwise

    # Tune's hooks. Tune calls them with keyword arguments.

    def setup(self, **info: object) -> None:  # type: ignore[override] # Tune gives what is not needed here
        """Say that Tune is ready."""
        self.on_ready()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Note when a trial starts; one that starts again after a lost worker keeps its first time."""
        self.guard(lambda: self._start(trial), None)

    def _start(self, trial: Trial) -> None:
        config = trial.config
        if config["trial_id"] in self._states:
            return
        settings = TrainingSettings(**config["settings"])
        searched = {name: getattr(settings, name) for name in self._plan.space.space}
        level, trial_id = config["noise_level"], config["trial_id"]
        self._states[trial_id] = _TrialState(
            trial_id=trial_id,
            level=level,
            noise_seed=config.get("noise_seed"),
            stage=config["stage"],
            settings=settings,
            started_at=datetime.now(UTC),
            config=searched,
            tracked=self._tracked(config, settings),
        )
        stop_at = config.get("stop_at", settings.epochs)
        self._progress.started(RunningTrial(trial_id, level, settings.arm, settings.smooth_rate, stop_at))
        for tracker in self._trackers:
            tracker.started(self._states[trial_id].tracked)

    def _tracked(self, config: dict[str, Any], settings: TrainingSettings) -> TrackedTrial:
        dataset = self._plan.dataset(config["noise_level"], config.get("noise_seed"))
        facts = {"dataset": dataset.name, "noise_level": config["noise_level"], "noise_seed": dataset.noise_seed}
        facts |= {"stage": config["stage"], "arm": settings.arm, **settings.model_dump(mode="json")}
        return tracked_trial(self._run, self._run_id, config["trial_id"], facts)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: object,
    ) -> None:
        """Take the epochs of a report."""
        self.guard(lambda: self._take(trial, result), None)

    def _take(self, trial: Trial, result: dict[str, Any]) -> None:
        """Take the epochs of a report; write them if the last time is long enough ago."""
        state = self._states[trial.config["trial_id"]]
        state.report = result
        warning = result.get("warning")
        if warning and warning not in self._warnings:  # every process has its own, and says it with every report
            self._warnings.add(warning)
            self._view.warn(warning)
        # By epoch: a trial that went on from a checkpoint sends some of them again.
        new = [metrics for metrics in result["new_epochs"] if metrics["epoch"] not in state.epochs]
        state.epochs.update({metrics["epoch"]: metrics for metrics in result["new_epochs"]})
        state.epochs = {epoch: m for epoch, m in state.epochs.items() if epoch <= result["epoch"]}
        accuracies = [state.epochs[epoch]["val_accuracy"] for epoch in sorted(state.epochs)]
        self._progress.reported(state.trial_id, result["epoch"], result["train_seconds"], accuracies)
        for tracker in self._trackers if new else ():
            tracker.reported(state.tracked, new)
        # A trial that waits for a warm-up reports that it is there, and no epochs.
        if state.epochs and time.monotonic() - state.written_at >= _WRITE_SECONDS:
            self._write_epochs(state)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Write the row of a trial that finished or was stopped."""
        self.guard(lambda: self._end_as_reported(self._states[trial.config["trial_id"]]), None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Write the row of a trial that failed for good."""
        self.guard(lambda: self._fail(trial), None)

    def _fail(self, trial: Trial) -> None:
        # It may have failed before it started, for example because a worker lacks a package.
        self._start(trial)
        error, state = _error_of(trial), self._states[trial.config["trial_id"]]
        if is_out_of_memory(error):
            self._end_out_of_memory(state, error)
        else:
            self._end(state, "failed", error)

    def note_end(self) -> None:
        """Show that the trials are being ended."""
        self._progress.is_ending = True

    def interrupt(self) -> None:
        """Write rows for the trials that were running; their checkpoints stay.

        One that had ended, and whose row could not be written then, gets its own row now.
        """
        for state in list(self._states.values()):
            if state.has_ended:
                self._end_as_reported(state)
            else:
                self._end(state, "interrupted", None)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks when it starts, and never needs that copy here."""
        return {}

    # Writing

    def _end_as_reported(self, state: _TrialState) -> None:
        state.has_ended = True
        if error := state.report.get("out_of_memory"):
            self._end_out_of_memory(state, error)
        else:
            self._end(state, outcome_of(state.report), None)

    def _end_out_of_memory(self, state: _TrialState, error: str) -> None:
        again = self._out_of_memory()
        if again:
            # The folder that stays says to a later session that the row does not stand.
            settings = state.settings.model_dump(mode="json")
            trial = {"trial_id": state.trial_id, "noise_level": state.level, "stage": state.stage, "settings": settings}
            TrialCheckpoint(self._run.checkpoints / state.trial_id).start(trial)
        what = again or "--set batch_size=N, with another --out, needs less"
        self._end(state, "out_of_memory", f"{error}; {what}", bool(again))

    def _end(self, state: _TrialState, status: str, error: str | None, again: bool = False) -> None:
        if state.epochs:
            self._write_epochs(state)
        row = trial_row(self._plan, self._run_id, state, status, error)
        self._run.write_trial(row)
        # Not before: a trial without a row has not ended.
        del self._states[state.trial_id]
        value = state.report.get("best_val_accuracy") if state.report.get("best_epoch") else None
        if again:
            self._progress.runs_again(state.level, state.trial_id)
        else:
            self._progress.ended(state.level, state.settings.arm, state.trial_id, status, value, adopted=False)
        for tracker in self._trackers:
            tracker.ended(state.tracked, row, [state.epochs[epoch] for epoch in sorted(state.epochs)])
        if status != "interrupted" and not again:
            TrialCheckpoint(self._run.checkpoints / state.trial_id).remove()
        if error is not None and not again:
            self.failures.append(error)
        self._view.trial_ended(trial_line(row, list(state.config)))

    def _write_epochs(self, state: _TrialState) -> None:
        shared = {
            "run_id": self._run_id,
            "trial_id": state.trial_id,
            "noise_level": state.level,
            "arm": state.settings.arm,
            "smooth_rate": state.settings.smooth_rate,
            "node": state.report["node"],
            "device": state.report["device"],
        }
        self._run.write_epochs([{**shared, **state.epochs[epoch]} for epoch in sorted(state.epochs)])
        state.written_at = time.monotonic()


class EndOnError(tune.Stopper):
    """Ends an experiment whose recorder has an error."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Return whether all trials are to end."""
        return self._recorder.error is not None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, see the recorder."""
        return {}


def outcome_of(report: Mapping[str, Any]) -> Outcome:
    """Return how a trial ended, from its last report: completed, stopped, diverged, or failed for want of memory."""
    if report.get("out_of_memory"):
        return "failed"
    if report.get("diverged"):
        return "diverged"
    return "completed" if report.get("finished") else "stopped"


def _error_of(trial: Trial) -> str:
    """The last line of a trial's traceback: type and message."""
    try:
        # Tune has written it here and nowhere else yet: get_error() looks in the storage, which is synced later.
        text = Path(trial.error_file).read_text(encoding="utf-8")
    except (OSError, TypeError):
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "unknown error"
