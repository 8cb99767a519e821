"""Accuracies epoch by epoch: where memorisation of the wrong labels begins, and what the best epoch saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nls_tune.spaces import Arm

if TYPE_CHECKING:
    import pandas as pd

#: Why a curve is shown: it is the selected one of its arm, CE with the defaults, or one of the best of the others.
Role = Literal["selected", "default_ce", "other"]
#: How many others are kept a noise level.
MAX_OTHERS = 12


@dataclass(frozen=True)
class LearningCurve:
    """One search trial epoch by epoch; the tuples are of one length. Accuracies are fractions.

    Attributes:
        role: Why it is here.
        status: How the trial ended; None for one that runs.
        best_epoch: The epoch that counts; None where none does.
        epochs: Ascending, from 1.
        train_accuracy: On noisy training labels.
        val_accuracy: On noisy validation labels.
        test_accuracy: On clean test labels; None where there are none.
    """

    trial_id: str
    role: Role
    arm: Arm
    smooth_rate: float
    warmup_epochs: int
    lr: float
    status: str | None
    best_epoch: int | None
    epochs: tuple[int, ...]
    train_accuracy: tuple[float, ...]
    val_accuracy: tuple[float, ...]
    test_accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class LevelCurves:
    """The learning curves of one noise level.

    Attributes:
        noise_level: In its stored spelling.
        curves: Selected ones first, then CE with the defaults, then others, best first.
        num_trials: Search trials of the level that have epochs; more than ``curves`` where some are left out.
    """

    noise_level: str
    curves: tuple[LearningCurve, ...]
    num_trials: int


def learning_curves(
    trials: pd.DataFrame, epochs: pd.DataFrame, levels: Sequence[str] = (), max_others: int = MAX_OTHERS
) -> tuple[LevelCurves, ...]:
    """Return the curves of each noise level that has epochs of search trials."""
    raise NotImplementedError
