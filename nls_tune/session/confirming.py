"""The confirmation: the selected configurations and cross-entropy (CE) again, with fresh seeds.

A search shows the luckiest of many trials. What a configuration is worth shows in trainings that the search has not
seen: the selected configuration of each arm, and CE with the space's defaults, are trained again with seeds that
the search has not used, on the search's own split, all levels at once, none stopped early.

With ``confirm_on="all"`` the same follows on all labels of the run, validation samples included. Nothing is left then
to say when to end: each configuration ends after the median of the best epochs that it had on the split, and is tested
with the weights, plain or averaged, that most of its seeds were best with there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.confirmation import stop_epoch, usual_readout
from nls_tune.analysis.selection import select
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import SearchPlan
from nls_tune.runs.progress import LevelProgress, SearchProgress
from nls_tune.runs.reading import read_trials, runs_again
from nls_tune.runs.schemas import ON_ALL_LABELS, settings_of
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.spaces.settings import TrainingSettings, ordered_arms
from nls_tune.training.report import METRIC
from nls_tune.tune.experiment import run_experiment
from nls_tune.tune.work import Work

if TYPE_CHECKING:
    import pandas as pd

#: Lists the trials of a confirmation that have no row yet.
Missing = Callable[[SearchPlan, LevelData, "pd.DataFrame"], list[TrialSpec]]


def confirm_configurations(plan: SearchPlan, trials: pd.DataFrame) -> dict[str, list[Config]]:
    """Return what is trained again at each level.

    Args:
        plan: The search's plan.
        trials: Rows of ``trials/``.

    Returns:
        By level: the selected configuration of each arm, and CE with the defaults of the space if the space has a CE
        arm and these are another configuration. Levels where nothing was completed have none.
    """
    search = trials[trials["stage"] == "search"]
    found: dict[str, list[Config]] = {}
    for level in plan.levels:
        rows = search[search["noise_level"] == level.level]
        configs: list[Config] = []
        for arm in ordered_arms(rows["arm"]):
            row = select(rows[rows["arm"] == arm], plan.settings.metric)
            if row is not None:
                configs.append(plan.space.config_of(settings_of(row.to_dict())))
        if configs and "ce" in level.quotas:
            default = plan.space.default(smooth_rate=0.0)
            configs += [] if default in configs else [default]
        found[level.level] = configs
    return found


def missing_trials(plan: SearchPlan, data: LevelData, trials: pd.DataFrame) -> list[TrialSpec]:
    """Return the confirmation's trials that have no row yet.

    The first seed of every configuration comes first, so that a confirmation that is cut short has compared all of
    them with fewer seeds, and not some of them with all.

    Args:
        plan: The search's plan.
        data: The datasets of the run.
        trials: Rows of ``trials/``.
    """
    done = _done(trials)
    runs = _runs(plan, trials)
    wanted = (data.trial(r.level, r.settings, "confirm", noise_seed=r.noise_seed) for r in runs)
    return [spec for spec in wanted if spec.trial_id not in done]


def missing_on_all_labels(plan: SearchPlan, data: LevelData, trials: pd.DataFrame) -> list[TrialSpec]:
    """Return the confirmation's trials on all labels that have no row yet, in the order of the others.

    Args:
        plan: The search's plan.
        data: The datasets of the run.
        trials: Rows of ``trials/``, those of the confirmation on the split among them.

    Returns:
        Empty unless ``confirm_on`` is ``all``; without configurations that no seed completed on the split.
    """
    if plan.settings.confirm_on != "all":
        return []
    runs, done = list(_runs(plan, trials)), _done(trials)
    ends = _ends(data, trials, runs)
    wanted = (
        data.trial(
            r.level, r.settings, ON_ALL_LABELS,
            noise_seed=r.noise_seed, stop_at=ends[r.key].epoch, readout=ends[r.key].readout,
        )
        for r in runs
        if r.key in ends
    )  # fmt: skip
    return [spec for spec in wanted if spec.trial_id not in done]


class _Run(NamedTuple):
    """One training of a configuration; its key is level and index of the configuration."""

    key: tuple[str, int]
    level: str
    settings: TrainingSettings
    noise_seed: int | None


def _runs(plan: SearchPlan, trials: pd.DataFrame) -> Iterator[_Run]:
    """What a confirmation trains, with every configuration's first seed first."""
    configurations = confirm_configurations(plan, trials)
    for seed in plan.confirm_seeds():
        for level, configs in configurations.items():
            noise_seed = plan.confirm_noise_seed(level, seed)
            for index, config in enumerate(configs):
                yield _Run((level, index), level, plan.training_settings(config, seed), noise_seed)


