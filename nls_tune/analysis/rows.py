"""What several questions ask of the rows of ``trials/``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: Smallest 1 - r in log(1 - r): the rate may be 1.
_SMALLEST_SHARE = 0.01


def log_share(rates: np.ndarray) -> np.ndarray:
    """Return log(1 - r), the scale on which rates are searched; it falls as the rate rises.

    Args:
        rates: Smooth rates, at most 1; those above 0.99 count as 0.99.
    """
    logs: np.ndarray = np.log(np.maximum(1 - np.asarray(rates, float), _SMALLEST_SHARE))
    return logs


def by_level(rows: pd.DataFrame, levels: Sequence[str] = ()) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each noise level that has some.

    Args:
        rows: With the column ``noise_level``.
        levels: The order of the levels; by default that of their first rows.
    """
    present = [str(level) for level in dict.fromkeys(rows["noise_level"])]
    order = [level for level in levels if level in present] or present
    return [(level, rows[rows["noise_level"] == level]) for level in order]


def search_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the search, without those of the confirmation."""
    return trials[trials["stage"] == "search"]


def numbers(column: pd.Series) -> list[float | None]:
    """Return the values of a column; None where there are none."""
    return [number(value) for value in column.tolist()]


def number(value: Any) -> float | None:
    """Return a cell as a float; None where it is empty."""
    return None if value is None or math.isnan(value) else float(value)


def moment(value: Any) -> datetime | None:
    """Return a time of run.json, in UTC where it does not say of which zone; None for what is no time."""
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
