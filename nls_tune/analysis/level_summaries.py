"""The selected trial of each arm at each noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.rows import by_level, config_of, number, search_trials, searched_settings
from nls_tune.analysis.selection import select
from nls_tune.metrics import PLAIN, Metric
from nls_tune.runs.schemas import Columns, objective_columns, unpack_correct
from nls_tune.spaces.settings import Arm, ordered_arms

if TYPE_CHECKING:
    import pandas as pd

#: Two-sided 95 % of a normal distribution.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class ArmSummary:
    """The selected trial of an arm: chosen by noisy validation, described by everything.

    ``readout`` says which weights its accuracies at the best epoch are of: ``plain``, or ``average:SPAN``. Accuracies
    are values of the level's metric.
    """

    trial_id: str
    config: Config
    best_epoch: int
    epochs: int
    val_accuracy: float
    test_accuracy_at_best: float | None
    last_val_accuracy: float | None
    last_test_accuracy: float | None
    arm: Arm
    num_trials: int
    num_completed: int
    readout: str = PLAIN


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of one trial minus that of another on the same samples.

    The standard error comes from the samples on which the two disagree: ``sqrt(b + c - (b - c)**2 / n) / n``, b and c
    the samples that only one of them gets right, n all of them (the variance of McNemar's test, not assuming that the
    two are equal).
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

    The ``metric`` is what the run selects by. ``statuses`` says how many trials ended in which way, ``arms`` holds the
    selected trial of each arm that has a completed one, and ``used`` is the arm whose selected trial the verdict says
    to use, if it is one of them.
    """

    noise_level: str
    num_classes: int
    noise_rate: float | None
    noise_cancelling_rate: float | None
    statuses: dict[str, int]
    arms: dict[Arm, ArmSummary]
    estimated_noise_rate: float | None = None
    used: Arm | None = None
    metric: Metric = "accuracy"


def level_summaries(
    trials: pd.DataFrame, levels: Sequence[str] = (), metric: Metric = "accuracy"
) -> tuple[LevelSummary, ...]:
    """Summarise the search trials of each level that has some."""
    return tuple(_summarise(level, rows, metric) for level, rows in by_level(search_trials(trials), levels))


def _summarise(level: str, trials: pd.DataFrame, metric: Metric) -> LevelSummary:
    first, names = trials.iloc[0], searched_settings(trials)
    of_arms = {arm: trials[trials["arm"] == arm] for arm in ordered_arms(trials["arm"])}
    selected = {arm: row for arm, rows in of_arms.items() if (row := select(rows, metric)) is not None}
    columns = objective_columns(metric)
    arms = {arm: _arm_summary(arm, row, of_arms[arm], names, columns) for arm, row in selected.items()}
    return LevelSummary(
        noise_level=level,
        num_classes=int(first["num_classes"]),
        noise_rate=number(first["noise_rate"]),
        noise_cancelling_rate=number(first["noise_cancelling_rate"]),
        statuses={str(k): int(v) for k, v in trials["status"].value_counts().items()},
        arms=arms,
        estimated_noise_rate=number(first["estimated_noise_rate"]),
        metric=metric,
    )


def _arm_summary(arm: Arm, row: pd.Series, trials: pd.DataFrame, names: Sequence[str], columns: Columns) -> ArmSummary:
    return ArmSummary(
        trial_id=str(row["trial_id"]),
        config=config_of(row, names),
        best_epoch=int(row["best_epoch"]),
        epochs=int(row["epochs"]),
        val_accuracy=float(row[columns.best_val]),
        test_accuracy_at_best=number(row[columns.test_at_best]),
        last_val_accuracy=number(row[columns.last_val]),
        last_test_accuracy=number(row[columns.last_test]),
        arm=arm,
        num_trials=len(trials),
        num_completed=int((trials["status"] == "completed").sum()),
        readout=row["readout"] if isinstance(row["readout"], str) else PLAIN,
    )


def paired_difference(correct_a: np.ndarray, correct_b: np.ndarray) -> PairedDifference:
    """Return the first of two accuracies minus the second: which samples each got right, shape (n,), bool.

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


def paired_trials(a: pd.Series, b: pd.Series, split: str, metric: Metric = "accuracy") -> PairedDifference | None:
    """Return the accuracy of one row of ``trials/`` minus another's at their best epochs; None where one has no bits.

    Both were validated and tested on the same samples; ``split`` is ``val`` or ``test``. Of another metric than
    accuracy nothing is known sample by sample: None.
    """
    if metric != "accuracy":
        return None
    correct = []
    for row in (a, b):
        bits = row[f"{split}_correct_at_best"]
        if not isinstance(bits, bytes):
            return None
        correct.append(unpack_correct(bits, int(row[f"num_{split}"])))
    return paired_difference(*correct)
