"""The selected trial of a group: the one with the highest objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nls_tune.analysis.rows import completed_trials
from nls_tune.metrics import Metric
from nls_tune.runs.schemas import objective_columns

if TYPE_CHECKING:
    import pandas as pd


def best_first(trials: pd.DataFrame, metric: Metric = "accuracy") -> pd.DataFrame:
    """Return the completed trials that have an objective, the highest first; the earlier one on ties."""
    order = [objective_columns(metric).best_val, "started_at", "trial_id"]
    return completed_trials(trials, metric).sort_values(order, ascending=[False, True, True], kind="stable")


def select(trials: pd.DataFrame, metric: Metric = "accuracy") -> pd.Series | None:
    """Return the completed trial of a group with the highest objective; the earlier one on ties.

    Stopped trials do not count: their value is that of another training length. The test set takes no part.
    ``trials`` are those of one group and one stage; without a completed one there is no row.
    """
    ranked = best_first(trials, metric)
    return None if ranked.empty else ranked.iloc[0]
