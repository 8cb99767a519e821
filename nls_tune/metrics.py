"""What an epoch measures, and which epoch of a trial is its best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Objective = Literal["best", "last"]


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of one epoch.

    Attributes:
        epoch: 1-based.
        phase: ``warmup`` or ``gls``.
        lr: Learning rate.
        train_loss: Mean of the loss that was minimised, over the epoch's training samples.
        train_accuracy: Share of training samples whose noisy label was predicted, while training.
        val_loss: Mean cross-entropy against the noisy validation labels.
        val_accuracy: Share of validation samples whose noisy label is predicted.
        test_accuracy: Share of test samples whose clean label is predicted; None without a test set. Recorded,
            never selected on.
        diverged: Whether loss or parameters were not finite at the end of the epoch.
        seconds: Wall time of the epoch, evaluation included.
        peak_memory_bytes: Peak of allocated device memory (CUDA) or of the process (CPU).
    """

    epoch: int
    phase: str
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    test_accuracy: float | None
    diverged: bool
    seconds: float
    peak_memory_bytes: int


class Best(NamedTuple):
    """An epoch and the value of the objective at it."""

    epoch: int
    value: float


def best_epoch(val_accuracies: Sequence[float], first_counting: int = 1, objective: Objective = "best") -> Best | None:
    """Return the epoch that a user would deploy.

    It is the epoch with the highest validation accuracy, smoothed by a centred mean over 3 epochs (2 at the
    ends, 1 where only one counts); the earliest on ties. With ``objective="last"`` it is the last epoch and
    its plain validation accuracy.

    Args:
        val_accuracies: Validation accuracy of epochs 1, 2, ... so far; epochs that diverged left out.
        first_counting: The first (1-based) epoch that may be chosen; the smoothing sees no earlier one either.
        objective: ``best`` or ``last``.

    Returns:
        The epoch and its (smoothed) accuracy, or None before the first epoch that counts.
    """
    counted = val_accuracies[first_counting - 1 :]
    if not counted:
        return None
    if objective == "last":
        return Best(len(val_accuracies), counted[-1])
    smoothed = [
        math.fsum(window) / len(window) for i in range(len(counted)) if (window := counted[max(0, i - 1) : i + 2])
    ]
    value = max(smoothed)
    return Best(first_counting + smoothed.index(value), value)
