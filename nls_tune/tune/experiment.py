"""One Tune experiment: what it runs, where it writes, whom it tells."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nls_tune.allocation.allocator import Allocator, Suggestion
from nls_tune.plan.level import GroupKey
from nls_tune.plan.plan import SearchPlan
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.schemas import ON_ALL_LABELS
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.tune.interrupts import Interrupts
from nls_tune.tune.packing import Packing

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher

    from nls_tune.report.console.live import ProgressView
    from nls_tune.tune.cluster import Slots
    from nls_tune.tune.recorder import Recorder


#: What names a dataset of a plan: noise level, noise seed (None: the search's), and whether it is on all labels.
DataName = tuple[str, int | None, bool]


def run_experiment(
    plan: SearchPlan,
    run: RunDirectory,
    slots: Slots,
    recorder: Recorder,
    view: ProgressView,
    searcher: Searcher,
    scheduler: TrialScheduler,
    num_trials: int,
    warmup_epochs: Sequence[int],
    others: Sequence[DataName] = (),
) -> None:
    """Run one Tune experiment to its end, or until Ctrl-C.

    Args:
        plan: Whose data and settings the trials share.
        run: The run directory.
        slots: What a trial gets and how many run at once.
        recorder: Writes what the trials report; trials still running at the end are written as interrupted.
        view: Shown meanwhile.
        searcher: Gives the trials' configurations.
        scheduler: Stops trials, or lets all of them run.
        num_trials: How many to run at most.
        warmup_epochs: The lengths of warm-ups that trials can ask for; these are stored and shared.
        others: The data that trials need besides the search's.

    Raises:
        InterruptedAgainError: If Ctrl-C was pressed more than once; what ran is saved all the same.
        OSError: If results could not be written.
    """
    from ray import tune

    tuner = tune.Tuner(
        _trainable(plan, run, slots, warmup_epochs, others),
        tune_config=tune.TuneConfig(
            metric="best_val_accuracy",
            mode="max",
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=num_trials,
            max_concurrent_trials=slots.count,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=_run_config(run, recorder),
    )
    view.start()
    with Interrupts(recorder.note_end) as interrupts:
        recorder.on_ready = interrupts.tune_is_ready
        try:
            tuner.fit()
        finally:
            view.stop()
            recorder.interrupt()
    if recorder.error is not None:
        raise recorder.error


def _run_config(run: RunDirectory, recorder: Recorder) -> Any:
    """Return where Tune writes, whom it tells and how often it starts a trial again."""
    from ray import tune

    from nls_tune.tune.recorder import EndOnError

    return tune.RunConfig(
        # A name of its own: Tune mixes two experiments of one name without a word.
        name=f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}",
        storage_path=str(run.tune),
        callbacks=[recorder],
        stop=EndOnError(recorder),
        failure_config=tune.FailureConfig(max_failures=1),
        # Trials keep their own checkpoints in the run directory.
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
        verbose=0,
    )


def _adapters(
    plan: SearchPlan, allocator: Allocator[GroupKey], is_over: Callable[[], bool], packing: Packing
) -> tuple[Any, Any]:
    from nls_tune.tune.adapters import AllocationScheduler, AllocationSearcher
    from nls_tune.tune.recorder import outcome_of

    rungs = plan.rungs().levels

    def to_config(suggestion: Suggestion[GroupKey]) -> dict[str, Any]:
        level = suggestion.group.noise_level
        settings = plan.training_settings(suggestion.config)
        judged = [epoch for rung in rungs if (epoch := settings.rung_epoch(rung)) is not None]
        return trial_config(plan.trial_id(level, settings, "search"), level, settings, "search", judged)

    searcher = AllocationSearcher(
        allocator,
        to_config,
        metric="best_val_accuracy",
        outcome_of=outcome_of,
        seconds_key="train_seconds",
        is_over=is_over,
        is_draining=packing.is_draining,
    )
    scheduler = AllocationScheduler(
        searcher,
        clock_key="gls_epochs",
        counts=lambda result: bool(result["best_epoch"]),
        seconds_key="train_seconds",
    )
    return searcher, scheduler


def trial_config(
    trial_id: str,
    level: str,
    settings: TrainingSettings,
    stage: str,
    report_at: Sequence[int] = (),
    *,
    noise_seed: int | None = None,
    stop_at: int | None = None,
) -> dict[str, Any]:
    """Return the configuration of a trial for Tune: plain values only.

    Args:
        trial_id: Its name.
        level: Its noise level.
        settings: What it trains.
        stage: ``search``, ``confirm`` or ``confirm_all``.
        report_at: Epochs at which a scheduler looks at it.
        noise_seed: Where it is not the search's.
        stop_at: The epoch after which a trial on all labels ends.
    """
    config = {
        "trial_id": trial_id,
        "noise_level": level,
        "noise_seed": noise_seed,
        "data": data_key((level, noise_seed, stage == ON_ALL_LABELS)),
        "stage": stage,
        "settings": settings.model_dump(mode="json"),
        "report_at": list(report_at),
    }
    return config if stop_at is None else {**config, "stop_at": stop_at}


def data_key(name: DataName) -> str:
    """Return the key of a dataset among those that the trials of an experiment share."""
    level, noise_seed, all_labels = name
    return level + ("" if noise_seed is None else f" noise_seed={noise_seed}") + (" all" if all_labels else "")


def _trainable(
    plan: SearchPlan,
    run: RunDirectory,
    slots: Slots,
    warmup_epochs: Sequence[int],
    others: Sequence[DataName],
) -> Any:
    from ray import tune

    from nls_tune.tune.trainable import TrainingTrainable

    # The levels share their inputs: those travel once a node, the labels of each level on their own.
    first = plan.levels[0].dataset
    arrays = {"inputs": first.inputs, "test_inputs": first.test_inputs}
    datasets = {p.level: p.dataset for p in plan.levels}
    for name in others:
        level, noise_seed, all_labels = name
        datasets[data_key(name)] = plan.dataset(level, noise_seed, all_labels=all_labels)
    datasets = {k: dataclasses.replace(d, inputs=first.inputs[:0], test_inputs=None) for k, d in datasets.items()}
    shared = {
        "objective": plan.settings.objective,
        "use_gpu": slots.gpus_per_trial > 0,
        "cpus_per_trial": slots.cpus_per_trial,
        "trials_per_gpu": slots.trials_per_gpu,
        "compile": plan.settings.compile,
        "checkpoints": str(run.checkpoints),
        "warmup_store": str(store) if (store := plan.warmup_store(run)) else None,
        "warmup_epochs": list(warmup_epochs),
    }
    return tune.with_resources(
        tune.with_parameters(TrainingTrainable, arrays=arrays, datasets=datasets, shared=shared),
        {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial},
    )
