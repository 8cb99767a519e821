"""Batched trainings against the same trainings one by one."""

import dataclasses
import io

import numpy as np
import pytest
import torch

from nls_tune import InputError, TrainingSettings, load_dataset
from nls_tune.spaces.batching import check_vectorizable
from nls_tune.training.data import DeviceData
from nls_tune.training.training import Training
from nls_tune.training.vectorized import VectorizedTraining

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


def members(dataset, settings):
    data = DeviceData.load(dataset, "cpu")
    return [Training(dataset, each, data=data) for each in settings]


def together(dataset, settings, epochs=10**6, **more):
    batch = VectorizedTraining(members(dataset, settings), **more)
    while not batch.finished and max(t.epoch for t in batch.trainings) < epochs:
        batch.run_epoch()
    batch.write_back()
    return batch


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
    for member, each in zip(batch.trainings, settings, strict=True):
        assert_same(member, alone(twonorm, each))


@pytest.mark.parametrize("values", [{"momentum": 0.0, "nesterov": False}, {"nesterov": False}, {"clip_norm": 0.1}])
def test_the_optimiser_is_that_of_torch(twonorm, values):
    settings = [change(MLP, smooth_rate=rate, **values) for rate in (0.2, -1.0)]
    batch = together(twonorm, settings)
    for member, each in zip(batch.trainings, settings, strict=True):
        assert_same(member, alone(twonorm, each))


def test_twenty_steps_give_the_same_weights(twonorm):
    settings = [change(MLP, epochs=5, smooth_rate=rate, seed=seed) for rate in (0.3, -0.6) for seed in (0, 1)]
    batch = together(twonorm, settings)  # 5 epochs of 5 steps
    for index, each in enumerate(settings):
        expected = alone(twonorm, each).model.state_dict()
        for name, value in batch.trainings[index].model.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)], ids=["one seed", "two seeds"])
def test_networks_with_batch_norm_and_augmentation(digits, seeds):
    settings = [change(CNN, smooth_rate=rate, seed=seed) for rate, seed in zip((0.2, -0.5), seeds, strict=True)]
    batch = together(digits, settings)
    for member, each in zip(batch.trainings, settings, strict=True):
        assert_same(member, alone(digits, each))


def test_one_step_has_the_gradients_of_each_alone(twonorm):
    one_step = change(MLP, epochs=1, warmup_epochs=0, batch_size=450, momentum=0.0, nesterov=False, lr=1.0)
    settings = [change(one_step, smooth_rate=rate, seed=seed) for rate in (0.3, -2.0) for seed in (0, 1)]
    batch = together(twonorm, settings)
    for training, each in zip(batch.trainings, settings, strict=True):
        single = alone(twonorm, each)
        start = Training(twonorm, each).model.state_dict()
        # Without momentum and with a learning rate of 1 a step is the gradient.
        for name, value in training.model.state_dict().items():
            expected = single.model.state_dict()[name] - start[name]
            torch.testing.assert_close(value - start[name], expected, rtol=1e-4, atol=1e-6)
            assert expected.abs().max() > 1e-4


@pytest.mark.parametrize(
    ("data", "settings", "seeds"),
    [("twonorm", MLP, (0, 0)), ("twonorm", MLP, (0, 1)), ("digits", CNN, (0, 1))],
    ids=["mlp, one seed", "mlp, two seeds", "small_cnn"],
)
def test_bfloat16_is_that_of_a_training_alone(data, settings, seeds, request):
    dataset = request.getfixturevalue(data)
    short = change(settings, epochs=2, precision="bfloat16")
    pair = [change(short, smooth_rate=rate, seed=seed) for rate, seed in zip((0.2, -0.5), seeds, strict=True)]
    batch = together(dataset, pair)
    for training, each in zip(batch.trainings, pair, strict=True):
        single, exact = alone(dataset, each), alone(dataset, change(each, precision="float32"))
        mine, same, other = (
            np.array([m.val_loss for m in t.history] + [m.train_loss for m in t.history])
            for t in (training, single, exact)
        )
        # Nearer to the training in bfloat16 than that is to float32, or as near as its rounding, which is 1/256.
        # That the layers compute in bfloat16 is a test of tests/test_stacked.py.
        assert np.abs(mine - same).max() <= max(np.abs(same - other).max(), 1 / 256)
        np.testing.assert_allclose(mine, same, rtol=1e-2)


