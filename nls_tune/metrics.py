"""What an epoch measures, and which epoch of a trial is its best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Objective = Literal["best", "last"]


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of one epoch; the first is 1, its phase ``warmup`` or ``gls``.

    ``train_loss`` is the mean of the loss that was minimised and ``train_accuracy`` the share of noisy labels that were
    predicted, both while training; ``val_loss`` is the mean cross-entropy against the noisy validation labels.
    ``test_accuracy``, against clean labels, is None without a test set; it is recorded, never selected on.
    ``diverged`` says that loss or parameters were not finite at the end. ``seconds`` include the evaluation, and
    ``peak_memory_bytes`` is that of allocated device memory (CUDA) or of the process (CPU).
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
    """Return the epoch that a user would deploy and its accuracy, or None before the first epoch that counts.

    It is the epoch with the highest validation accuracy, smoothed by a centred mean over 3 epochs (2 at the
    ends, 1 where only one counts); the earliest on ties. With ``objective="last"`` it is the last epoch and
    its plain validation accuracy.

    Args:
        val_accuracies: Validation accuracy of epochs 1, 2, ... so far; epochs that diverged left out.
        first_counting: The first (1-based) epoch that may be chosen; the smoothing sees no earlier one either.
        objective: ``best`` or ``last``.
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
