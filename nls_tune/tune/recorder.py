"""The Tune callback that writes every trial to Parquet and shows progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar

from ray import tune
from ray.tune.experiment import Trial

from nls_tune.errors import error_line, is_out_of_memory
from nls_tune.report.console.live import ProgressView
from nls_tune.report.text import trial_line
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.progress import RunningTrial, SearchProgress
from nls_tune.runs.schemas import Status
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.training.report import TrialReport
from nls_tune.tune.adapters import NotPickled, error_text
from nls_tune.tune.lost import MOST_LOSSES, Loss, exception_line
from nls_tune.tune.rows import TrialState
from nls_tune.tune.tracker import tracked_trial
from nls_tune.tune.work import Work

#: The epochs of a running trial are written at most this often.
_WRITE_SECONDS = 5.0

_T = TypeVar("_T")


class Recorder(NotPickled, tune.Callback):
    """Turns reports into part files: epochs as they come, the row when the trial ends.

    The progress is kept up to date; view and trackers are told of every trial.

    Attributes:
        failures: The errors of trials that failed.
        error: The first error of the recorder itself, for example of a full disk. Tune would take it for one of the
            trial and train that once more: it is shown and kept here, nothing more is recorded, and ``EndOnError`` ends
            the experiment.
    """

    def __init__(self, work: Work, progress: SearchProgress, view: ProgressView) -> None:
        self.view = view
        self._work, self._progress = work, progress
        self._states: dict[str, TrialState] = {}
        self._warnings: set[str] = set()
        self.failures: list[str] = []
        self.error: Exception | None = None

    def guard(self, work: Callable[[], _T], otherwise: _T) -> _T:
        """Return what work returns, or the other if it fails or something did before; show and keep the error."""
        if self.error is not None:
            return otherwise
        try:
            return work()
        except Exception as error:
            self.error = error
            with suppress(Exception):  # the screen itself may be what fails
                self.view.warn(f"results cannot be recorded, the search ends ({error_line(error)})")
            return otherwise

    # Tune's hooks. Tune calls them with keyword arguments.

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Note when a trial starts; one that starts again after a lost worker keeps its first time."""
        self.guard(lambda: self._start(trial), None)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: object
    ) -> None:
        """Take the epochs of a report."""
        self.guard(lambda: self._take(self._states[trial.config["trial_id"]], TrialReport.from_result(result)), None)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Write the row of a trial that finished or was stopped."""
        self.guard(lambda: self._complete(trial), None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Write the row of a trial that failed; one that only lost its process has none yet."""
        self.guard(lambda: self._fail(trial), None)

    def note_end(self) -> None:
        """Show that the trials are being ended."""
        self._progress.is_ending = True

    def may_start(self) -> bool:
        """Whether a trial may start: nothing is being ended, and memory has not run out beside others."""
        return self.error is None and not self._progress.is_ending and self._work.packing.may_start()

    def interrupt(self) -> None:
        """Write rows for the trials that were running; their checkpoints stay.

        One that had ended, and whose row could not be written then, gets its own row now.
        """
        for state in list(self._states.values()):
            self._show(state)  # one that lost its process may still be waiting
            if state.has_ended:
                self._end_as_reported(state)
            else:
                self._end(state, "interrupted", None)

    # The life of a trial

    def _start(self, trial: Trial) -> None:
        spec = TrialSpec.from_config(trial.config)
        if (known := self._states.get(spec.trial_id)) is not None:
            self._show(known)
            return
        work, settings, dataset = self._work, spec.settings, self._work.data.load(spec.data)
        facts = {"dataset": dataset.name, "noise_level": spec.noise_level, "noise_seed": dataset.noise_seed}
        facts |= {"stage": spec.stage, "arm": settings.arm, **settings.model_dump(mode="json")}
        state = self._states[spec.trial_id] = TrialState(
            run_id=work.run_id,
            spec=spec,
            dataset=dataset,
            estimate=work.plan.level_plan(spec.noise_level).estimate,
            tracked=tracked_trial(work.run, work.run_id, spec.trial_id, facts),
        )
        if work.plan.settings.keeps_states_in_storage:
            self._checkpoint(state).start(spec)
        self._show(state)
        for tracker in self._work.trackers:
            tracker.started(state.tracked)

    def _show(self, state: TrialState) -> None:
        """Count a trial among those that run, if it is not yet."""
        spec = state.spec
        if spec.trial_id not in self._progress.running:
            running = RunningTrial(
                spec.trial_id, spec.noise_level, spec.settings.arm, spec.settings.smooth_rate, epochs=spec.last_epoch
            )
            self._progress.started(running)
            state.slot = running.slot

    def _take(self, state: TrialState, report: TrialReport) -> None:
        """Take the epochs of a report; write them if the last time is long enough ago."""
        state.report = report
        for warning in report.warnings:
            if warning not in self._warnings:  # processes say the same, and say it with every report
                self._warnings.add(warning)
                self.view.warn(warning)
        # By epoch: a trial that went on from a checkpoint sends some of them again.
        new = [asdict(metrics) for metrics in report.new_epochs if metrics.epoch not in state.epochs]
        known = [(state.epochs[m.epoch].seconds, m.seconds) for m in report.new_epochs if m.epoch in state.epochs]
        self._work.lost.trained_again([before for before, again in known if before != again])
        state.epochs.update({metrics.epoch: metrics for metrics in report.new_epochs})
        state.epochs = {epoch: m for epoch, m in state.epochs.items() if epoch <= report.epoch}
        metric = self._work.plan.settings.metric
        accuracies = [state.epochs[epoch].val.of(metric) for epoch in sorted(state.epochs)]
        self._progress.reported(state.spec.trial_id, report.epoch, report.train_seconds, accuracies)
        for tracker in self._work.trackers if new else ():
            tracker.reported(state.tracked, new)
        # A trial that waits for a warm-up reports that it is there, and no epochs.
        if time.monotonic() - state.written_at >= _WRITE_SECONDS:
            self._write_epochs(state)

    def _complete(self, trial: Trial) -> None:
        if (state := self._states.get(trial.config["trial_id"])) is not None:
            self._end_as_reported(state)

    def _fail(self, trial: Trial) -> None:
        if (loss := self._work.lost.loss_of(trial.trial_id)) is not None:
            self._lose(trial, loss)
            return
        # It may have failed before it started, for example because a worker lacks a package.
        self._start(trial)
        state, error = self._states[trial.config["trial_id"]], exception_line(error_text(trial))
        if is_out_of_memory(error):
            self._end_out_of_memory(state, error)
        else:
            self._end(state, "failed", error)

    def _lose(self, trial: Trial, loss: Loss) -> None:
        """Let a trial that lost its process wait until it starts again; set aside, it is interrupted."""
        lost, trial_id = self._work.lost, trial.config["trial_id"]
        again = "it goes on from its last checkpoint"
        if lost.is_set_aside(trial.trial_id):
            self._start(trial)
            self._end(self._states[trial_id], "interrupted", loss.reason)
            again = f"it has lost it {MOST_LOSSES} times in a row and is left to the next session"
        elif trial_id in self._progress.running:
            self._progress.runs_again(trial.config["noise_level"], trial_id)
        if loss.is_memory and lost.at_once is not None:
            self._progress.slots = min(self._progress.slots, lost.at_once)
            again += f", with at most {lost.at_once} at once from now on: --max-concurrent {lost.at_once} begins so"
        self.view.warn(f"trial {trial_id} at {trial.config['noise_level']} lost its process: {loss.reason}; {again}")

    def _end_as_reported(self, state: TrialState) -> None:
        state.has_ended = True
        if state.report is not None and state.report.out_of_memory:
            self._end_out_of_memory(state, state.report.out_of_memory)
        else:
            self._end(state, "stopped" if state.report is None else state.report.status, None)

    def _end_out_of_memory(self, state: TrialState, error: str) -> None:
        again = self._work.packing.out_of_memory()
        if again:
            # The folder that stays says to a later session that the row does not stand.
            self._checkpoint(state).start(state.spec)
        what = again or "--set batch_size=N, with another --out, needs less"
        self._end(state, "out_of_memory", f"{error}; {what}", bool(again))

    def _end(self, state: TrialState, status: Status, error: str | None, again: bool = False) -> None:
        self._write_epochs(state)
        spec, arm = state.spec, state.spec.settings.arm
        row = state.trial_row(status, error)
        self._work.run.write_trial(row)
        # Not before: a trial without a row has not ended.
        del self._states[spec.trial_id]
        if again:
            self._progress.runs_again(spec.noise_level, spec.trial_id)
        else:
            value = None if state.report is None else state.report.objective
            self._progress.ended(spec.noise_level, arm, spec.trial_id, status, value, adopted=False)
        for tracker in self._work.trackers:
            tracker.ended(state.tracked, row, state.metrics())
        if status != "interrupted" and not again:
            self._checkpoint(state).remove()
        if error is not None and status != "interrupted" and not again:
            self.failures.append(error)
        self.view.trial_ended(trial_line(row, list(self._work.plan.space.space), self._work.plan.settings.metric))

    def _checkpoint(self, state: TrialState) -> TrialCheckpoint:
        return TrialCheckpoint(self._work.run.checkpoints / state.spec.trial_id)

    def _write_epochs(self, state: TrialState) -> None:
        if rows := state.epoch_rows():
            self._work.run.write_epochs(rows)
            state.written_at = time.monotonic()


class WhenReady(NotPickled, tune.Callback):
    """Calls a function when Tune is about to start its first trial."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def setup(self, **info: object) -> None:  # type: ignore[override] # Tune gives what is not needed here
        """Call it."""
        self._call()


class EndOnError(NotPickled, tune.Stopper):
    """Ends an experiment whose recorder has an error."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Return whether all trials are to end."""
        return self._recorder.error is not None
