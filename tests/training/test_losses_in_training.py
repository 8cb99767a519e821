"""Trainings with other losses than GLS: their warm-up, their state, their matrix, and what they may not see."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from judged import correct_bits
from torch.nn import functional

from nls_tune.datasets import NoisyDataset, load_source, make_noisy
from nls_tune.errors import InputError
from nls_tune.losses import LOSSES
from nls_tune.noise.levels import parse_noise_level
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.training import Training

MATRIX = np.array([[0.7, 0.3], [0.3, 0.7]])


@pytest.fixture(scope="module")
def twonorm() -> NoisyDataset:
    made = make_noisy(load_source("twonorm"), parse_noise_level("symmetric:0.3"), train_size=300)
    return replace(made, transition=MATRIX)


def settings(loss: str, **changes: Any) -> TrainingSettings:
    values = {"model": "mlp", "epochs": 3, "warmup_epochs": 1, "lr": 0.01, "warmup_lr": 0.05, "batch_size": 64,
              "loss": loss, "smooth_rate": -1.0 if loss == "gls" else 0.0}  # fmt: skip
    return TrainingSettings(**{**values, **changes})


def trained(dataset: NoisyDataset, of: TrainingSettings) -> Training:
    training = Training(dataset, of)
    while not training.finished:
        training.run_epoch()
    return training


def weights(training: Training) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in training.model.state_dict().values()])


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_after_the_same_warm_up(twonorm, loss):
    found, ce = Training(twonorm, settings(loss)), Training(twonorm, settings("gls", smooth_rate=0.0))
    assert found.warmup_identity() == ce.warmup_identity()
    for training in (found, ce):
        training.run_epoch()
    assert torch.equal(weights(found), weights(ce))
    found.run_epoch()
    assert not found.diverged
    assert [m.phase for m in found.history] == ["warmup", "gls"]
    assert found.history[1].test_accuracy > 0.75


@pytest.mark.parametrize("rate", [0.0, -1.0, 0.3])
def test_class_probabilities_are_trained_on_and_the_labels_validate(twonorm, rate):
    sure = replace(twonorm, soft_labels=np.eye(2, dtype=np.float32)[twonorm.noisy_labels], noise_level="soft")
    found = [trained(one, settings("gls", smooth_rate=rate)) for one in (twonorm, sure)]
    torch.testing.assert_close(weights(found[1]), weights(found[0]), rtol=1e-3, atol=1e-4)
    unsure = replace(sure, soft_labels=np.full((len(twonorm.noisy_labels), 2), 0.5, dtype=np.float32))
    other = trained(unsure, settings("gls", smooth_rate=rate))
    assert not torch.allclose(weights(other), weights(found[0]), atol=1e-2)
    assert other.history[-1].train_loss == pytest.approx(np.log(2), abs=0.1)  # where nothing can be learned
    assert other.data.val_labels.equal(found[0].data.val_labels)


@pytest.mark.parametrize("loss", [name for name, info in LOSSES.items() if not info.takes_probabilities])
def test_other_losses_refuse_class_probabilities(twonorm, loss):
    soft = replace(twonorm, soft_labels=np.eye(2, dtype=np.float32)[twonorm.noisy_labels], noise_level="soft")
    with pytest.raises(InputError, match=f"'soft' trains on class probabilities, and loss {loss} takes one label"):
        Training(soft, settings(loss))


def test_ce_is_gls_at_rate_0(twonorm):
    assert torch.equal(
        weights(trained(twonorm, settings("ce"))), weights(trained(twonorm, settings("gls", smooth_rate=0.0)))
    )


@pytest.mark.parametrize("loss", [name for name in LOSSES if name not in ("ce", "gls")])
def test_every_other_loss_trains_differently(twonorm, loss):
    ce = weights(trained(twonorm, settings("ce")))
    assert not torch.equal(weights(trained(twonorm, settings(loss))), ce)


def test_a_warm_up_of_gls_is_taken_over_by_elr_whose_targets_then_begin_at_zero(twonorm):
    gls = Training(twonorm, settings("gls"))
    gls.run_epoch()
    taken = Training(twonorm, settings("elr"))
    taken.load_warmup(copy.deepcopy(gls.state_dict()))
    while not taken.finished:
        taken.run_epoch()
    own = trained(twonorm, settings("elr"))
    assert torch.equal(weights(taken), weights(own))
    assert torch.equal(taken.state_dict()["loss"]["targets"], own.state_dict()["loss"]["targets"])


def test_the_targets_of_elr_are_the_predictions_of_each_training_sample(twonorm):
    training = Training(twonorm, settings("elr", warmup_epochs=0, epochs=1, elr_beta=0.0))
    predicted: dict[tuple[float, ...], torch.Tensor] = {}

    def look(module: torch.nn.Module, inputs: tuple[torch.Tensor], logits: torch.Tensor) -> None:
        if module.training:
            predicted.update(zip(map(tuple, inputs[0].tolist()), logits.detach().softmax(1), strict=True))

    training.model.register_forward_hook(look)
    training.run_epoch()
    expected = torch.stack([predicted[tuple(row)] for row in training.data.train_inputs.tolist()]).clamp(1e-4, 1 - 1e-4)
    torch.testing.assert_close(training.state_dict()["loss"]["targets"], expected, atol=1e-6, rtol=1e-5)


def test_states_hold_a_loss_only_where_it_remembers_something(twonorm):
    training = Training(twonorm, settings("elr"))
    training.run_epoch()
    assert "loss" not in training.state_dict()  # a warm-up is everybody's
    training.run_epoch()
    assert training.state_dict()["loss"]["targets"].shape == (300, 2)
    assert "loss" not in trained(twonorm, settings("gls")).state_dict()


@pytest.mark.parametrize("loss", ["forward", "backward"])
def test_a_corrected_loss_needs_a_matrix(twonorm, loss):
    with pytest.raises(InputError, match="needs a transition matrix"):
        Training(replace(twonorm, transition=None), settings(loss))


def test_a_loss_of_ones_own_is_called_with_the_indices(twonorm):
    training = trained(twonorm, settings("own_loss:RememberingLoss"))
    assert training.state_dict()["loss"]["seen"].tolist() == [2] * 300


@pytest.mark.parametrize("loss", ["gls", "elr", "forward"])
def test_clean_labels_have_no_influence_on_a_trial(twonorm, loss):
    # As human noise has them: noisy labels that were not drawn from the clean ones.
    order = np.random.default_rng(0).permutation(len(twonorm.noisy_labels))
    permuted = replace(twonorm, clean_labels=twonorm.clean_labels[order], test_labels=1 - twonorm.test_labels)
    first, second = (trained(data, settings(loss)) for data in (twonorm, permuted))
    assert torch.equal(weights(first), weights(second))
    ignored = ("seconds", "peak_memory_bytes", "test_accuracy", "test_balanced_accuracy", "test_macro_f1")
    for a, b in zip(first.history, second.history, strict=True):
        assert {k: v for k, v in vars(a).items() if k not in ignored} == {
            k: v for k, v in vars(b).items() if k not in ignored
        }
        assert a.test_accuracy + b.test_accuracy == pytest.approx(1)
    assert all(correct_bits(first, epoch)[0] == correct_bits(second, epoch)[0] for epoch in (1, 2, 3))


def test_the_loss_that_is_minimised_is_the_one_that_is_named(twonorm):
    training = Training(twonorm, settings("gce", gce_q=1.0, warmup_epochs=0, batch_size=300, epochs=1))
    model = copy.deepcopy(training.model).train()
    inputs, labels = next(training.batches(1))
    p = functional.softmax(model(inputs), 1).gather(1, labels[:, None])
    assert training.run_epoch().train_loss == pytest.approx((1 - p).mean().item(), abs=1e-5)
