"""Runs a plan on Ray: one Tune experiment for all groups, on this machine or on a cluster."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from nls_tune.allocation import Allocator, Outcome, Suggestion
from nls_tune.budgets import TimeBudget
from nls_tune.interrupts import Interrupts
from nls_tune.metrics import best_epoch
from nls_tune.packing import Packing
from nls_tune.plan import SearchPlan, group_key
from nls_tune.progress import LevelProgress, SearchProgress
from nls_tune.results import ON_ALL_LABELS, RunDirectory, read_epochs, read_trials, settings_of
from nls_tune.runs import runs_again
from nls_tune.settings import TrainingSettings

if TYPE_CHECKING:
    import pandas as pd
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher

    from nls_tune.cluster import Slots
    from nls_tune.recorder import Recorder
    from nls_tune.report.live import ProgressView
    from nls_tune.trackers import Tracker


#: What names a dataset of a plan: noise level, noise seed (None: the search's), and whether it is on all labels.
DataName = tuple[str, int | None, bool]


def make_progress(plan: SearchPlan, slots: int) -> SearchProgress:
    """Return the progress of a search that has not started."""
    levels = {p.level: LevelProgress(sum(p.quotas.values())) for p in plan.levels}
    return SearchProgress(levels, slots, plan.space.budget.epochs)


def adopt_results(plan: SearchPlan, run: RunDirectory, allocator: Allocator, progress: SearchProgress) -> int:
    """Give the allocator what an earlier run of the same search has done.

    Trials with a row are adopted, except interrupted ones and those that ran out of memory beside others; these, and
    trials whose row is missing, are put first in their group and go on from their checkpoint.

    Args:
        plan: The plan, the same as then.
        run: Its directory.
        allocator: Nothing asked from it yet.
        progress: To count the adopted trials in.

    Returns:
        How many trials were adopted.
    """
    from nls_tune.trial_checkpoint import TrialCheckpoint

    trials, epochs = read_trials(run.path), read_epochs(run.path)
    curves = dict(iter(epochs.groupby("trial_id")))
    # Rows of other stages too: their folders are of no use to anybody.
    standing = set(trials.loc[~runs_again(run, trials), "trial_id"])
    trials = trials[(trials["stage"] == "search") & trials["noise_level"].isin([p.level for p in plan.levels])]
    num_adopted = 0
    for row, again in zip(trials.to_dict("records"), runs_again(run, trials), strict=True):
        settings, trial_id = settings_of(row), str(row["trial_id"])
        config = {name: getattr(settings, name) for name in plan.space.space}
        key = group_key(row["noise_level"], row["arm"])
        rung_values = _rung_values(plan, curves.get(trial_id), settings)
        if again:
            allocator.requeue(key, config, rung_values)
            continue
        value = None if math.isnan(row["best_val_accuracy"]) else float(row["best_val_accuracy"])
        outcome: Outcome = row["status"] if row["status"] in ("completed", "stopped", "diverged") else "failed"
        allocator.adopt(key, config, outcome, value, row["train_seconds"], rung_values)
        progress.ended(
            row["noise_level"],
            row["arm"],
            trial_id,
            row["status"],
            value,
            adopted=True,
            smooth_rate=row["smooth_rate"],
            accuracies=curves[trial_id]["val_accuracy"].tolist() if trial_id in curves else (),
        )
        num_adopted += 1
    for folder in sorted(run.checkpoints.iterdir(), reverse=True):
        checkpoint = TrialCheckpoint(folder)
        trial = None if folder.name in standing else checkpoint.read_trial()
        if trial is None:
            checkpoint.remove()  # its row was written and the folder not yet removed; or it is torn
            continue
        config = {name: getattr(trial.settings, name) for name in plan.space.space}
        same = plan.trial_id(trial.noise_level, plan.training_settings(config), "search") == folder.name
        if trial.stage == "search" and same:
            rung_values = _rung_values(plan, curves.get(folder.name), trial.settings)
            allocator.requeue(group_key(trial.noise_level, trial.settings.arm), config, rung_values)
    return num_adopted


def _rung_values(plan: SearchPlan, curve: pd.DataFrame | None, settings: TrainingSettings) -> dict[int, float]:
    """The objective of a trial at every rung that judged it, from its epochs."""
    if curve is None:
        return {}
    accuracies = curve.loc[~curve["diverged"], "val_accuracy"].tolist()
    values = {}
    for rung in plan.rungs().levels:
        epoch = settings.rung_epoch(rung)
        if epoch is None or len(accuracies) < epoch:
            continue
        best = best_epoch(accuracies[:epoch], settings.first_counting_epoch, plan.settings.objective)
        if best is not None:
            values[rung] = best.value
    return values


def execute(
    plan: SearchPlan,
    run: RunDirectory,
    run_id: str,
    packing: Packing,
    make_view: Callable[[SearchProgress], ProgressView],
    budget: TimeBudget,
    trackers: Sequence[Tracker] = (),
) -> str:
    """Run what is missing of a search; with fewer trials on a GPU again, as often as one runs out of memory.

    Args:
        plan: What to run.
        run: Where to write; earlier results there are adopted.
        run_id: Of the run.
        packing: What a trial gets and how many run at once.
        make_view: Makes the view of the progress.
        budget: Of wall time, not started.
        trackers: What else follows the trials.

    Returns:
        ``trials``, ``time_budget`` (what ended it) or ``interrupted``.

    Raises:
        RuntimeError: If every trial failed.
    """
    while True:
        allocator, progress, recorder = _execute(plan, run, run_id, packing, make_view, budget, trackers)
        # A signal that comes while the last trials end leaves no row that would tell of it.
        interrupted = progress.is_ending or any(level.ended["interrupted"] for level in progress.levels.values())
        # What ran out of memory waits in the run directory, whoever goes on with it: the confirmation does with fewer.
        lowered = not interrupted and packing.lower()
        if budget.used_up() or not lowered:
            break
    out_of_time = budget.used_up() and not interrupted
    has_more = progress.num_left() > allocator.num_dropped()
    if progress.is_ending or (has_more and not out_of_time):
        return "interrupted"
    failed = sum(level.ended["failed"] + level.ended["out_of_memory"] for level in progress.levels.values())
    if progress.num_ended == failed and (failed or not out_of_time):
        last = f", the last with: {recorder.failures[-1]}" if recorder.failures else "; trials/ says why"
        raise RuntimeError(f"every trial failed{last}; mend the cause and start again with another --out")
    return "time_budget" if has_more else "trials"


def _execute(
    plan: SearchPlan,
    run: RunDirectory,
    run_id: str,
    packing: Packing,
    make_view: Callable[[SearchProgress], ProgressView],
    budget: TimeBudget,
    trackers: Sequence[Tracker],
) -> tuple[Allocator, SearchProgress, Recorder]:
    """Adopt what is there and run one experiment for the rest."""
    from nls_tune.recorder import Recorder

    progress = make_progress(plan, packing.slots.count)
    progress.budget = budget
    allocator = Allocator(plan.groups(), plan.rungs(), seed=plan.settings.seed, sampler=plan.settings.sampler)
    adopted = adopt_results(plan, run, allocator, progress)
    if adopted:
        # A continued sampler must not draw again what it drew in the first session.
        allocator.reseed(plan.settings.seed + adopted)
    view = make_view(progress)
    recorder = Recorder(plan, run, run_id, progress, view, trackers, packing.out_of_memory)
    if allocator.num_left() and not budget.used_up():
        is_over = partial(recorder.guard, budget.check, True)
        searcher, scheduler = _adapters(plan, allocator, is_over, packing)
        lengths = plan.space.warmup_lengths()
        budget.start()
        try:
            run_experiment(plan, run, packing.slots, recorder, view, searcher, scheduler, allocator.num_left(), lengths)
        finally:
            budget.stop()
    return allocator, progress, recorder


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

    from nls_tune.recorder import EndOnError

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


def _adapters(plan: SearchPlan, allocator: Allocator, is_over: Callable[[], bool], packing: Packing) -> tuple[Any, Any]:
    from nls_tune.ray_adapters import AllocationScheduler, AllocationSearcher
    from nls_tune.recorder import outcome_of

    rungs = plan.rungs().levels

    def to_config(suggestion: Suggestion) -> dict[str, Any]:
        level = suggestion.group.rpartition("/")[0]
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

    from nls_tune.trainable import TrainingTrainable

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
