"""The selected trial of each arm at each noise level, and cross-entropy (CE) with the defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.rows import by_level, config_of, have_settings, number, search_trials, searched_settings
from nls_tune.analysis.selection import select
from nls_tune.runs.schemas import unpack_correct
from nls_tune.spaces.space import ARMS, Arm

if TYPE_CHECKING:
    import pandas as pd

#: Two-sided 95 % of a normal distribution.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class _TrialAtBest:
    trial_id: str
    config: Config
    best_epoch: int
    epochs: int
    val_accuracy: float
    test_accuracy_at_best: float | None
    last_val_accuracy: float | None
    last_test_accuracy: float | None


@dataclass(frozen=True)
class ArmSummary(_TrialAtBest):
    """The selected trial of an arm: chosen by noisy validation, described by everything.

    Accuracies are fractions; ``test_*`` are None without a test set.
    """

    arm: Arm
    num_trials: int
    num_completed: int


@dataclass(frozen=True)
class DefaultCe(_TrialAtBest):
    """The search trial of cross-entropy with the defaults of the space: what a user would run without a search.

    Accuracies are fractions; ``test_*`` are None without a test set.

    Attributes:
        status: How it ended; one that was stopped or diverged has not run to its end.
    """

    status: str


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of one trial minus that of another on the same samples.

    Attributes:
        difference: First minus second, a fraction.
        standard_error: Its standard error, from the samples on which the two disagree:
            ``sqrt(b + c - (b - c)**2 / n) / n``, b and c the samples that only one of them gets right
            (the variance of McNemar's test, not assuming that the two are equal).
        num_samples: n.
    """

    difference: float
    standard_error: float
    num_samples: int

    @property
    def distinct(self) -> bool:
        """Whether the 95 % interval excludes 0."""
        return abs(self.difference) > Z95 * self.standard_error


@dataclass(frozen=True)
class LevelSummary:
    """What the search found at one noise level.

    Attributes:
        noise_level: In its stored spelling.
        num_classes: K.
        noise_rate: Share of wrong labels, None where unknown.
        noise_cancelling_rate: The noise's r*, None where it does not exist.
        statuses: How many trials ended in which way.
        arms: The selected trial of each arm that has a completed one.
        estimated_noise_rate: From the noisy labels; None where not estimated.
        default_ce: CE with the defaults; None where they are not given, or the search has no such trial with an
            epoch that counts.
        used: The arm whose selected trial the verdict says to use; None where it is none of them, or before a verdict.
    """

    noise_level: str
    num_classes: int
    noise_rate: float | None
    noise_cancelling_rate: float | None
    statuses: dict[str, int]
    arms: dict[Arm, ArmSummary]
    estimated_noise_rate: float | None = None
    default_ce: DefaultCe | None = None
    used: Arm | None = None


def level_summaries(
    trials: pd.DataFrame, levels: Sequence[str] = (), space: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[LevelSummary, ...]:
    """Summarise the search trials of a run.

    Args:
        trials: Rows of ``trials/``.
        levels: The order of the levels; by default that of their first trials.
        space: The searched settings with their defaults, which rows do not know.

    Returns:
        One summary per level that has trials.
    """
    defaults = None if space is None else {name: parameter["default"] for name, parameter in space.items()}
    return tuple(_summarise(level, rows, defaults) for level, rows in by_level(search_trials(trials), levels))


def _summarise(level: str, trials: pd.DataFrame, defaults: Mapping[str, Any] | None) -> LevelSummary:
    first, names = trials.iloc[0], searched_settings(trials)
    of_arms = {arm: trials[trials["arm"] == arm] for arm in ARMS}
    selected = {arm: row for arm, rows in of_arms.items() if (row := select(rows)) is not None}
    arms = {arm: _arm_summary(arm, row, of_arms[arm], names) for arm, row in selected.items()}
    return LevelSummary(
        noise_level=level,
        num_classes=int(first["num_classes"]),
        noise_rate=number(first["noise_rate"]),
        noise_cancelling_rate=number(first["noise_cancelling_rate"]),
        statuses={str(k): int(v) for k, v in trials["status"].value_counts().items()},
        arms=arms,
        estimated_noise_rate=number(first["estimated_noise_rate"]),
        default_ce=None if defaults is None else _default_ce(of_arms["ce"], defaults, names),
    )


def _arm_summary(arm: Arm, row: pd.Series, trials: pd.DataFrame, names: Sequence[str]) -> ArmSummary:
    num_completed = int((trials["status"] == "completed").sum())
    return ArmSummary(**vars(_at_best(row, names)), arm=arm, num_trials=len(trials), num_completed=num_completed)


def _default_ce(trials: pd.DataFrame, defaults: Mapping[str, Any], names: Sequence[str]) -> DefaultCe | None:
    rows = trials[trials["best_val_accuracy"].notna()]
    rows = rows[have_settings(rows, {**defaults, "smooth_rate": 0.0})]
    if rows.empty:
        return None
    row = rows.loc[(rows["status"] != "completed").sort_values(kind="stable").index[0]]  # one that ended, if any did
    return DefaultCe(**vars(_at_best(row, names)), status=str(row["status"]))


def _at_best(row: pd.Series, names: Sequence[str]) -> _TrialAtBest:
    return _TrialAtBest(
        trial_id=str(row["trial_id"]),
        config=config_of(row, names),
        best_epoch=int(row["best_epoch"]),
        epochs=int(row["epochs"]),
        val_accuracy=float(row["best_val_accuracy"]),
        test_accuracy_at_best=number(row["test_accuracy_at_best"]),
        last_val_accuracy=number(row["last_val_accuracy"]),
        last_test_accuracy=number(row["last_test_accuracy"]),
    )


def paired_difference(correct_a: np.ndarray, correct_b: np.ndarray) -> PairedDifference:
    """Return the difference of two accuracies on the same samples, with its standard error.

    Args:
        correct_a: Which samples the first got right, shape (n,), bool.
        correct_b: The same for the second.

    Returns:
        First minus second.

    Raises:
        ValueError: If the shapes differ or are empty.
    """
    if correct_a.shape != correct_b.shape or correct_a.size == 0:
        raise ValueError(f"both must cover the same samples, got {correct_a.shape} and {correct_b.shape}")
    n = correct_a.size
    only_a = int((correct_a & ~correct_b).sum())
    only_b = int((correct_b & ~correct_a).sum())
    variance = (only_a + only_b - (only_a - only_b) ** 2 / n) / n**2
    return PairedDifference((only_a - only_b) / n, math.sqrt(variance), n)


def paired_trials(a: pd.Series, b: pd.Series, split: str) -> PairedDifference | None:
    """Return the accuracy of one row of ``trials/`` minus another's at their best epochs, on the same samples.

    Args:
        a: The first.
        b: The second; validated and tested on the same samples.
        split: ``val`` or ``test``.

    Returns:
        The difference; None where a row has no bits.
    """
    correct = []
    for row in (a, b):
        bits = row[f"{split}_correct_at_best"]
        if not isinstance(bits, bytes):
            return None
        correct.append(unpack_correct(bits, int(row[f"num_{split}"])))
    return paired_difference(*correct)
