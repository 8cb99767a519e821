"""Features of own tables and arrays: missing values, categories and scales, all learned from training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nls_tune.datasets.samples import Column, counted, listed
from nls_tune.errors import InputError

#: More texts than this are no categories but names, dates or remarks.
MOST_CATEGORIES = 100
#: What was done to a column, as ``preprocessing.json`` holds it.
Step = Mapping[str, Any]


def check_finite(columns: Sequence[Column], where: str, *, named: bool = True) -> None:
    """Raise an InputError if a number is infinite."""
    found = {name: int(np.isinf(values).sum()) for name, kind, values in columns if kind == "number"}
    if bad := [f"{number:,} in column {name}" for name, number in found.items() if number]:
        way = "correct them, or --drop the column" if named else "correct them"
        raise InputError(f"{where} holds infinite values: {listed(bad)}; {way}")


def learn_steps(columns: Sequence[Column], train: np.ndarray, where: str) -> list[Step]:
    """Return what `encode` is to do to each of some columns.

    A missing number becomes the median, and where training rows have some a 0/1 column says so. Numbers are then
    standardised. A text becomes a 0/1 column for each that training rows have; others and missing ones are all 0.

    Args:
        columns: Columns of N values.
        train: The training rows. Medians, scales and categories come from these alone.
        where: The source, for messages.

    Raises:
        InputError: For a column with too many texts or too large numbers, or if no column has a use.
    """
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
            steps.append({**step, "categories": found})
            continue
        missing = np.isnan(values[train])
        known = values[train][~missing]
        median = float(np.median(known)) if len(known) else 0.0
        filled = np.where(missing, median, values[train])
        with np.errstate(over="ignore"):
            mean, std = float(filled.mean()), float(filled.std())
        if not np.isfinite(std):
            raise InputError(f"column {name} of {where} holds numbers too large to standardise; rescale it")
        std = std if std > 1e-12 * max(1.0, abs(mean)) else 1.0
        steps.append({**step, "median": median, "missing_column": bool(missing.any()), "mean": mean, "std": std})
    if all(step["kind"] == "category" and not step["categories"] for step in steps):
        raise InputError(f"{where} has no feature left: no training row has a text in its columns")
    return steps


def encode(columns: Sequence[Column], steps: Sequence[Step]) -> np.ndarray:
    """Return the inputs (N, D) float32 of some columns, made by what `learn_steps` returned for the same columns."""
    parts: list[np.ndarray] = []
    for (_, kind, values), step in zip(columns, steps, strict=True):
        if kind == "category":
            parts += [np.array([value == one for value in values], dtype=np.float32) for one in step["categories"]]
            continue
        missing = np.isnan(values)
        filled = np.where(missing, step["median"], values)
        parts.append(((filled - step["mean"]) / step["std"]).astype(np.float32))
        if step["missing_column"]:
            parts.append(missing.astype(np.float32))
    return np.stack(parts, axis=1)
