"""What several questions ask of the rows of ``trials/``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nls_tune.allocation.allocator import Config
from nls_tune.losses.registry import LOSS_SETTINGS
from nls_tune.metrics import Metric
from nls_tune.runs.schemas import objective_columns
from nls_tune.spaces.settings import RATE_ARMS

if TYPE_CHECKING:
    import pandas as pd

#: The settings that describe a configuration even where all trials share them.
ALWAYS_SHOWN = ("smooth_rate", "warmup_epochs", "lr")
#: Smallest 1 - r in log(1 - r): the rate may be 1.
_SMALLEST_SHARE = 0.01


def log_share(rates: np.ndarray) -> np.ndarray:
    """Return log(1 - r), the scale on which rates are searched; rates above 0.99 count as 0.99."""
    logs: np.ndarray = np.log(np.maximum(1 - np.asarray(rates, float), _SMALLEST_SHARE))
    return logs


# Rows


def in_order(present: Sequence[str], levels: Sequence[str] = ()) -> list[str]:
    """Return each noise level that is present once, in the order of ``levels``, or as they come if none is there."""
    found = [str(level) for level in dict.fromkeys(present)]
    return [level for level in levels if level in found] or found


def by_level(rows: pd.DataFrame, levels: Sequence[str] = ()) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each noise level that has some."""
    names = in_order(rows["noise_level"].tolist(), levels)
    return [(level, rows[rows["noise_level"] == level]) for level in names]


def search_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the search, without those of the confirmation."""
    return trials[trials["stage"] == "search"]


def rate_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of CE and of GLS, without those of other losses, which have no rate."""
    return trials[trials["arm"].isin(RATE_ARMS)]


def is_completed(trials: pd.DataFrame, metric: Metric = "accuracy") -> pd.Series[bool]:
    """Return which trials were completed and have an objective."""
    return (trials["status"] == "completed") & trials[objective_columns(metric).best_val].notna()


def completed_trials(trials: pd.DataFrame, metric: Metric = "accuracy") -> pd.DataFrame:
    """Return the completed trials that have an objective."""
    return trials[is_completed(trials, metric)]


# Settings


def column_of(setting: str) -> str:
    """Return the column that holds a training setting."""
    return setting if setting in ALWAYS_SHOWN else f"config_{setting}"


def searched_settings(trials: pd.DataFrame) -> list[str]:
    """Return the columns of rate, warm-up and learning rate, and of every other setting in which trials differ."""
    return [*ALWAYS_SHOWN, *(c for c in trials.columns if c.startswith("config_") and _differs(trials[c]))]


def _differs(values: pd.Series) -> bool:
    if values.dtype != object:
        return values.nunique(dropna=False) > 1
    # Lists are not hashed; their bytes are, which is much quicker than writing them out.
    return len({value.tobytes() if isinstance(value, np.ndarray) else str(value) for value in values}) > 1


def config_of(row: pd.Series, columns: Sequence[str]) -> Config:
    """Return the settings of a row as plain values, by the columns that hold them, without those of other losses."""
    arm = row["arm"]
    names = {column: column.removeprefix("config_") for column in columns}
    return {name: plain(row[column]) for column, name in names.items() if LOSS_SETTINGS.get(name, arm) == arm}


def have_settings(trials: pd.DataFrame, config: Mapping[str, Any]) -> np.ndarray:
    """Return which trials have the given settings, shape (n,), bool; settings without a column do not count."""
    same = np.ones(len(trials), bool)
    for name, value in config.items():
        if (column := column_of(name)) in trials.columns:
            same &= np.array([plain(cell) == value for cell in trials[column].tolist()], bool)
    return same


# Cells


def plain(value: Any) -> Any:
    """Return a cell as a plain Python value; pandas has NaN for null."""
    found = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    return None if isinstance(found, float) and math.isnan(found) else found


def numbers(column: pd.Series) -> list[float | None]:
    """Return the values of a column; None where there are none."""
    return [number(value) for value in column.tolist()]


def number(value: Any) -> float | None:
    """Return a cell as a float; None where it is empty."""
    return None if value is None or math.isnan(value) else float(value)
