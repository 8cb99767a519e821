"""The warm-up's own momentum and decay, and a GLS phase that starts from the warm-up's best epoch."""

import io
from typing import Any

import pytest
import torch
from squares import squares
from test_training import image_settings, make_twonorm
from test_warmup import outcome, train

from nls_tune import TrainingSettings
from nls_tune.datasets import NoisyDataset
from nls_tune.metrics import best_epoch
from nls_tune.training.data import DeviceData
from nls_tune.training.training import Training

#: A learning rate at which validation accuracy goes up and down.
BEST = {
    "model": "mlp", "epochs": 8, "warmup_epochs": 6, "smooth_rate": -0.5, "lr": 1e-3, "warmup_lr": 0.5,
    "batch_size": 50, "warmup_from": "best", "warmup_momentum": 0.0, "warmup_weight_decay": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def twonorm() -> NoisyDataset:
    return make_twonorm()


def make(dataset: NoisyDataset, **changes: Any) -> Training:
    return Training(dataset, TrainingSettings(**{**BEST, **changes}))


def weights_of(training: Training) -> dict[str, list[Any]]:
    return {name: value.tolist() for name, value in training.model.state_dict().items()}


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_each_phase_is_trained_with_its_own_momentum_and_weight_decay(twonorm, optimizer):
    training = make(twonorm, warmup_epochs=1, epochs=2, warmup_weight_decay=0.25, weight_decay=0.5, optimizer=optimizer)
    for momentum, decay in ((0.0, 0.25), (0.9, 0.5)):
        training.run_epoch()
        for group in training.optimizer.param_groups:
            assert group["weight_decay"] == decay
            if optimizer == "sgd":
                assert (group["momentum"], group["nesterov"]) == (momentum, momentum > 0)


def test_the_gls_phase_starts_from_the_best_epoch_of_the_warm_up(twonorm):
    training, after, starts = make(twonorm), [], []
    train_epoch = training._train_epoch
    training._train_epoch = lambda epoch: (starts.append(weights_of(training)), train_epoch(epoch))[1]
    while not training.finished:
        training.run_epoch()
        after.append(weights_of(training))
    best = best_epoch(training.curve(6))
    assert best.epoch < 6  # otherwise this shows nothing
    assert starts[1:] == [*after[:5], after[best.epoch - 1], after[6]]


def test_the_copy_is_kept_while_it_is_needed_and_only_then(twonorm):
    for where, kept in (("best", [True] * 6 + [False] * 2), ("last", [False] * 8)):
        training, found = make(twonorm, warmup_from=where), []
        while not training.finished:
            training.run_epoch()
            found.append("best_warmup" in training.state_dict())
        assert found == kept


def images() -> Training:
    changes = {name: value for name, value in BEST.items() if name not in ("model", "batch_size", "warmup_lr")}
    return Training(squares(), image_settings(**changes, precision="bfloat16"))


@pytest.mark.parametrize("kind", ["flat", "images in bfloat16"])
def test_stopped_and_continued_it_is_the_same_bit_by_bit(twonorm, kind):
    def begin() -> Training:
        return make(twonorm) if kind == "flat" else images()

    through, states = begin(), {}
    while not through.finished:
        train(through, None, epochs=through.epoch + 1)
        states[through.epoch] = through_a_file(through.state_dict())
    for stop in (1, 3, 5, 6, 7):
        continued = begin()
        continued.load_state_dict(states[stop])
        train(continued, None)
        assert outcome(continued) == outcome(through), stop


def test_a_shared_warm_up_carries_its_best_epoch(twonorm, tmp_path):
    data, reused = DeviceData.load(twonorm, "cpu"), []
    for number, length in enumerate((4, 6, 5, 6)):
        settings = TrainingSettings(**BEST | {"warmup_epochs": length, "lr": 1e-3 * (1 + number)})
        shared, alone = (Training(twonorm, settings, data=data) for _ in range(2))
        train(shared, tmp_path, lengths=(4, 5, 6))
        train(alone, None)
        assert outcome(shared) == outcome(alone)
        reused.append(shared.epochs_reused)
    assert reused == [0, 4, 5, 6]
    # A training that starts from the last epoch does not pay for the copy.
    other = make(twonorm, warmup_from="last")
    train(other, tmp_path)
    assert other.epochs_reused == 0


def test_a_warm_up_that_diverges_ends_the_training(twonorm):
    training = make(twonorm, warmup_lr=1e30)
    train(training, None)
    assert (training.diverged, training.epoch) == (True, 1)
    again = make(twonorm, warmup_lr=1e30)
    again.load_state_dict(through_a_file(training.state_dict()))
    assert again.finished


def test_a_state_of_a_version_without_factors_of_the_learning_rate_goes_on(twonorm):
    first, second = make(twonorm), make(twonorm)
    train(first, None, epochs=2)
    state = through_a_file(first.state_dict())
    for group in state["optimizer"]["param_groups"]:
        del group["lr_factor"]
    second.load_state_dict(state)
    for training in (first, second):
        train(training, None)
    assert outcome(first) == outcome(second)