@pytest.mark.parametrize(
    ("epochs", "values"), [(1, {}), (2, {}), (3, {}), (3, {"momentum": 0.0, "nesterov": False})], ids=str
)
def test_a_half_done_member_goes_on_alone(twonorm, epochs, values):
    settings = [change(MLP, warmup_epochs=2, smooth_rate=-1.0, seed=seed, **values) for seed in (0, 1)]
    batch = together(twonorm, settings, epochs=epochs)  # within the warm-up, at its end, and after it
    for training, each in zip(batch.trainings, settings, strict=True):
        buffer = io.BytesIO()
        torch.save(training.state_dict(), buffer)
        buffer.seek(0)
        continued = Training(twonorm, each)
        continued.load_state_dict(torch.load(buffer, weights_only=True))
        assert continued.epoch == epochs
        while not continued.finished:
            continued.run_epoch()
        assert_same(continued, alone(twonorm, each))


def test_members_go_on_from_where_each_of_them_is(twonorm):
    settings = [change(MLP, warmup_epochs=1, smooth_rate=rate, seed=rate > 0) for rate in (0.3, -1.0, -2.0)]
    trainings = members(twonorm, settings)
    for epochs, training in enumerate(trainings):
        for _ in range(epochs):
            training.run_epoch()
    batch = VectorizedTraining(trainings)
    while not batch.finished:
        batch.run_epoch()
    for training, each in zip(trainings, settings, strict=True):
        assert_same(training, alone(twonorm, each))


def test_each_member_ends_at_its_own_epoch(twonorm):
    settings = [change(MLP, smooth_rate=rate, seed=1 + (rate > 0)) for rate in (0.3, -1.0, -2.0)]
    batch = together(twonorm, settings, stop_at=[3, 1, 4])
    assert [t.epoch for t in batch.trainings] == [3, 1, 4]
    for training, each in zip(batch.trainings, settings, strict=True):
        single = alone(twonorm, each)
        del single.history[training.epoch :]
        assert_same(training, single)


def test_a_member_that_diverges_does_not_touch_the_others(twonorm):
    settings = [change(MLP, smooth_rate=rate, lr=lr) for rate, lr in ((0.1, 0.01), (-8.0, 5.0))]
    batch = together(twonorm, settings)
    assert [m.diverged for m in batch.trainings] == [False, True]
    for training, each in zip(batch.trainings, settings, strict=True):
        single = alone(twonorm, each)
        assert [m.diverged for m in training.history] == [m.diverged for m in single.history]
    assert_same(batch.trainings[0], alone(twonorm, settings[0]))


def test_the_bits_are_those_of_the_accuracy(twonorm):
    batch = together(twonorm, [MLP, change(MLP, smooth_rate=-1.0)])
    for member in batch.trainings:
        for bits, num, accuracy in zip(
            member.correct_bits(3),
            (twonorm.num_val, len(twonorm.test_labels)),
            (member.history[2].val_accuracy, member.history[2].test_accuracy),
            strict=True,
        ):
            assert np.unpackbits(np.frombuffer(bits, np.uint8), count=num).mean() == pytest.approx(accuracy)


def test_a_finished_training_is_refused(twonorm):
    batch = together(twonorm, [change(MLP, epochs=2)])
    with pytest.raises(RuntimeError, match="all trainings are finished"):
        batch.run_epoch()


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        ([], ["at least one", "got none"]),
        ([change(MLP, model="cnn9")], ["mlp, small_cnn", "'cnn9'"]),
        ([change(MLP, optimizer="adamw")], ["sgd", "adamw"]),
        ([MLP, change(MLP, batch_size=50)], ["agree in batch_size", "100", "50"]),
        ([MLP, change(MLP, epochs=9)], ["agree in epochs", "4", "9"]),
    ],
)
def test_what_cannot_be_batched_is_refused(settings, fragments):
    with pytest.raises(InputError) as raised:
        check_vectorizable(settings)
    for fragment in fragments:
        assert fragment in str(raised.value)


def test_a_batch_of_what_differs_is_refused(twonorm):
    first, second = MLP, change(MLP, batch_size=50)
    with pytest.raises(InputError, match="agree in batch_size"):
        VectorizedTraining(members(twonorm, [first, second]))
    with pytest.raises(InputError, match="share their data"):
        VectorizedTraining([Training(twonorm, first), Training(twonorm, first)])