class _End(NamedTuple):
    """After which epoch a training on all labels ends, and with which weights it is tested."""

    epoch: int
    readout: str


def _ends(data: LevelData, trials: pd.DataFrame, runs: Sequence[_Run]) -> dict[tuple[str, int], _End]:
    """How each configuration ends on all labels that completed with a seed on the split.

    A seed that diverged counts with its best epoch before that, as it does in the analysis.
    """
    rows = trials[trials["status"].isin(["completed", "diverged"]) & trials["best_epoch"].notna()]
    ids: dict[tuple[str, int], set[str]] = {}
    for key, level, settings, noise_seed in runs:
        ids.setdefault(key, set()).add(data.trial(level, settings, "confirm", noise_seed=noise_seed).trial_id)
    seeds = {key: rows[(rows["stage"] == "confirm") & rows["trial_id"].isin(names)] for key, names in ids.items()}
    return {
        key: _End(
            stop_epoch(of_key["best_epoch"].astype(int).tolist()), usual_readout(of_key["readout"].dropna().tolist())
        )
        for key, of_key in seeds.items()
        if (of_key["status"] == "completed").any()
    }


def _done(trials: pd.DataFrame) -> set[str]:
    return set(trials.loc[trials["status"] != "interrupted", "trial_id"])


def confirm(work: Work, missing: Missing = missing_trials) -> Literal["finished", "interrupted"]:
    """Run what a finished search lacks of its confirmation, or of what follows, by what lists the missing trials."""
    from nls_tune.tune.adapters import ListSearcher, WorkerSavingScheduler
    from nls_tune.tune.recorder import Recorder

    plan, packing = work.plan, work.packing

    def still_missing() -> list[TrialSpec]:
        trials = read_trials(work.run.path)
        return missing(plan, work.data, trials[~runs_again(work.run, trials)])

    specs = still_missing()
    if not specs:
        return "finished"
    levels = {p.level: LevelProgress(sum(spec.noise_level == p.level for spec in specs)) for p in plan.levels}
    stage, longest = specs[0].stage, max(spec.last_epoch for spec in specs)
    progress = SearchProgress(
        levels, packing.slots.count, longest, stage, epochs_after=plan.epochs_after(stage), metric=plan.settings.metric
    )
    view = work.make_view(progress)
    while True:
        recorder = Recorder(work, progress, view)
        searcher = ListSearcher(
            [spec.to_config() for spec in specs], metric=METRIC, may_start=recorder.may_start, lost=work.lost
        )
        run_experiment(
            work,
            recorder,
            searcher,
            WorkerSavingScheduler(searcher),
            warmup_epochs=sorted({spec.settings.warmup_epochs for spec in specs}),
            names={spec.data for spec in specs},
        )
        if work.lost.set_aside and not progress.is_ending:
            raise RuntimeError(work.lost.complaint())
        if progress.is_interrupted or not packing.lower():
            return "interrupted" if progress.is_ending or progress.num_left() else "finished"
        # Those that have ended stay counted; the rest follows with fewer trials per GPU.
        specs, progress.slots = still_missing(), packing.slots.count
