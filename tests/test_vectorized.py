"""Batched trainings against the same trainings one by one."""

import dataclasses

import numpy as np
import pytest
import torch

from nls_tune import InputError, TrainingSettings, load_dataset
from nls_tune.training import Training
from nls_tune.vectorized import VectorizedTraining

MLP = TrainingSettings(
    model="mlp", epochs=4, warmup_epochs=1, warmup_lr=0.02, lr=0.01, batch_size=100, weight_decay=1e-3
)
CNN = MLP.model_copy(update={"model": "small_cnn", "epochs": 2, "crop_padding": 1, "precision": "float32"})


@pytest.fixture(scope="module")
def twonorm():
    return small(load_dataset("twonorm", "symmetric:0.2", train_size=450))


@pytest.fixture(scope="module")
def digits():
    return small(load_dataset("digits", "symmetric:0.2", train_size=250))


def small(data, size=300):
    return dataclasses.replace(
        data,
        val_indices=data.val_indices[:size],
        test_inputs=data.test_inputs[:size],
        test_labels=data.test_labels[:size],
    )


def change(settings, **values):
    return settings.model_copy(update=values)


def alone(dataset, settings):
    training = Training(dataset, settings)
    while not training.finished:
        training.run_epoch()
    return training


def together(dataset, settings, **more):
    training = VectorizedTraining(dataset, settings, **more)
    while not training.finished:
        training.run_epoch()
    return training


def assert_same(member, training):
    assert len(member.history) == len(training.history)
    for ours, theirs in zip(member.history, training.history, strict=True):
        assert (ours.epoch, ours.phase, ours.lr) == (theirs.epoch, theirs.phase, theirs.lr)
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-4, abs=1e-5)
        assert ours.val_loss == pytest.approx(theirs.val_loss, rel=1e-4, abs=1e-5)
        # A sample on the border may fall to the other side.
        assert ours.val_accuracy == pytest.approx(theirs.val_accuracy, abs=0.01)
        assert ours.test_accuracy == pytest.approx(theirs.test_accuracy, abs=0.02)


@pytest.mark.parametrize(
    "change_of",
    [
        {"smooth_rate": [0.6, 0.0, -0.4, -2.0]},
        {"lr": [1e-4, 1e-3, 1e-2]},
        {"warmup_epochs": [0, 1, 3]},
        {"seed": [0, 1, 2]},
        {"schedule": ["constant", "cosine"]},
    ],
    ids=lambda c: next(iter(c)),
)
def test_every_member_is_the_training_that_would_run_alone(twonorm, change_of):
    (name, values), *_ = change_of.items()
    settings = [change(MLP, **{name: value}) for value in values]
    batch = together(twonorm, settings)
    for member, each in zip(batch.members, settings, strict=True):
        assert_same(member, alone(twonorm, each))


@pytest.mark.parametrize("values", [{"momentum": 0.0, "nesterov": False}, {"nesterov": False}, {"clip_norm": 0.1}])
def test_the_optimiser_is_that_of_torch(twonorm, values):
    settings = [change(MLP, smooth_rate=rate, **values) for rate in (0.2, -1.0)]
    batch = together(twonorm, settings)
    for member, each in zip(batch.members, settings, strict=True):
        assert_same(member, alone(twonorm, each))


def test_twenty_steps_give_the_same_weights(twonorm):
    settings = [change(MLP, epochs=5, smooth_rate=rate, seed=seed) for rate in (0.3, -0.6) for seed in (0, 1)]
    batch = together(twonorm, settings)  # 5 epochs of 5 steps
    for index, each in enumerate(settings):
        expected = alone(twonorm, each).model.state_dict()
        for name, value in batch.warm_state(index).model.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)], ids=["one seed", "two seeds"])
def test_networks_with_batch_norm_and_augmentation(digits, seeds):
    settings = [change(CNN, smooth_rate=rate, seed=seed) for rate, seed in zip((0.2, -0.5), seeds, strict=True)]
    batch = together(digits, settings)
    for member, each in zip(batch.members, settings, strict=True):
        assert_same(member, alone(digits, each))


def test_members_start_from_a_warm_up_that_they_share(twonorm):
    warmup = VectorizedTraining(twonorm, [change(MLP, warmup_epochs=2)])
    warmup.run_epoch()
    warmup.run_epoch()
    settings = [change(MLP, warmup_epochs=2, smooth_rate=rate) for rate in (0.0, -1.0)]
    batch = VectorizedTraining(twonorm, settings, warm=warmup.warm_state(0))
    assert batch.epoch == 2
    while not batch.finished:
        batch.run_epoch()
    for member, each in zip(batch.members, settings, strict=True):
        assert_same(member, alone(twonorm, each))


def test_a_member_that_diverges_does_not_touch_the_others(twonorm):
    settings = [change(MLP, smooth_rate=rate, lr=lr) for rate, lr in ((0.1, 0.01), (-8.0, 5.0))]
    batch = together(twonorm, settings)
    assert [m.diverged for m in batch.members] == [False, True]
    assert_same(batch.members[0], alone(twonorm, settings[0]))


def test_the_bits_are_those_of_the_accuracy(twonorm):
    batch = together(twonorm, [MLP, change(MLP, smooth_rate=-1.0)])
    for member in batch.members:
        bits = np.unpackbits(member.val_correct[-1], count=twonorm.num_val)
        assert bits.mean() == pytest.approx(member.history[-1].val_accuracy)


def test_a_finished_training_is_refused(twonorm):
    batch = together(twonorm, [change(MLP, epochs=2)])
    with pytest.raises(RuntimeError, match="finished after epoch 2"):
        batch.run_epoch()


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        ([], ["at least one", "got none"]),
        ([change(MLP, model="cnn9")], ["mlp, small_cnn", "'cnn9'"]),
        ([change(MLP, optimizer="adamw")], ["sgd", "adamw"]),
        ([change(MLP, precision="bfloat16")], ["float32", "bfloat16"]),
        ([MLP, change(MLP, batch_size=50)], ["agree in batch_size", "100", "50"]),
        ([MLP, change(MLP, epochs=9)], ["agree in epochs", "4", "9"]),
    ],
)
def test_what_cannot_be_batched_is_refused(twonorm, settings, fragments):
    with pytest.raises(InputError) as raised:
        VectorizedTraining(twonorm, settings)
    for fragment in fragments:
        assert fragment in str(raised.value)
