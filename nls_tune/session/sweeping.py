"""The sweep: rates from end to end of their range, each with fresh seeds, for the curve of accuracy over rates.

A search spends its trials where accuracy is high, so its trials draw the curve where that is, each with another
learning rate, and each once. In a sweep every rate is tried with as many settings, and the best of them is trained
with the seeds of the confirmation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.rows import completed_trials, log_share, rate_trials
from nls_tune.analysis.selection import best_first
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import SearchPlan
from nls_tune.runs.schemas import settings_of
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.session.confirming import Missing, missing_on_all_labels, missing_trials

if TYPE_CHECKING:
    import pandas as pd

#: Near a rate is this share of a level's completed trials, those with the nearest rates, and so many at least.
NEAR_SHARE, LEAST_NEAR = 0.2, 3


def sweep_configurations(plan: SearchPlan, trials: pd.DataFrame) -> dict[str, list[Config]]:
    """Return what a sweep trains with fresh seeds at each level: every rate, with the best settings for it.

    They are those of the completed trial of this very rate with the highest validation accuracy. For a rate that
    completed none, and where no settings are to be tried, they are those of the search's best trial near it.

    Args:
        plan: The search's plan.
        trials: Rows of ``trials/``.

    Returns:
        By level; a level without a completed trial of a rate has none.
    """
    tried = dict(_completed(plan, trials, ("search", "sweep_search")))
    found: dict[str, list[Config]] = {}
    for level, searched in _completed(plan, trials, ("search",)):
        found[level] = []
        for rate in plan.sweep_rates if len(searched) else ():
            own = tried[level][tried[level]["smooth_rate"] == rate]
            take_own = len(own) and plan.sweep_settings
            found[level].append(_settings(plan, own if take_own else _near(searched, rate), rate))
    return found


def _tried(plan: SearchPlan, trials: pd.DataFrame) -> dict[str, list[Config]]:
    """Return what is tried for the rates of each level, those of the search's best trial near each rate first."""
    found: dict[str, list[Config]] = {}
    for level, rows in _completed(plan, trials, ("search",)):
        rates = plan.sweep_rates if len(rows) else ()
        configs = [_settings(plan, _near(rows, rate), rate) for rate in rates]
        configs += [{**config, "smooth_rate": rate} for config in plan.sweep_settings for rate in rates]
        found[level] = [config for i, config in enumerate(configs) if config not in configs[:i]]
    return found


def _completed(plan: SearchPlan, trials: pd.DataFrame, stages: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """Return the completed trials of a rate at each level of the plan."""
    rows = completed_trials(rate_trials(trials[trials["stage"].isin(stages)]), plan.settings.metric)
    return [(level.level, rows[rows["noise_level"] == level.level]) for level in plan.levels]


def _settings(plan: SearchPlan, rows: pd.DataFrame, rate: float) -> Config:
    """Return the settings of the best of some trials, with another rate."""
    best = best_first(rows, plan.settings.metric).iloc[0].to_dict()
    return {**plan.space.config_of(settings_of(best)), "smooth_rate": rate}


def _near(rows: pd.DataFrame, rate: float) -> pd.DataFrame:
    """Return the trials with the nearest rates in log(1 - r), and all that are as near as the last of them."""
    distance = np.abs(log_share(rows["smooth_rate"].to_numpy(float)) - log_share(np.array([rate])))
    num = min(len(rows), max(LEAST_NEAR, math.ceil(NEAR_SHARE * len(rows))))
    near: pd.DataFrame = rows[distance <= np.sort(distance)[num - 1]]
    return near


def missing_settings(plan: SearchPlan, data: LevelData, trials: pd.DataFrame) -> list[TrialSpec]:
    """Return the trials that choose the settings of a sweep's rates and have no row yet.

    They have the seed of the search, and what the search has completed is not trained again. Every rate gets as many;
    rate 0 has the search's own trials of cross-entropy besides, so that no other looks better for having been tuned
    harder.

    Args:
        plan: The search's plan.
        data: The datasets of the run.
        trials: Rows of ``trials/``, those of the search among them.
    """
    if not plan.sweep_settings:
        return []
    completed = trials["status"] == "completed"
    done = {*trials.loc[completed | (trials["stage"] != "search") & _ended(trials), "trial_id"]}
    specs = [
        [data.trial(level, plan.training_settings(config), stage) for stage in ("search", "sweep_search")]
        for level, configs in _tried(plan, trials).items()
        for config in configs
    ]
    return [spec for searched, spec in specs if not {searched.trial_id, spec.trial_id} & done]


def missing_sweep(plan: SearchPlan, data: LevelData, trials: pd.DataFrame) -> list[TrialSpec]:
    """Return the sweep's trials with fresh seeds that have no row yet, every rate's first seed first.

    What the confirmation has trained with the same settings and seed is not trained again.

    Args:
        plan: The search's plan.
        data: The datasets of the run.
        trials: Rows of ``trials/``, those of the confirmation among them.
    """
    done = set(trials.loc[_ended(trials), "trial_id"])
    wanted = []
    for seed in plan.confirm_seeds() if plan.sweep_rates else ():
        for level, configs in sweep_configurations(plan, trials).items():
            noise_seed = plan.confirm_noise_seed(level, seed)
            for config in configs:
                settings = plan.training_settings(config, seed)
                both = [data.trial(level, settings, stage, noise_seed=noise_seed) for stage in ("confirm", "sweep")]
                wanted += [] if any(spec.trial_id in done for spec in both) else both[1:]
    return wanted


def _ended(trials: pd.DataFrame) -> pd.Series[bool]:
    """Return which trials need not run again."""
    return trials["status"] != "interrupted"


#: The stages that follow a search, in their order, by what lists their missing trials; most searches have one.
AFTER_SEARCH: tuple[Missing, ...] = (missing_trials, missing_on_all_labels, missing_settings, missing_sweep)
