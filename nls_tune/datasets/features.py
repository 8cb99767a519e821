"""Features of own tables and arrays: missing values, categories and scales, all learned from training rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nls_tune.datasets.samples import Column, counted, listed
from nls_tune.errors import InputError

#: More texts than this are no categories but names, dates or remarks.
MOST_CATEGORIES = 100
#: What was done to a column, as ``preprocessing.json`` holds it.
Step = dict[str, object]


def check_finite(columns: Sequence[Column], where: str, *, named: bool = True) -> None:
    """Raise an InputError if a number is infinite."""
    found = {name: int(np.isinf(values).sum()) for name, kind, values in columns if kind == "number"}
    if bad := [f"{number:,} in column {name}" for name, number in found.items() if number]:
        way = "correct them, or --drop the column" if named else "correct them"
        raise InputError(f"{where} holds infinite values: {listed(bad)}; {way}")


def encode(columns: Sequence[Column], train: np.ndarray, where: str) -> tuple[np.ndarray, list[Step]]:
    """Return the inputs (N, D) float32 of some columns, and what was done to each.

    A missing number becomes the median, and where training rows have some a 0/1 column says so. Numbers are then
    standardised. A text becomes a 0/1 column for each that training rows have; others and missing ones are all 0.

    Args:
        columns: Columns of N values.
        train: The training rows. Medians, scales and categories come from these alone.
        where: The source, for messages.

    Raises:
        InputError: For a column with too many texts or too large numbers.
    """
    parts: list[np.ndarray] = []
    steps: list[Step] = []
    for name, kind, values in columns:
        step: Step = {"column": name, "kind": kind}
        if kind == "category":
            found = sorted({value for value in values[train] if value is not None})
            if len(found) > MOST_CATEGORIES:
                raise InputError(
                    f"column {name} of {where} holds {counted(len(found), 'different text')}, and at most "
                    f"{MOST_CATEGORIES} can be categories; --drop {name}, or turn it into numbers"
                )
            parts += [np.array([value == one for value in values], dtype=np.float32) for one in found]
            steps.append({**step, "categories": found})
            continue
        missing = np.isnan(values)
        known = values[train][~missing[train]]
        median = float(np.median(known)) if len(known) else 0.0
        filled = np.where(missing, median, values)
        with np.errstate(over="ignore"):
            mean, std = float(filled[train].mean()), float(filled[train].std())
        if not np.isfinite(std):
            raise InputError(f"column {name} of {where} holds numbers too large to standardise; rescale it")
        std = std if std > 1e-12 * max(1.0, abs(mean)) else 1.0
        parts.append(((filled - mean) / std).astype(np.float32))
        flagged = bool(missing[train].any())
        if flagged:
            parts.append(missing.astype(np.float32))
        steps.append({**step, "median": median, "missing_column": flagged, "mean": mean, "std": std})
    if not parts:
        raise InputError(f"{where} has no feature left: no training row has a text in its columns")
    return np.stack(parts, axis=1), steps
