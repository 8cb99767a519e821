"""The confirmation: the selected configurations and cross-entropy (CE) again, with fresh seeds.

A search shows the luckiest of many trials. What a configuration is worth shows in trainings that no choice has
seen: the selected configuration of each arm, and CE with the space's defaults, are trained again with seeds that
the search has not used, on the search's own split, all levels at once, none stopped early.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nls_tune.cluster import Slots
from nls_tune.execution import run_experiment, trial_config
from nls_tune.plan import SearchPlan
from nls_tune.progress import LevelProgress, SearchProgress
from nls_tune.results import RunDirectory, read_trials, settings_of
from nls_tune.selection import select
from nls_tune.spaces import ARMS

if TYPE_CHECKING:
    import pandas as pd

    from nls_tune.report.live import ProgressView


def confirm_configurations(plan: SearchPlan, trials: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return what is trained again at each level.

    Args:
        plan: Of the search.
        trials: Rows of ``trials/``.

    Returns:
        By level: the selected configuration of each arm, and CE with the defaults of the space if the space has a
        CE arm and it is another one. Levels where nothing was completed have none.
    """
    search = trials[trials["stage"] == "search"]
    found: dict[str, list[dict[str, Any]]] = {}
    for level in plan.levels:
        rows = search[search["noise_level"] == level.level]
        configs: list[dict[str, Any]] = []
        for arm in ARMS:
            row = select(rows[rows["arm"] == arm])
            if row is not None:
                settings = settings_of(row.to_dict())
                configs.append({name: getattr(settings, name) for name in plan.space.space})
        if configs and "ce" in level.quotas:
            default = plan.space.default(smooth_rate=0.0)
            configs += [] if default in configs else [default]
        found[level.level] = configs
    return found


def missing_trials(plan: SearchPlan, trials: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the configurations of the confirmation's trials that have no row yet, for Tune.

    The first seed of every configuration comes first, so that a confirmation that is cut short has compared all of
    them with fewer seeds, and not some of them with all.
    """
    done = set(trials.loc[trials["status"] != "interrupted", "trial_id"])
    missing = []
    configurations = confirm_configurations(plan, trials)
    for seed in plan.confirm_seeds():
        for level, configs in configurations.items():
            noise_seed = plan.confirm_noise_seed(level, seed)
            for config in configs:
                settings = plan.training_settings(config, seed)
                trial_id = plan.trial_id(level, settings, "confirm", noise_seed)
                if trial_id not in done:
                    missing.append(trial_config(trial_id, level, settings, "confirm", noise_seed=noise_seed))
    return missing


def confirm(
    plan: SearchPlan,
    run: RunDirectory,
    run_id: str,
    slots: Slots,
    make_view: Callable[[SearchProgress], ProgressView],
) -> str:
    """Run what is missing of the confirmation of a finished search.

    Args:
        plan: Of the search.
        run: Its directory.
        run_id: Of the run.
        slots: What a trial gets and how many run at once.
        make_view: Makes the view of the progress.

    Returns:
        ``finished`` or ``interrupted``.
    """
    from nls_tune.ray_adapters import ListSearcher
    from nls_tune.recorder import Recorder

    configs = missing_trials(plan, read_trials(run.path))
    if not configs:
        return "finished"
    levels = {p.level: LevelProgress(sum(config["noise_level"] == p.level for config in configs)) for p in plan.levels}
    progress = SearchProgress(levels, slots.count, plan.space.budget.epochs)
    view = make_view(progress)
    recorder = Recorder(plan, run, run_id, progress, view)
    draws = sorted({(c["noise_level"], c["noise_seed"]) for c in configs if c["noise_seed"] is not None})
    searcher = ListSearcher(configs, metric="best_val_accuracy")
    lengths = sorted({config["settings"]["warmup_epochs"] for config in configs})
    run_experiment(plan, run, slots, recorder, view, searcher, None, len(configs), lengths, draws)
    return "interrupted" if progress.num_left() else "finished"
