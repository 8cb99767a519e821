"""One Tune experiment: what it runs, where it writes, whom it tells."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nls_tune.allocation.allocator import Allocator, Outcome, Suggestion
from nls_tune.plan.level import GroupKey
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import SearchPlan
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.schemas import Status
from nls_tune.runs.trial_spec import DataName
from nls_tune.training.report import METRIC, TrialReport
from nls_tune.tune.interrupts import Interrupts

if TYPE_CHECKING:
    from ray.tune import RunConfig

    from nls_tune.report.console.live import ProgressView
    from nls_tune.tune.adapters import (
        AllocationScheduler,
        AllocationSearcher,
        ListSearcher,
        Reading,
        WorkerSavingScheduler,
    )
    from nls_tune.tune.cluster import Slots
    from nls_tune.tune.recorder import Recorder


def run_experiment(
    plan: SearchPlan,
    data: LevelData,
    run: RunDirectory,
    slots: Slots,
    recorder: Recorder,
    view: ProgressView,
    searcher: AllocationSearcher[GroupKey] | ListSearcher,
    scheduler: WorkerSavingScheduler,
    num_trials: int,
    warmup_epochs: Sequence[int],
    names: Collection[DataName],
) -> None:
    """Run one Tune experiment to its end, or until Ctrl-C.

    Args:
        plan: The search's plan.
        data: The datasets of the run.
        run: The run directory.
        slots: What a trial gets and how many run at once.
        recorder: Writes what the trials report; trials still running at the end are written as interrupted.
        view: Shown meanwhile.
        searcher: Gives the trials' configurations.
        scheduler: Stops trials, or lets all of them run.
        num_trials: How many to run at most.
        warmup_epochs: The lengths of warm-ups that trials can ask for; these are stored and shared.
        names: The datasets that the trials need.

    Raises:
        InterruptedAgainError: If Ctrl-C was pressed more than once; what ran is saved all the same.
        OSError: If results could not be written.
    """
    from ray import tune

    with Interrupts(recorder.note_end) as interrupts:
        tuner = tune.Tuner(
            _trainable(plan, data, run, slots, warmup_epochs, names),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=num_trials,
                max_concurrent_trials=slots.count,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=_run_config(run, recorder, interrupts.tune_is_ready),
        )
        view.start()
        try:
            tuner.fit()
        finally:
            view.stop()
            recorder.interrupt()
    if recorder.error is not None:
        raise recorder.error


def _run_config(run: RunDirectory, recorder: Recorder, when_ready: Callable[[], None]) -> RunConfig:
    """Return where Tune writes, whom it tells and how often it starts a trial again."""
    from ray import tune

    from nls_tune.tune.recorder import EndOnError, WhenReady

    return tune.RunConfig(
        # A name of its own: Tune mixes two experiments of one name without a word.
        name=f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}",
        storage_path=str(run.tune),
        callbacks=[recorder, WhenReady(when_ready)],
        stop=EndOnError(recorder),
        failure_config=tune.FailureConfig(max_failures=1),
        # Trials keep their own checkpoints in the run directory.
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
        verbose=0,
    )


def make_adapters(
    plan: SearchPlan,
    data: LevelData,
    allocator: Allocator[GroupKey],
    *,
    is_over: Callable[[], bool],
    may_start: Callable[[], bool],
) -> tuple[AllocationSearcher[GroupKey], AllocationScheduler]:
    """Return the searcher and the scheduler of a search.

    Args:
        plan: The search's plan.
        data: The datasets of the run.
        allocator: Chooses and judges the trials.
        is_over: Whether the search ends now.
        may_start: Whether further trials may start.
    """
    from nls_tune.tune.adapters import AllocationScheduler, AllocationSearcher

    rungs = plan.rungs().levels

    def to_config(suggestion: Suggestion[GroupKey]) -> dict[str, Any]:
        settings = plan.training_settings(suggestion.config)
        judged = [epoch for rung in rungs if (epoch := settings.rung_epoch(rung)) is not None]
        return data.trial(suggestion.group.noise_level, settings, judged_at=judged).to_config()

    searcher = AllocationSearcher(
        allocator, to_config, read_result, metric=METRIC, is_over=is_over, may_start=may_start
    )
    return searcher, AllocationScheduler(searcher)


def read_result(result: Mapping[str, Any]) -> Reading:
    """Return what a trial's result means to the allocator."""
    from nls_tune.tune.adapters import Reading

    report = TrialReport.from_result(result)
    return Reading(
        clock=report.gls_epochs,
        value=report.best_val_accuracy,
        counts=report.best_epoch is not None,
        seconds=report.train_seconds,
        outcome=outcome_of(report.status),
    )


def outcome_of(status: Status) -> Outcome:
    """Return what a trial's end means to the allocator."""
    return status if status in ("completed", "stopped", "diverged") else "failed"


def _trainable(
    plan: SearchPlan,
    data: LevelData,
    run: RunDirectory,
    slots: Slots,
    warmup_epochs: Sequence[int],
    names: Collection[DataName],
) -> Any:
    from ray import tune

    from nls_tune.tune.trainable import SharedInputs, SharedSettings, TrainingTrainable

    # The datasets share their inputs: those travel once per node, the labels of each dataset on their own.
    first = plan.levels[0].dataset
    datasets = {name: dataclasses.replace(data.load(name), inputs=first.inputs[:0], test_inputs=None) for name in names}
    shared = SharedSettings(
        objective=plan.settings.objective,
        use_gpu=slots.gpus_per_trial > 0,
        checkpoints=run.checkpoints,
        cpus_per_trial=slots.cpus_per_trial,
        trials_per_gpu=slots.trials_per_gpu,
        compile=plan.settings.compile,
        warmup_store=plan.warmup_store(run),
        warmup_epochs=tuple(warmup_epochs),
    )
    inputs = SharedInputs(first.inputs, first.test_inputs)
    return tune.with_resources(
        tune.with_parameters(TrainingTrainable, inputs=inputs, datasets=datasets, shared=shared),
        {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial},
    )
