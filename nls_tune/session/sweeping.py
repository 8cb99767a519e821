"""The sweep: rates from end to end of their range, each with fresh seeds, for the curve of accuracy over rates.

A search spends its trials where accuracy is high, so its trials draw the curve where that is, each with another
learning rate, and each once. In a sweep every rate has the best settings that the search found near it, and the seeds
of the confirmation.
"""

from __future__ import annotations

import math
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

#: The settings of a rate are those of the best of this share of a level's completed trials, those with the nearest
#: rates, and of so many at least.
NEAR_SHARE, LEAST_NEAR = 0.2, 3


def sweep_configurations(plan: SearchPlan, trials: pd.DataFrame) -> dict[str, list[Config]]:
    """Return what a sweep trains at each level: every rate, with the settings of the best trial near it.

    Near is meant in log(1 - r); the best is the one with the highest validation accuracy. For cross-entropy these are
    its own trials.

    Args:
        plan: The search's plan.
        trials: Rows of ``trials/``.

    Returns:
        By level; a level without a completed trial of a rate has none.
    """
    found: dict[str, list[Config]] = {}
    metric = plan.settings.metric
    search = completed_trials(rate_trials(trials[trials["stage"] == "search"]), metric)
    for level in plan.levels:
        rows = search[search["noise_level"] == level.level]
        found[level.level] = [
            {**plan.space.config_of(settings_of(best_first(_near(rows, rate), metric).iloc[0].to_dict())),
             "smooth_rate": rate}
            for rate in (plan.sweep_rates if len(rows) else ())
        ]  # fmt: skip
    return found


def _near(rows: pd.DataFrame, rate: float) -> pd.DataFrame:
    """Return the trials with the nearest rates, and all that are as near as the last of them."""
    distance = np.abs(log_share(rows["smooth_rate"].to_numpy(float)) - log_share(np.array([rate])))
    num = min(len(rows), max(LEAST_NEAR, math.ceil(NEAR_SHARE * len(rows))))
    near: pd.DataFrame = rows[distance <= np.sort(distance)[num - 1]]
    return near


def missing_sweep(plan: SearchPlan, data: LevelData, trials: pd.DataFrame) -> list[TrialSpec]:
    """Return the sweep's trials that have no row yet, every rate's first seed first.

    What the confirmation has trained with the same settings and seed is not trained again.

    Args:
        plan: The search's plan.
        data: The datasets of the run.
        trials: Rows of ``trials/``, those of the confirmation among them.
    """
    done = set(trials.loc[trials["status"] != "interrupted", "trial_id"])
    wanted = []
    for seed in plan.confirm_seeds() if plan.sweep_rates else ():
        for level, configs in sweep_configurations(plan, trials).items():
            noise_seed = plan.confirm_noise_seed(level, seed)
            for config in configs:
                settings = plan.training_settings(config, seed)
                both = [data.trial(level, settings, stage, noise_seed=noise_seed) for stage in ("confirm", "sweep")]
                wanted += [] if any(spec.trial_id in done for spec in both) else both[1:]
    return wanted


#: The stages that follow a search, in their order, by what lists their missing trials; most searches have one.
AFTER_SEARCH: tuple[Missing, ...] = (missing_trials, missing_on_all_labels, missing_sweep)
