"""The Tune callback that writes every trial to Parquet and shows progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from ray import tune
from ray.tune.experiment import Trial

from nls_tune.datasets import NoisyDataset
from nls_tune.errors import error_line, is_out_of_memory
from nls_tune.metrics import EpochMetrics
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import SearchPlan
from nls_tune.report.console.live import ProgressView
from nls_tune.report.text import trial_line
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.progress import RunningTrial, SearchProgress
from nls_tune.runs.schemas import Row, Status
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.training.report import TrialReport
from nls_tune.tune.rows import trial_row
from nls_tune.tune.tracker import TrackedTrial, Tracker, tracked_trial

#: The epochs of a running trial are written at most this often.
_WRITE_SECONDS = 5.0

_T = TypeVar("_T")


@dataclass(kw_only=True)
class _TrialState:
    """What is known of a trial that has started and has no row yet."""

    spec: TrialSpec
    dataset: NoisyDataset
    slot: int
    tracked: TrackedTrial
    started_at: datetime
    epochs: dict[int, EpochMetrics] = field(default_factory=dict)
    report: TrialReport | None = None
    written_at: float = 0.0
    has_ended: bool = False

    def rows(self) -> list[Row]:
        """The epochs, in their order, without what names the trial."""
        return [asdict(self.epochs[epoch]) for epoch in sorted(self.epochs)]


class Recorder(tune.Callback):
    """Turns reports into part files: epochs as they come, the row when the trial ends.

    Args:
        plan: The search's plan.
        data: The datasets of the trials.
        run: Where to write.
        run_id: The run's id.
        progress: Kept up to date.
        view: Told of every trial that ends, and of what the user should know.
        trackers: Told of everything.
        out_of_memory: Told of a trial that ran out of memory; says how it will run again, None if it will not.

    Attributes:
        failures: The errors of trials that failed.
        error: The first error of the recorder itself, for example of a full disk. Tune would take it for one of the
            trial and train that once more: it is shown and kept here, nothing more is recorded, and ``EndOnError`` ends
            the experiment.
    """

    def __init__(
        self,
        plan: SearchPlan,
        data: LevelData,
        run: RunDirectory,
        run_id: str,
        progress: SearchProgress,
        view: ProgressView,
        trackers: Sequence[Tracker] = (),
        out_of_memory: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._plan, self._data = plan, data
        self._run, self._run_id = run, run_id
        self._progress, self._view, self._trackers = progress, view, trackers
        self._out_of_memory = out_of_memory
        self._states: dict[str, _TrialState] = {}
        self._warnings: set[str] = set()
        self.failures: list[str] = []
        self.error: Exception | None = None

    def guard(self, work: Callable[[], _T], otherwise: _T) -> _T:
        """Return what work returns; if it fails, or something did before, show and keep the error and return the other.

        Args:
            work: What is done.
            otherwise: What is returned instead.
        """
        if self.error is not None:
            return otherwise
        try:
            return work()
        except Exception as error:
            self.error = error
            with suppress(Exception):  # the screen itself may be what fails
                self._view.warn(f"results cannot be recorded, the search ends ({error_line(error)})")
            return otherwise

    # Tune's hooks. Tune calls them with keyword arguments.

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Note when a trial starts; one that starts again after a lost worker keeps its first time."""
        self.guard(lambda: self._start(trial), None)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: object,
    ) -> None:
        """Take the epochs of a report."""
        self.guard(lambda: self._take(self._states[trial.config["trial_id"]], TrialReport.from_result(result)), None)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Write the row of a trial that finished or was stopped."""
        self.guard(lambda: self._complete(trial), None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Write the row of a trial that failed for good."""
        self.guard(lambda: self._fail(trial), None)

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

    def __getstate__(self) -> dict[str, object]:
        """Return nothing: Tune pickles its callbacks when it starts, and never needs that copy here."""
        return {}

    # The life of a trial

    def _start(self, trial: Trial) -> None:
        spec = TrialSpec.from_config(trial.config)
        if spec.trial_id in self._states:
            return
        settings, dataset = spec.settings, self._data.load(spec.data)
        facts = {"dataset": dataset.name, "noise_level": spec.noise_level, "noise_seed": dataset.noise_seed}
        facts |= {"stage": spec.stage, "arm": settings.arm, **settings.model_dump(mode="json")}
        running = RunningTrial(
            spec.trial_id, spec.noise_level, settings.arm, settings.smooth_rate, epochs=spec.last_epoch
        )
        self._progress.started(running)
        state = self._states[spec.trial_id] = _TrialState(
            spec=spec,
            dataset=dataset,
            slot=running.slot,
            tracked=tracked_trial(self._run, self._run_id, spec.trial_id, facts),
            started_at=datetime.now(UTC),
        )
        for tracker in self._trackers:
            tracker.started(state.tracked)

    def _take(self, state: _TrialState, report: TrialReport) -> None:
        """Take the epochs of a report; write them if the last time is long enough ago."""
        state.report = report
        for warning in report.warnings:
            if warning not in self._warnings:  # processes say the same, and say it with every report
                self._warnings.add(warning)
                self._view.warn(warning)
        # By epoch: a trial that went on from a checkpoint sends some of them again.
        new = [asdict(metrics) for metrics in report.new_epochs if metrics.epoch not in state.epochs]
        state.epochs.update({metrics.epoch: metrics for metrics in report.new_epochs})
        state.epochs = {epoch: m for epoch, m in state.epochs.items() if epoch <= report.epoch}
        accuracies = [state.epochs[epoch].val_accuracy for epoch in sorted(state.epochs)]
        self._progress.reported(state.spec.trial_id, report.epoch, report.train_seconds, accuracies)
        for tracker in self._trackers if new else ():
            tracker.reported(state.tracked, new)
        # A trial that waits for a warm-up reports that it is there, and no epochs.
        if time.monotonic() - state.written_at >= _WRITE_SECONDS:
            self._write_epochs(state)

    def _complete(self, trial: Trial) -> None:
        if (state := self._states.get(trial.config["trial_id"])) is not None:
            self._end_as_reported(state)

    def _fail(self, trial: Trial) -> None:
        # It may have failed before it started, for example because a worker lacks a package.
        self._start(trial)
        state, error = self._states[trial.config["trial_id"]], _error_of(trial)
        if is_out_of_memory(error):
            self._end_out_of_memory(state, error)
        else:
            self._end(state, "failed", error)

    def _end_as_reported(self, state: _TrialState) -> None:
        state.has_ended = True
        if state.report is not None and state.report.out_of_memory:
            self._end_out_of_memory(state, state.report.out_of_memory)
        else:
            self._end(state, "stopped" if state.report is None else state.report.status, None)

    def _end_out_of_memory(self, state: _TrialState, error: str) -> None:
        again = self._out_of_memory()
        if again:
            # The folder that stays says to a later session that the row does not stand.
            self._checkpoint(state).start(state.spec)
        what = again or "--set batch_size=N, with another --out, needs less"
        self._end(state, "out_of_memory", f"{error}; {what}", bool(again))

    def _end(self, state: _TrialState, status: Status, error: str | None, again: bool = False) -> None:
        self._write_epochs(state)
        spec, arm = state.spec, state.spec.settings.arm
        row = self._row(state, status, error)
        self._run.write_trial(row)
        # Not before: a trial without a row has not ended.
        del self._states[spec.trial_id]
        if again:
            self._progress.runs_again(spec.noise_level, spec.trial_id)
        else:
            value = None if state.report is None else state.report.objective
            self._progress.ended(spec.noise_level, arm, spec.trial_id, status, value, adopted=False)
        for tracker in self._trackers:
            tracker.ended(state.tracked, row, state.rows())
        if status != "interrupted" and not again:
            self._checkpoint(state).remove()
        if error is not None and not again:
            self.failures.append(error)
        self._view.trial_ended(trial_line(row, list(self._plan.space.space)))

    # Writing

    def _row(self, state: _TrialState, status: Status, error: str | None) -> Row:
        return trial_row(
            state.spec,
            state.dataset,
            self._plan.level_plan(state.spec.noise_level).estimate,
            state.report,
            state.epochs,
            status,
            error,
            run_id=self._run_id,
            slot=state.slot,
            started_at=state.started_at,
        )

    def _checkpoint(self, state: _TrialState) -> TrialCheckpoint:
        return TrialCheckpoint(self._run.checkpoints / state.spec.trial_id)

    def _write_epochs(self, state: _TrialState) -> None:
        if state.report is None or not state.epochs:
            return
        shared = {
            "run_id": self._run_id,
            "trial_id": state.spec.trial_id,
            "noise_level": state.spec.noise_level,
            "arm": state.spec.settings.arm,
            "smooth_rate": state.spec.settings.smooth_rate,
            "node": state.report.node,
            "device": state.report.device,
        }
        self._run.write_epochs([{**shared, **row} for row in state.rows()])
        state.written_at = time.monotonic()


class WhenReady(tune.Callback):
    """Calls a function when Tune is about to start its first trial.

    Args:
        call: The function.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def setup(self, **info: object) -> None:  # type: ignore[override] # Tune gives what is not needed here
        """Call it."""
        self._call()

    def __getstate__(self) -> dict[str, object]:
        """Return nothing, see the recorder."""
        return {}


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

    def __getstate__(self) -> dict[str, object]:
        """Return nothing, see the recorder."""
        return {}


def _error_of(trial: Trial) -> str:
    """The last line of a trial's traceback: type and message."""
    try:
        # Tune has written it here and nowhere else yet: get_error() looks in the storage, which is synced later.
        text = Path(trial.error_file).read_text(encoding="utf-8")
    except (OSError, TypeError):
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "unknown error"
