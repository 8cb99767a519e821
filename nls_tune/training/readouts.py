"""What is judged of a training after each epoch: its weights as they are, and running averages of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from nls_tune.metrics import (
    METRICS,
    PLAIN,
    Best,
    BestAverage,
    EpochMetrics,
    Judging,
    Objective,
    ReadoutScore,
    Scores,
    best_average,
    best_epoch,
    smoothed,
)
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.averages import WeightAverages
from nls_tune.training.evaluation import Evaluator, Judged


class Readouts:
    """A training's weights and their averages, as they are judged.

    The test samples take no part. Of the averages, and for mirror images, they are evaluated where validation has just
    found the best epoch so far, which is the only epoch that anybody asks for; and of averages only where they are
    better than the weights as they are. Where the last epoch counts, averages are judged at the last epoch alone.
    """

    def __init__(self, model: nn.Module, settings: TrainingSettings, evaluator: Evaluator, judging: Judging) -> None:
        self._model, self._settings, self._evaluator, self._mirror = model, settings, evaluator, judging.mirror
        self._objective: Objective = judging.objective or settings.objective
        self.metric = judging.metric
        self.averages = WeightAverages(model, settings.average_spans)
        self._val: list[Judged] = []
        self._judged: dict[int, tuple[Judged, Judged | None]] = {}
        self._mirrored: dict[int, float] = {}

    def scores(self, history: Sequence[EpochMetrics]) -> tuple[ReadoutScore | None, ReadoutScore | None]:
        """Return what the weights as they are and their best average have reached; None where no epoch counts."""
        first = self._settings.first_counting_epoch
        best, average = self._best(history, first), self._best_average(history, first)
        plain = None
        if best is not None:
            found = [metrics.val for metrics in history[: best.epoch]]
            plain = ReadoutScore(PLAIN, best.epoch, self._smoothed(found), history[best.epoch - 1].test)
        if average is None:
            return plain, None
        name = _name(self._settings.average_spans[average.span])
        found = [_of_average(metrics, average.span) for metrics in history[: average.epoch]]
        test = self._judged[average.epoch][1]
        return plain, ReadoutScore(name, average.epoch, self._smoothed(found), None if test is None else test.scores)

    def choose(self, plain: ReadoutScore | None, average: ReadoutScore | None) -> ReadoutScore | None:
        """Return the better of what ``scores`` returned; the weights as they are on ties."""
        if plain is None or average is None:
            return plain or average
        return average if average.val.of(self.metric) > plain.val.of(self.metric) else plain

    def averaged(self, readout: str) -> nn.Module:
        """Return the network with the averaged weights of a readout, ``average:SPAN``."""
        return self.averages.models[[_name(span) for span in self._settings.average_spans].index(readout)]

    def judged(self, epoch: int) -> tuple[Judged, Judged | None]:
        """Return what the averages make of validation and test samples at an epoch that was their best so far."""
        return self._judged[epoch]

    def mirrored(self, epoch: int) -> float | None:
        """Return the test accuracy over images and mirror images at an epoch that was the best so far."""
        return self._mirrored.get(epoch)

    def validate(self, epoch: int) -> list[Scores]:
        """Return the validation metrics of each average after an epoch; nothing where they are not judged."""
        data, models = self._evaluator.data, self.averages.models if self._is_judged(epoch) else ()
        self._val = [self._evaluator.judge(m, data.val_inputs, data.val_labels)[1] for m in models]
        return [judged.scores for judged in self._val]

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
                test = self._evaluator.judge(model, data.test_inputs, data.test_labels)[1]
            self._judged[epoch] = self._val[average.span], test
        if self._mirror and data.test_inputs is not None and data.test_labels is not None:
            model, best = self._model, plain
            if average is not None and leads:
                model, best = self.averages.models[average.span], Best(average.epoch, average.value)
            if best is not None and best.epoch == epoch:
                self._mirrored[epoch] = self._evaluator.mirrored_accuracy(model, data.test_inputs, data.test_labels)

    def identity(self) -> dict[str, Any]:
        """Return what decides at which epochs averages and mirror images are judged; nothing where none are."""
        identity: dict[str, Any] = {"objective": self._objective} if self._settings.average_spans else {}
        identity |= {"mirror": True, "objective": self._objective} if self._mirror else {}
        by_metric = bool(identity) or self._settings.warmup_from == "best"
        return identity | ({"metric": self.metric} if by_metric and self.metric != "accuracy" else {})

    def _is_judged(self, epoch: int) -> bool:
        return self._objective == "best" or epoch == self._settings.epochs

    def _best(self, history: Sequence[EpochMetrics], first: int) -> Best | None:
        """The best epoch of the weights as they are, of those from a first one on."""
        return best_epoch(self.curve(history), first, self._objective)

    def _best_average(self, history: Sequence[EpochMetrics], first: int) -> BestAverage | None:
        """The best epoch of the averaged weights, of those from a first one on."""
        values = [metrics.averages(self.metric) for metrics in history if not metrics.diverged]
        return best_average(values, first, self._objective)

    def curve(self, history: Sequence[EpochMetrics]) -> list[float]:
        """Return what epochs of the weights as they are are judged by; those that diverged are left out."""
        return [metrics.val.of(self.metric) for metrics in history if not metrics.diverged]

    def _smoothed(self, found: Sequence[Scores]) -> Scores:
        """Smooth the metrics of the epochs up to the best one as the objective is."""
        by_metric = ([one.of(metric) for one in found] for metric in METRICS)
        accuracy, *others = (smoothed(values, len(values), self._objective) for values in by_metric)
        return Scores(accuracy, *(None if math.isnan(value) else value for value in others))

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue."""
        saved = {e: [None if one is None else one.state() for one in both] for e, both in self._judged.items()}
        parts = [{e: [one and one[part] for one in both] for e, both in saved.items()} for part in (0, 1)]
        return {
            "averages": self.averages.state_dict(),
            "correct": parts[0],
            "counts": parts[1],
            "mirrored": dict(self._mirrored),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        self.averages.load_state_dict(state["averages"])
        data, counts = self._evaluator.data, state.get("counts", {})
        num_val, num_test = len(data.val_labels), 0 if data.test_labels is None else len(data.test_labels)
        self._judged = {}
        for epoch, (val, test) in state["correct"].items():
            of_val, of_test = counts.get(epoch, (None, None))
            tested = None if test is None else Judged.of_state(test, of_test, num_test)
            self._judged[epoch] = Judged.of_state(val, of_val, num_val), tested
        self._mirrored = dict(state["mirrored"])


def _name(span: float) -> str:
    return f"average:{span:g}"


def _of_average(metrics: EpochMetrics, span: int) -> Scores:
    """Return the validation metrics of an average after an epoch; NaN where it was not judged."""
    found = (metrics.averages(metric) for metric in METRICS)
    return Scores(*(values[span] if span < len(values) else math.nan for values in found))
