"""What an epoch measures, and which epoch of a trial is its best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple

Objective = Literal["best", "last"]
#: Epochs over which the validation accuracy of an epoch is averaged: itself and the one before it.
WINDOW = 2
#: The readout of a training that is its weights as they are.
PLAIN = "plain"


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of one epoch; the first is 1, its phase ``warmup`` or ``gls``.

    ``train_loss`` is the mean of the loss that was minimised and ``train_accuracy`` the share of noisy labels that were
    predicted, both while training; ``val_loss`` is the mean cross-entropy against the noisy validation labels.
    ``test_accuracy``, against clean labels, is None without a test set; it is recorded, never selected on.
    ``diverged`` says that loss or parameters were not finite at the end. ``seconds`` include the evaluation, and
    ``peak_memory_bytes`` is that of allocated device memory (CUDA) or of the process (CPU).
    ``average_val_accuracies`` are those of the averaged weights, one for each span, where they were judged.
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
    average_val_accuracies: tuple[float, ...] = ()


@dataclass(frozen=True)
class Judging:
    """How trainings are judged: by which epoch (None: by their own rule), and whether with mirrored test images too."""

    objective: Objective | None = None
    mirror: bool = False


@dataclass(frozen=True)
class ReadoutScore:
    """What one readout of a training reached: its weights as they are, `PLAIN`, or an average, ``average:SPAN``.

    ``epoch`` is its best one, ``val_accuracy`` the objective there, and ``test_accuracy`` None without a test set.
    """

    readout: str
    epoch: int
    val_accuracy: float
    test_accuracy: float | None


class Best(NamedTuple):
    """An epoch and the value of the objective at it."""

    epoch: int
    value: float


def best_epoch(val_accuracies: Sequence[float], first_counting: int = 1, objective: Objective = "best") -> Best | None:
    """Return the epoch that a user would deploy and its accuracy, or None before the first epoch that counts.

    It is the epoch with the highest mean validation accuracy of itself and the epoch before it (itself alone for the
    first epoch), the earliest on ties: the same function for every arm and phase, because a window that left the
    warm-up out for some would favour one of them (``benchmarks/best_epoch.py``). With ``objective="last"`` it is the
    last epoch and its own validation accuracy.

    Args:
        val_accuracies: Validation accuracy of epochs 1, 2, ... so far; epochs that diverged left out.
        first_counting: The first (1-based) epoch that may be chosen.
        objective: ``best`` or ``last``.
    """
    last = len(val_accuracies)
    if last < first_counting:
        return None
    if objective == "last":
        return Best(last, val_accuracies[-1])
    means = [fmean(val_accuracies[max(0, epoch - WINDOW) : epoch]) for epoch in range(first_counting, last + 1)]
    value = max(means)
    return Best(first_counting + means.index(value), value)


class BestAverage(NamedTuple):
    """An epoch, the average, by the place of its span (0 is the first), and the value of the objective at it."""

    epoch: int
    span: int
    value: float


def best_average(
    val_accuracies: Sequence[Sequence[float]], first_counting: int = 1, objective: Objective = "best"
) -> BestAverage | None:
    """Return the best epoch of the averaged weights by the rule of `best_epoch`, over all averages.

    The average of the highest value is returned, the first on ties; None where none was judged. Arguments are as in
    `best_epoch`, with `EpochMetrics.average_val_accuracies` of each epoch.
    """
    if objective == "last":
        # Averages are judged at the end alone; `best_epoch` looks at the last value, and at how many there are.
        val_accuracies = list(val_accuracies[-1:]) * len(val_accuracies)
    curves = enumerate(zip(*val_accuracies, strict=False))
    found = [(best_epoch(curve, first_counting, objective), index) for index, curve in curves]
    averages = [BestAverage(best.epoch, index, best.value) for best, index in found if best is not None]
    return max(averages, key=lambda best: best.value, default=None)
