"""What an epoch measures, and which epoch of a trial is its best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple, get_args

Objective = Literal["best", "last"]
#: What a search selects by.
Metric = Literal["accuracy", "balanced_accuracy", "macro_f1"]
METRICS: tuple[Metric, ...] = get_args(Metric)
#: The fields of `EpochMetrics`, and columns of ``epochs/``, with the validation values of the averaged weights.
AVERAGES: dict[Metric, str] = {
    "accuracy": "average_val_accuracies",
    "balanced_accuracy": "average_val_balanced_accuracies",
    "macro_f1": "average_val_macro_f1s",
}
#: Epochs over which the validation accuracy of an epoch is averaged: itself and the one before it.
WINDOW = 2
#: The readout of a training that is its weights as they are.
PLAIN = "plain"


class Scores(NamedTuple):
    """The metrics of some predictions, as fractions; None where an early version recorded accuracy alone.

    ``balanced_accuracy`` is the mean recall of the classes that are among the labels; ``macro_f1`` the mean F1 of the
    classes that are among labels or predictions.
    """

    accuracy: float
    balanced_accuracy: float | None = None
    macro_f1: float | None = None

    def of(self, metric: Metric) -> float:
        """Return the value of a metric; NaN where it was not recorded."""
        value: float | None = getattr(self, metric)
        return math.nan if value is None else value


class ClassCounts(NamedTuple):
    """Numbers of samples by class, K each: those with its label, those predicted as it, and those that are both."""

    labelled: tuple[int, ...]
    predicted: tuple[int, ...]
    right: tuple[int, ...]

    @classmethod
    def from_flat(cls, values: Sequence[int]) -> ClassCounts:
        """Return the counts that ``flat`` gave, 3 K of them."""
        k = len(values) // 3
        return cls(*(tuple(int(v) for v in values[i * k : (i + 1) * k]) for i in range(3)))

    def flat(self) -> list[int]:
        """Return all counts in one list, as ``trials/`` stores them."""
        return [*self.labelled, *self.predicted, *self.right]

    def recalls(self) -> list[float | None]:
        """Return the share of each class's samples that are predicted as it; None for a class without any."""
        return [right / n if n else None for n, right in zip(self.labelled, self.right, strict=True)]

    def precisions(self) -> list[float | None]:
        """Return the share of what is predicted as each class that belongs to it; None where nothing is."""
        return [right / n if n else None for n, right in zip(self.predicted, self.right, strict=True)]

    def f1s(self) -> list[float | None]:
        """Return each class's F1, the harmonic mean of both; None for a class without a label or a prediction."""
        return [2 * right / (n + m) if n + m else None for n, m, right in zip(*self, strict=True)]

    def scores(self) -> Scores:
        """Return the metrics of the predictions, at least one."""
        balanced, f1 = (fmean(v for v in values if v is not None) for values in (self.recalls(), self.f1s()))
        return Scores(sum(self.right) / sum(self.labelled), balanced, f1)


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of one epoch; the first is 1, its phase ``warmup`` or ``gls``.

    ``train_loss`` is the mean of the loss that was minimised and ``train_accuracy`` the share of noisy labels that were
    predicted, both while training; ``val_loss`` is the mean cross-entropy against the noisy validation labels.
    ``test_accuracy``, against clean labels, is None without a test set; it is recorded, never selected on. The other
    metrics are those of `Scores`.
    ``diverged`` says that loss or parameters were not finite at the end. ``seconds`` include the evaluation, and
    ``peak_memory_bytes`` is that of allocated device memory (CUDA) or of the process (CPU).
    ``average_val_accuracies`` are those of the averaged weights, one for each span, where they were judged; the other
    metrics likewise.
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
    val_balanced_accuracy: float | None = None
    val_macro_f1: float | None = None
    test_balanced_accuracy: float | None = None
    test_macro_f1: float | None = None
    average_val_balanced_accuracies: tuple[float, ...] = ()
    average_val_macro_f1s: tuple[float, ...] = ()

    @property
    def val(self) -> Scores:
        """The metrics on validation."""
        return Scores(self.val_accuracy, self.val_balanced_accuracy, self.val_macro_f1)

    @property
    def test(self) -> Scores | None:
        """The metrics on test; None without a test set."""
        if self.test_accuracy is None:
            return None
        return Scores(self.test_accuracy, self.test_balanced_accuracy, self.test_macro_f1)

    def averages(self, metric: Metric) -> tuple[float, ...]:
        """Return the validation values of the averaged weights."""
        found: tuple[float, ...] = getattr(self, AVERAGES[metric])
        return found


@dataclass(frozen=True)
class Judging:
    """How trainings are judged.

    By which epoch (None: by their own rule), whether with mirrored test images as well, and by which metric.
    """

    objective: Objective | None = None
    mirror: bool = False
    metric: Metric = "accuracy"


@dataclass(frozen=True)
class ReadoutScore:
    """What one readout of a training reached: its weights as they are, `PLAIN`, or an average, ``average:SPAN``.

    ``epoch`` is its best one, ``val`` has the validation metrics there, smoothed as the objective is, and ``test``
    those on test; None without a test set.
    """

    readout: str
    epoch: int
    val: Scores
    test: Scores | None


class Best(NamedTuple):
    """An epoch and the value of the objective at it."""

    epoch: int
    value: float


def smoothed(values: Sequence[float], epoch: int, objective: Objective = "best") -> float:
    """Return a metric's value at a (1-based) epoch, as the objective takes it: the mean over the window, or its own."""
    return values[epoch - 1] if objective == "last" else fmean(values[max(0, epoch - WINDOW) : epoch])


def best_epoch(val_accuracies: Sequence[float], first_counting: int = 1, objective: Objective = "best") -> Best | None:
    """Return the epoch that a user would deploy and its accuracy, or None before the first epoch that counts.

    It is the epoch with the highest mean validation accuracy of itself and the epoch before it (itself alone for the
    first epoch), the earliest on ties: the same function for every arm and phase, because a window that left the
    warm-up out for some would favour one of them (``benchmarks/best_epoch.py``). With ``objective="last"`` it is the
    last epoch and its own validation accuracy.

    Args:
        val_accuracies: Validation accuracy of epochs 1, 2, ... so far, or another metric; epochs that diverged left
            out.
        first_counting: The first (1-based) epoch that may be chosen.
        objective: ``best`` or ``last``.
    """
    last = len(val_accuracies)
    if last < first_counting:
        return None
    if objective == "last":
        return Best(last, val_accuracies[-1])
    means = [smoothed(val_accuracies, epoch) for epoch in range(first_counting, last + 1)]
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
