"""How accuracy depends on the smooth rate: the trials, a local smoother and its bootstrap band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nls_tune.spaces import Arm

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RatePoint:
    """One full-length search trial at its best epoch. Accuracies are fractions."""

    trial_id: str
    arm: Arm
    smooth_rate: float
    warmup_epochs: int
    lr: float
    val_accuracy: float
    test_accuracy: float | None


@dataclass(frozen=True)
class SmoothedCurve:
    """A smoother over rates, with a 95 % bootstrap band; all of one length, rates ascending."""

    rates: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class RateCurve:
    """Accuracy against smooth rate at one noise level.

    Attributes:
        noise_level: In its stored spelling.
        noise_cancelling_rate: Of the noise; None where it does not exist.
        points: The completed search trials, rates ascending.
        num_left_out: Search trials that are not there: stopped, diverged, failed, interrupted.
        validation: The smoother over validation accuracies; None where there are too few points.
        test: The same over test accuracies; None also without a test set.
    """

    noise_level: str
    noise_cancelling_rate: float | None
    points: tuple[RatePoint, ...]
    num_left_out: int
    validation: SmoothedCurve | None
    test: SmoothedCurve | None


def rate_curves(trials: pd.DataFrame, levels: Sequence[str] = ()) -> tuple[RateCurve, ...]:
    """Return the curve of each noise level that has search trials."""
    raise NotImplementedError
