"""What is judged of a training after each epoch: its weights as they are, and running averages of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nls_tune.metrics import (
    PLAIN,
    Best,
    BestAverage,
    EpochMetrics,
    Judging,
    Objective,
    ReadoutScore,
    best_average,
    best_epoch,
)
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.averages import WeightAverages
from nls_tune.training.evaluation import Evaluator


class Readouts:
    """A training's weights and their averages, as they are judged.

    The test samples take no part. Of the averages, and for mirror images, they are evaluated where validation has just
    found the best epoch so far, which is the only epoch that anybody asks for; and of averages only where they are
    better than the weights as they are. Where the last epoch counts, averages are judged at the last epoch alone.
    """

    def __init__(self, model: nn.Module, settings: TrainingSettings, evaluator: Evaluator, judging: Judging) -> None:
        self._model, self._settings, self._evaluator, self._mirror = model, settings, evaluator, judging.mirror
        self._objective: Objective = judging.objective or settings.objective
        self.averages = WeightAverages(model, settings.average_spans)
        self._val_correct: list[Tensor] = []
        self._correct: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
        self._mirrored: dict[int, float] = {}

    def scores(self, history: Sequence[EpochMetrics]) -> tuple[ReadoutScore | None, ReadoutScore | None]:
        """Return what the weights as they are and their best average have reached; None where no epoch counts."""
        first = self._settings.first_counting_epoch
        best, average = self._best(history, first), self._best_average(history, first)
        plain = None
        if best is not None:
            plain = ReadoutScore(PLAIN, best.epoch, best.value, history[best.epoch - 1].test_accuracy)
        if average is None:
            return plain, None
        name = f"average:{self._settings.average_spans[average.span]:g}"
        test, labels = self._correct[average.epoch][1], self._evaluator.data.test_labels
        accuracy = None
        if test is not None and labels is not None:
            accuracy = float(np.unpackbits(test, count=len(labels)).mean())
        return plain, ReadoutScore(name, average.epoch, average.value, accuracy)

    def correct_bits(self, epoch: int) -> tuple[bytes, bytes | None]:
        """Return which validation and test samples the averages get right at an epoch that was their best so far."""
        val, test = self._correct[epoch]
        return val.tobytes(), None if test is None else test.tobytes()

    def mirrored(self, epoch: int) -> float | None:
        """Return the test accuracy over images and mirror images at an epoch that was the best so far."""
        return self._mirrored.get(epoch)

    def validate(self, epoch: int) -> tuple[float, ...]:
        """Return the validation accuracy of each average after an epoch; nothing where they are not judged."""
        data, models = self._evaluator.data, self.averages.models if self._is_judged(epoch) else ()
        self._val_correct = [self._evaluator.correct(m, data.val_inputs, data.val_labels)[1] for m in models]
        # Not in float32, whose rounding would decide ties with the weights as they are.
        return tuple(int(correct.sum()) / len(correct) for correct in self._val_correct)

    def judge(self, history: Sequence[EpochMetrics]) -> None:
        """Evaluate the test samples where the epoch that has just been validated is the best so far."""
        epoch, data = len(history), self._evaluator.data
        if not self._is_judged(epoch):
            return
        # In the warm-up, which others may take over, every epoch counts, as it does for cross-entropy.
        first = 1 if self._settings.phase(epoch) == "warmup" else self._settings.first_counting_epoch
        plain, average = self._best(history, first), self._best_average(history, first)
        leads = average is not None and (plain is None or average.value > plain.value)
        if average is not None and average.epoch == epoch:
            test = None
            ends = self._objective == "last"  # then it costs little, and both can be compared
            if (leads or ends) and data.test_inputs is not None and data.test_labels is not None:
                model = self.averages.models[average.span]
                test = _bits(self._evaluator.correct(model, data.test_inputs, data.test_labels)[1])
            self._correct[epoch] = _bits(self._val_correct[average.span]), test
        if self._mirror and data.test_inputs is not None and data.test_labels is not None:
            model, best = self._model, plain
            if average is not None and leads:
                model, best = self.averages.models[average.span], Best(average.epoch, average.value)
            if best is not None and best.epoch == epoch:
                self._mirrored[epoch] = self._evaluator.mirrored_accuracy(model, data.test_inputs, data.test_labels)

    def identity(self) -> dict[str, Any]:
        """Return what decides at which epochs averages and mirror images are judged; nothing where none are."""
        identity: dict[str, Any] = {"objective": self._objective} if self._settings.average_spans else {}
        return identity | ({"mirror": True, "objective": self._objective} if self._mirror else {})

    def _is_judged(self, epoch: int) -> bool:
        return self._objective == "best" or epoch == self._settings.epochs

    def _best(self, history: Sequence[EpochMetrics], first: int) -> Best | None:
        """The best epoch of the weights as they are, of those from a first one on."""
        accuracies = [metrics.val_accuracy for metrics in history if not metrics.diverged]
        return best_epoch(accuracies, first, self._objective)

    def _best_average(self, history: Sequence[EpochMetrics], first: int) -> BestAverage | None:
        """The best epoch of the averaged weights, of those from a first one on."""
        accuracies = [metrics.average_val_accuracies for metrics in history if not metrics.diverged]
        return best_average(accuracies, first, self._objective)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue."""
        bits = {e: [None if b is None else torch.from_numpy(b) for b in both] for e, both in self._correct.items()}
        return {"averages": self.averages.state_dict(), "correct": bits, "mirrored": dict(self._mirrored)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        self.averages.load_state_dict(state["averages"])
        self._correct = {
            epoch: (val.cpu().numpy(), None if test is None else test.cpu().numpy())
            for epoch, (val, test) in state["correct"].items()
        }
        self._mirrored = dict(state["mirrored"])


def _bits(correct: Tensor) -> np.ndarray:
    """Pack bools, the first one into the most significant bit."""
    return np.packbits(correct.cpu().numpy())
