"""Runs a plan on Ray: one Tune experiment for all groups, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from nls_tune.allocation.allocator import Allocator, Outcome, Suggestion
from nls_tune.analysis.rows import number
from nls_tune.metrics import AVERAGES, best_average, best_epoch
from nls_tune.plan.level import GroupKey
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import SearchPlan
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.progress import LevelProgress, SearchProgress
from nls_tune.runs.reading import read_epochs, read_trials, runs_again
from nls_tune.runs.schemas import Status, objective_columns, settings_of
from nls_tune.runs.time_budget import TimeBudget
from nls_tune.runs.trial_spec import DataName, TrialSpec
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.report import METRIC, TrialReport
from nls_tune.tune.adapters import AllocationScheduler, AllocationSearcher, Reading
from nls_tune.tune.experiment import run_experiment
from nls_tune.tune.recorder import Recorder
from nls_tune.tune.work import Work

if TYPE_CHECKING:
    import pandas as pd


def make_progress(plan: SearchPlan, slots: int, budget: TimeBudget | None = None) -> SearchProgress:
    """Return the progress of a search that has not started, by default without a limit of time."""
    levels = {p.level: LevelProgress(sum(p.quotas.values())) for p in plan.levels}
    after, metric = plan.epochs_after("search"), plan.settings.metric
    epochs, limit = plan.space.budget.epochs, budget or TimeBudget()
    return SearchProgress(levels, slots, epochs, budget=limit, epochs_after=after, metric=metric)


def adopt_results(
    plan: SearchPlan,
    data: LevelData,
    run: RunDirectory,
    allocator: Allocator[GroupKey],
    progress: SearchProgress,
) -> int:
    """Give a fresh allocator what an earlier run of the same search has done; return how many trials were adopted.

    Trials with a row are adopted, except interrupted ones and those that ran out of memory beside others; these, and
    trials whose row is missing, are put first in their group and go on from their checkpoint.
    """
    trials, epochs = read_trials(run.path), read_epochs(run.path)
    curves = dict(iter(epochs.groupby("trial_id")))
    columns = objective_columns(plan.settings.metric)
    # Rows of other stages too: their folders are of no use to anybody.
    standing = set(trials.loc[~runs_again(run, trials), "trial_id"])
    trials = trials[(trials["stage"] == "search") & trials["noise_level"].isin([p.level for p in plan.levels])]
    for row, again in zip(trials.to_dict("records"), runs_again(run, trials), strict=True):
        settings, trial_id = settings_of(row), str(row["trial_id"])
        config = plan.space.config_of(settings)
        key = GroupKey(row["noise_level"], row["arm"])
        rung_values = _rung_values(plan, curves.get(trial_id), settings)
        if again:
            allocator.requeue(key, config, rung_values)
            continue
        value = number(row[columns.best_val])
        allocator.adopt(key, config, _outcome(row["status"]), value, row["train_seconds"], rung_values)
        progress.ended(
            row["noise_level"],
            row["arm"],
            trial_id,
            row["status"],
            value,
            adopted=True,
            smooth_rate=row["smooth_rate"],
            accuracies=curves[trial_id][columns.epoch_val].tolist() if trial_id in curves else (),
        )
    for trial in _half_done(run, standing):
        if trial.noise_level not in progress.levels:
            continue  # of another search
        config = plan.space.config_of(trial.settings)
        same = data.trial(trial.noise_level, plan.training_settings(config)).trial_id == trial.trial_id
        if trial.stage == "search" and same:
            rung_values = _rung_values(plan, curves.get(trial.trial_id), trial.settings)
            allocator.requeue(GroupKey(trial.noise_level, trial.settings.arm), config, rung_values)
    return progress.num_ended


def _half_done(run: RunDirectory, standing: Collection[str]) -> Iterator[TrialSpec]:
    """The trials whose checkpoint is to be gone on from; other folders are removed."""
    for folder in sorted(run.checkpoints.iterdir(), reverse=True):
        checkpoint = TrialCheckpoint(folder)
        trial = None if folder.name in standing else checkpoint.read_trial()
        if trial is None:
            checkpoint.remove()  # its row was written and the folder not yet removed; or it is torn
        else:
            yield trial


def _rung_values(plan: SearchPlan, curve: pd.DataFrame | None, settings: TrainingSettings) -> dict[int, float]:
    """The objective of a trial at every rung that judged it, from its epochs."""
    if curve is None:
        return {}
    healthy = curve[~curve["diverged"]]
    metric = plan.settings.metric
    values, averages = healthy[objective_columns(metric).epoch_val].tolist(), healthy[AVERAGES[metric]].tolist()
    judging = settings.first_counting_epoch, plan.settings.objective or settings.objective
    found = {}
    for rung in plan.rungs().levels:
        epoch = settings.rung_epoch(rung)
        if epoch is None or len(values) < epoch:
            continue
        both = best_epoch(values[:epoch], *judging), best_average(averages[:epoch], *judging)
        if best := [one.value for one in both if one is not None]:
            found[rung] = max(best)
    return found


def execute(work: Work, budget: TimeBudget) -> Literal["trials", "time_budget", "interrupted"]:
    """Run what is missing of a search; with fewer trials per GPU again, as often as one runs out of memory.

    Return what ended it: its trials, the wall time of ``budget`` (not started yet), or an interruption.

    Raises:
        RuntimeError: If every trial failed, or some lost their processes again and again.
    """
    while True:
        allocator, progress, recorder = _execute(work, budget)
        interrupted = progress.is_interrupted
        # A trial that ran out of memory waits in the run directory, as one does that lost its process meanwhile; the
        # confirmation also shares a GPU with fewer.
        lowered = not progress.is_ending and not work.lost.set_aside and work.packing.lower()
        if budget.used_up() or not lowered:
            break
    if work.lost.set_aside and not progress.is_ending:
        raise RuntimeError(work.lost.complaint())
    out_of_time = budget.used_up() and not interrupted
    has_more = progress.num_left() > allocator.num_dropped()
    if progress.is_ending or (has_more and not out_of_time):
        return "interrupted"
    failed = sum(level.ended["failed"] + level.ended["out_of_memory"] for level in progress.levels.values())
    if progress.num_ended == failed and (failed or not out_of_time):
        last = f", the last with: {recorder.failures[-1]}" if recorder.failures else "; trials/ says why"
        raise RuntimeError(f"every trial failed{last}; mend the cause and start again with another --out")
    return "time_budget" if has_more else "trials"


def _execute(work: Work, budget: TimeBudget) -> tuple[Allocator[GroupKey], SearchProgress, Recorder]:
    """Adopt what is there and run one experiment for the rest."""
    plan, packing = work.plan, work.packing
    progress = make_progress(plan, packing.slots.count, budget)
    allocator = Allocator(plan.groups(), plan.rungs(), seed=plan.settings.seed, sampler=plan.settings.sampler)
    adopted = adopt_results(plan, work.data, work.run, allocator, progress)
    if adopted:
        # A continued sampler must not draw again what it drew in the first session.
        allocator.reseed(plan.settings.seed + adopted)
    recorder = Recorder(work, progress, work.make_view(progress))
    if allocator.num_left() and not budget.used_up():
        searcher = _searcher(work, allocator, recorder, is_over=partial(recorder.guard, budget.check, True))
        budget.start()
        try:
            run_experiment(
                work,
                recorder,
                searcher,
                AllocationScheduler(searcher),
                warmup_epochs=plan.space.warmup_lengths(),
                names=[DataName(level.level) for level in plan.levels],
            )
        finally:
            budget.stop()
    return allocator, progress, recorder


def _searcher(
    work: Work, allocator: Allocator[GroupKey], recorder: Recorder, is_over: Callable[[], bool]
) -> AllocationSearcher[GroupKey]:
    rungs = work.plan.rungs().levels

    def to_config(suggestion: Suggestion[GroupKey]) -> dict[str, Any]:
        settings = work.plan.training_settings(suggestion.config)
        judged = [epoch for rung in rungs if (epoch := settings.rung_epoch(rung)) is not None]
        return work.data.trial(suggestion.group.noise_level, settings, judged_at=judged).to_config()

    return AllocationSearcher(
        allocator,
        to_config,
        _read_result,
        metric=METRIC,
        is_over=is_over,
        may_start=recorder.may_start,
        lost=work.lost,
    )


def _read_result(result: Mapping[str, Any]) -> Reading:
    """Return what a trial's result means to the allocator."""
    report = TrialReport.from_result(result)
    return Reading(
        clock=report.gls_epochs,
        value=report.best_value,
        counts=report.best_epoch is not None,
        seconds=report.train_seconds,
        outcome=_outcome(report.status),
    )


def _outcome(status: Status) -> Outcome:
    """Return what a trial's end means to the allocator."""
    return status if status in ("completed", "stopped", "diverged") else "failed"
