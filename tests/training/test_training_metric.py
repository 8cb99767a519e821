"""Trainings judged by another metric than accuracy."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

from nls_tune.datasets import NoisyDataset, load_dataset
from nls_tune.metrics import METRICS, EpochMetrics, Judging, Scores
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.training import Training


@pytest.fixture(scope="module")
def imbalanced() -> NoisyDataset:
    """Twonorm with 9 of 10 samples of one class."""
    found = load_dataset("twonorm", "symmetric:0.2", train_size=200, val_fraction=0.1)
    rare = np.flatnonzero(found.test_labels == 1)[: len(found.test_labels) // 18]
    kept = np.sort(np.concatenate([np.flatnonzero(found.test_labels == 0), rare]))
    return replace(found, test_inputs=found.test_inputs[kept], test_labels=found.test_labels[kept])


def settings(**changes: Any) -> TrainingSettings:
    values = {"model": "mlp", "epochs": 4, "warmup_epochs": 1, "smooth_rate": -0.5, "lr": 0.02, "warmup_lr": 0.05,
              "batch_size": 20, "average_spans": (0.5,)}  # fmt: skip
    return TrainingSettings(**{**values, **changes})


def expected(model: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> Scores:
    """The metrics of a network, all samples at once, by scikit-learn."""
    with torch.no_grad():
        predicted, y = model.eval()(inputs).argmax(1).numpy(), labels.numpy()
    accuracy, f1 = float((predicted == y).mean()), f1_score(y, predicted, average="macro", zero_division=0)
    return Scores(accuracy, balanced_accuracy_score(y, predicted), f1)


def test_every_epoch_has_the_metrics_of_both_readouts(imbalanced):
    training = Training(imbalanced, settings())
    while not training.finished:
        found, data = training.run_epoch(), training.data
        assert found.val == pytest.approx(expected(training.model, data.val_inputs, data.val_labels))
        assert found.test == pytest.approx(expected(training.model, data.test_inputs, data.test_labels))
        (average,) = training.readouts.averages.models
        for metric, value in expected(average, data.val_inputs, data.val_labels)._asdict().items():
            assert found.averages(metric) == (pytest.approx(value),)
        val, test = training.judged(training.epoch)
        assert val.counts.labelled == tuple(np.bincount(data.val_labels).tolist())
        assert test.scores == found.test


@pytest.mark.parametrize("metric", METRICS)
def test_the_metric_chooses_epoch_and_readout(imbalanced, metric):
    training = Training(imbalanced, settings(epochs=6, lr=0.2), judging=Judging(metric=metric))
    while not training.finished:
        training.run_epoch()
    history = training.history
    smoothed = {e: (history[e - 1].val.of(metric) + history[e - 2].val.of(metric)) / 2 for e in range(2, 7)}
    plain, average = training.readouts.scores(history)
    assert plain.epoch == max(smoothed, key=lambda epoch: smoothed[epoch])
    assert plain.val.of(metric) == pytest.approx(max(smoothed.values()))
    assert plain.test == history[plain.epoch - 1].test
    chosen = training.readouts.choose(plain, average)
    assert chosen is (average if average.val.of(metric) > plain.val.of(metric) else plain)
    for other in METRICS:  # the others are those of the same epochs
        values = [one.averages(other)[0] for one in history[average.epoch - 2 : average.epoch]]
        assert average.val.of(other) == pytest.approx(np.mean(values))


def metrics(epoch: int, accuracy: float, balanced_accuracy: float, macro_f1: float) -> EpochMetrics:
    return EpochMetrics(
        epoch, "gls", 0.1, 1.0, 0.5, 1.0, accuracy, None, diverged=False, seconds=1.0, peak_memory_bytes=1,
        val_balanced_accuracy=balanced_accuracy, val_macro_f1=macro_f1,
    )  # fmt: skip


@pytest.mark.parametrize(("metric", "epoch"), [("accuracy", 2), ("balanced_accuracy", 4), ("macro_f1", 4)])
def test_epochs_of_a_constant_prediction_win_by_accuracy_alone(imbalanced, metric, epoch):
    constant, learned = (0.9, 0.5, 0.9 / 1.9), (0.88, 0.8, 0.77)
    history = [metrics(e, *(constant if e < 3 else learned)) for e in range(1, 5)]
    training = Training(imbalanced, settings(warmup_epochs=0, average_spans=()), judging=Judging(metric=metric))
    plain, _ = training.readouts.scores(history)
    assert plain.epoch == (1 if metric == "accuracy" else epoch)


def test_warm_ups_are_shared_by_those_that_the_metric_cannot_part(imbalanced):
    def identity(metric: Any, **changes: Any) -> dict[str, Any]:
        return Training(imbalanced, settings(**changes), judging=Judging("best", metric=metric)).warmup_identity()

    assert identity("accuracy").get("metric") is None
    assert identity("macro_f1")["metric"] == "macro_f1"  # averages are judged at their best epochs
    assert identity("accuracy", average_spans=()) == identity("macro_f1", average_spans=())
    best = {"average_spans": (), "warmup_from": "best"}
    assert identity("accuracy", **best) != identity("macro_f1", **best)


def test_a_state_without_counts_goes_on_and_says_that_they_are_unknown(imbalanced):
    half, again = Training(imbalanced, settings()), Training(imbalanced, settings())
    for _ in range(2):
        half.run_epoch()
    state = half.state_dict()
    for name in ("val_counts", "test_counts"):
        del state[name]
    del state["readouts"]["counts"]
    kept = {field for field in asdict(half.history[0]) if not ("balanced" in field or "f1" in field)}
    state["history"] = [{name: value for name, value in one.items() if name in kept} for one in state["history"]]
    again.load_state_dict(state)
    assert again.judged(1)[0].counts is None
    assert again.judged(1)[0].scores == Scores(half.history[0].val_accuracy)
    plain, average = again.readouts.scores(again.history)
    before = half.readouts.scores(half.history)
    assert [one.val for one in (plain, average)] == [Scores(one.val.accuracy) for one in before]
    again.run_epoch()
    assert again.history[2].val.macro_f1 is not None
    assert again.readouts.scores(again.history)[0].val.accuracy > 0


@pytest.mark.parametrize("loss", ["gls", "elr"])
def test_balanced_weights_are_those_of_the_training_labels_and_find_the_rare_class(imbalanced, loss):
    data = imbalanced
    rare = np.flatnonzero(data.noisy_labels[data.train_indices] == 1)[:16]
    common = np.flatnonzero(data.noisy_labels[data.train_indices] == 0)
    data = replace(data, train_indices=data.train_indices[np.sort(np.concatenate([rare, common]))])
    found = {}
    for weights in ("none", "balanced"):
        given = settings(loss=loss, smooth_rate=0.0, class_weights=weights, epochs=3)
        training = Training(data, given)
        while not training.finished:
            training.run_epoch()
        found[weights] = training
    n, sizes = len(data.train_indices), np.bincount(data.noisy_labels[data.train_indices])
    np.testing.assert_allclose(found["balanced"]._loss.class_weights, n / (2 * sizes), rtol=1e-6)
    assert found["none"]._loss.class_weights is None
    recall = {name: one.judged(3)[1].counts.recalls()[1] for name, one in found.items()}
    assert recall["balanced"] > recall["none"] + 0.1
