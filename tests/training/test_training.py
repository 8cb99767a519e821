import copy
import os
import random
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judged import correct_bits
from squares import squares
from torch import Tensor
from torch.nn import functional

from nls_tune.datasets import NoisyDataset, load_source, make_noisy
from nls_tune.errors import InputError
from nls_tune.metrics import Judging
from nls_tune.noise.levels import parse_noise_level
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.data import DeviceData
from nls_tune.training.devices import keep_freed_memory, resolve_precision
from nls_tune.training.training import Training, check_fit


def make_twonorm() -> NoisyDataset:
    return make_noisy(load_source("twonorm"), parse_noise_level("symmetric:0.3"), train_size=300)


@pytest.fixture(scope="module")
def twonorm() -> NoisyDataset:
    return make_twonorm()


@pytest.fixture(scope="module")
def images() -> NoisyDataset:
    return squares()


def flat(**changes: Any) -> TrainingSettings:
    values = {"model": "mlp", "epochs": 4, "warmup_epochs": 2, "smooth_rate": -1.0, "lr": 0.01, "warmup_lr": 0.05,
              "batch_size": 64, "weight_decay": 0.01}  # fmt: skip
    return TrainingSettings(**{**values, **changes})


def image_settings(**changes: Any) -> TrainingSettings:
    # One precision on every processor: auto is bfloat16 on some.
    values = {
        "model": "small_cnn", "batch_size": 20, "crop_padding": 2, "flip": True, "cutout": 4, "precision": "float32",
    }  # fmt: skip
    return flat(**{**values, **changes})


@pytest.fixture(params=["twonorm", "images"])
def case(request: pytest.FixtureRequest) -> tuple[NoisyDataset, TrainingSettings]:
    return request.getfixturevalue(request.param), flat() if request.param == "twonorm" else image_settings()


def trained(dataset: NoisyDataset, settings: TrainingSettings, epochs: int | None = None) -> Training:
    training = Training(dataset, settings)
    for _ in range(settings.epochs if epochs is None else epochs):
        training.run_epoch()
    return training


def weights(training: Training) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in training.model.state_dict().items()}


def assert_same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def numbers(training: Training) -> list[dict[str, Any]]:
    """The metrics that must not depend on when and where they were computed."""
    return [{k: v for k, v in vars(m).items() if k not in ("seconds", "peak_memory_bytes")} for m in training.history]


def batches_of(training: Training, epochs: int = 1) -> list[Tensor]:
    """Train, and return the batches that the network was trained on."""
    batches: list[Tensor] = []

    def look(module: torch.nn.Module, inputs: tuple[Tensor]) -> None:
        if module.training:
            batches.append(inputs[0].detach().clone())

    handle = training.model.register_forward_pre_hook(look)
    for _ in range(epochs):
        training.run_epoch()
    handle.remove()
    return batches


CASES = {
    "mlp": flat(schedule="cosine"),
    "elr": flat(loss="elr", smooth_rate=0.0, elr_beta=0.9),
    "elr without a warm-up": flat(loss="elr", smooth_rate=0.0, warmup_epochs=0),
    "gce": flat(loss="gce", smooth_rate=0.0),
    "adamw": flat(optimizer="adamw", clip_norm=0.5, schedule="step", milestones=(1,)),
    "small_cnn": image_settings(),
    "cnn9": image_settings(model="cnn9", epochs=3, warmup_epochs=1, optimizer="adamw", lr=1e-3, warmup_lr=1e-3),
    # Seven steps per epoch, so that averages take in a step in the middle of an epoch.
    "averages": image_settings(
        batch_size=5, average_spans=(1.0, 0.2), padding_mode="reflect", alternate_flip=True, norm_bias_lr_factor=8.0
    ),
    "fast_cnn": image_settings(
        model="fast_cnn_small",
        batch_size=5,
        schedule="one_cycle",
        average_spans=(0.5,),
        alternate_flip=True,
        norm_bias_lr_factor=64.0,
        padding_mode="reflect",
        lr=1e-3,
        warmup_lr=2e-3,
    ),
}
#: How the trainings with averages are judged; the second one by its last epoch, because of its schedule.
JUDGING = {"averages": Judging("best", mirror=True), "fast_cnn": Judging(mirror=True)}
STOPS = [(name, stop) for name, s in CASES.items() for stop in range(s.epochs)]

CHILD = """
import sys, torch
import test_training as t
torch.set_num_threads(1)
states = torch.load(sys.argv[1], weights_only=True)
for (name, stop), state in states.items():
    training = t.continued_from(name, state)
    while not training.finished:
        training.run_epoch()
    states[name, stop] = training.state_dict()
torch.save(states, sys.argv[1])
"""


def new_training(name: str) -> Training:
    data = make_twonorm() if CASES[name].model == "mlp" else squares(32, 12, 12, 16 if name == "fast_cnn" else 12)
    return Training(data, CASES[name], judging=JUDGING.get(name, Judging()))


def continued_from(name: str, state: dict[str, Any]) -> Training:
    training = new_training(name)
    training.load_state_dict(state)
    return training


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Training], dict[tuple[str, int], Training]]:
    """Every case trained in one go, and saved at every stop and continued in another process."""
    file, states = tmp_path_factory.mktemp("states") / "states.pt", {}
    whole = {name: new_training(name) for name in CASES}
    for name, training in whole.items():
        while not training.finished:
            states[name, training.epoch] = copy.deepcopy(training.state_dict())
            training.run_epoch()
    torch.save(states, file)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    done = subprocess.run([sys.executable, "-c", CHILD, file], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done_states = torch.load(file, weights_only=True)
    return whole, {(name, stop): continued_from(name, state) for (name, stop), state in done_states.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stop"), STOPS)
def test_a_training_that_was_stopped_and_continued_elsewhere_is_the_same_bit_by_bit(continued, name, stop):
    whole, parts = continued
    assert_same_weights(weights(parts[name, stop]), weights(whole[name]))
    assert numbers(parts[name, stop]) == numbers(whole[name])
    assert len(numbers(whole[name])) == CASES[name].epochs
    for epoch in range(1, CASES[name].epochs + 1):
        assert correct_bits(parts[name, stop], epoch) == correct_bits(whole[name], epoch)
    assert readouts(parts[name, stop]) == readouts(whole[name])
    assert_same_weights(parts[name, stop].state_dict().get("loss", {}), whole[name].state_dict().get("loss", {}))


def readouts(training: Training) -> list[Any]:
    """All that is known of averaged weights and of mirror images."""
    state = training.readouts.state_dict()
    bits = {epoch: [None if b is None else b.tolist() for b in both] for epoch, both in state["correct"].items()}
    averages = [{name: value.tolist() for name, value in m.items()} for m in state["averages"]["models"]]
    return [training.readouts.scores(training.history), averages, bits, state["mirrored"]]


def test_a_state_of_version_0_1_goes_on(twonorm):
    whole, half = trained(twonorm, flat()), trained(twonorm, flat(), 3)
    state = half.state_dict()
    for group in state["optimizer"]["param_groups"]:
        del group["lr_factor"]
    for metrics in state["history"]:
        del metrics["average_val_accuracies"]
    again = Training(twonorm, flat())
    again.load_state_dict(state)
    again.run_epoch()
    assert_same_weights(weights(again), weights(whole))
    assert numbers(again) == numbers(whole)


def test_trainings_that_take_over_one_state_share_nothing(twonorm):
    first = trained(twonorm, flat(), 3)
    state, taken = first.state_dict(), [Training(twonorm, flat()) for _ in range(2)]
    for training in taken:
        training.load_state_dict(state)
        training.run_epoch()
    first.run_epoch()
    for training in taken:
        assert_same_weights(weights(training), weights(first))
        assert numbers(training) == numbers(first)


def test_a_state_of_another_training_is_refused(twonorm):
    state = Training(twonorm, flat()).state_dict()
    for changes in ({"lr": 0.02}, {"seed": 1}, {"epochs": 9}):
        with pytest.raises(InputError, match="another settings") as caught:
            Training(twonorm, flat(**changes)).load_state_dict(state)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError, match="another fingerprint"):
        Training(replace(twonorm, fingerprint="other"), flat()).load_state_dict(state)
    with pytest.raises(InputError, match="another version"):
        Training(twonorm, flat()).load_state_dict({**state, "version": 99})
    with pytest.raises(InputError):
        Training(twonorm, flat()).load_state_dict({})


def test_another_seed_gives_another_start_and_each_seed_and_epoch_another_order(twonorm):
    first, second = Training(twonorm, flat()), Training(twonorm, flat(seed=1))
    assert not torch.equal(next(first.model.parameters()), next(second.model.parameters()))
    batches = batches_of(first, 2)
    assert not torch.equal(batches[0], batches_of(second)[0])
    assert not torch.equal(batches[0], batches[len(batches) // 2])


def test_order_and_augmentation_depend_on_seed_and_epoch_alone(images):
    changes = {"lr": 0.5, "warmup_epochs": 0, "smooth_rate": 0.5, "epochs": 9, "optimizer": "adamw"}
    first = batches_of(Training(images, image_settings()), 3)
    second = batches_of(Training(images, image_settings(**changes)), 3)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_the_callers_random_numbers_are_left_alone_and_have_no_influence():
    results = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        training = trained(squares(24, 8, 8), image_settings(model="cnn9"), 1)
        training.load_state_dict(training.state_dict())
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        assert np.random.get_state()[1].tolist() == before[2]
        results.append(training)
    assert_same_weights(*map(weights, results))
    assert numbers(results[0]) == numbers(results[1])


@pytest.mark.parametrize(
    ("num_train", "batch_size", "sizes"),
    [
        (300, 64, [64, 64, 64, 64, 44]),
        (300, 100, [100, 100, 100]),
        (300, 299, [300]),
        (300, 300, [300]),
        (299, 149, [149, 150]),
        (3, 2, [3]),
    ],
)
def test_every_sample_is_used_once_an_epoch(twonorm, num_train, batch_size, sizes):
    data = replace(twonorm, train_indices=twonorm.train_indices[:num_train])
    training = Training(data, flat(batch_size=batch_size))
    batches = batches_of(training)
    assert [len(b) for b in batches] == sizes
    seen = torch.cat(batches)
    expected = training.data.train_inputs
    assert torch.equal(seen[seen[:, 0].argsort()], expected[expected[:, 0].argsort()])


def standardised(dataset: NoisyDataset, inputs: np.ndarray) -> np.ndarray:
    mean, std = dataset.input_mean, dataset.input_std
    if inputs.dtype == np.uint8:
        return (inputs / 255 - mean[:, None, None]) / std[:, None, None]
    return (inputs - mean) / std


def test_without_augmentation_inputs_are_only_standardised(case):
    data, settings = case
    settings = settings.model_copy(update={"crop_padding": 0, "flip": False, "cutout": 0})
    batch = torch.cat(batches_of(Training(data, settings))).contiguous().numpy()
    expected = standardised(data, data.inputs[data.train_indices])
    assert np.sort(batch, axis=0) == pytest.approx(np.sort(expected, axis=0), abs=1e-4)


@pytest.mark.parametrize("part", ["crop_padding", "flip", "cutout"])
def test_each_part_of_the_augmentation_changes_what_is_trained_on(images, part):
    off = {"crop_padding": 0, "flip": False, "cutout": 0}
    plain = batches_of(Training(images, image_settings(**off)))
    changed = batches_of(Training(images, image_settings(**{**off, part: image_settings().model_dump()[part]})))
    assert not torch.equal(plain[0], changed[0])


def flips_of(training: Training, epoch: int) -> Tensor:
    """Which training samples an epoch flips, in the order of the samples."""
    order, draws = training.source.draw(epoch, training.generator)
    assert draws is not None
    flips = torch.empty(len(order), dtype=torch.bool)
    flips[order] = draws.flip
    return flips


def test_alternate_flips_show_an_image_in_both_ways_in_two_epochs():
    data = squares(400, 8, 8)
    training = Training(data, image_settings(alternate_flip=True))
    first = flips_of(training, 1)
    assert 160 < first.sum() < 240  # half of 400, by four deviations
    for epoch in range(1, 7):
        assert torch.equal(flips_of(training, epoch), first if epoch % 2 else ~first)
    assert not torch.equal(flips_of(Training(data, image_settings(alternate_flip=True, seed=1)), 1), first)
    plain = Training(data, image_settings())
    assert not torch.equal(flips_of(plain, 1), ~flips_of(plain, 2))
    (order, draws), (other_order, others) = (t.source.draw(3, t.generator) for t in (training, plain))
    assert torch.equal(order, other_order)  # everything else is drawn as ever
    assert torch.equal(draws.crop_x, others.crop_x)


@pytest.mark.parametrize("changes", [{"padding_mode": "reflect"}, {"alternate_flip": True}])
def test_settings_of_the_augmentation_change_what_is_trained_on(images, changes):
    plain, changed = (batches_of(Training(images, image_settings(**c)), 2) for c in ({}, changes))
    assert not all(torch.equal(a, b) for a, b in zip(plain, changed, strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_biases_of_batch_norm_have_a_learning_rate_of_their_own_and_the_same_decay(images, optimizer):
    plain, quick = (
        Training(images, image_settings(norm_bias_lr_factor=f, optimizer=optimizer, weight_decay=0.1)) for f in (1, 8)
    )
    biases = {name for name, m in quick.model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    start = weights(quick)
    (others, norms) = quick.optimizer.param_groups
    assert len(plain.optimizer.param_groups) == 1
    assert len(norms["params"]) == len(biases) == 3
    assert len(others["params"]) + 3 == len(list(quick.model.parameters()))
    for training in (plain, quick):
        training.run_epoch()
    assert (norms["lr"], others["lr"]) == (pytest.approx(8 * 0.05), 0.05)
    assert norms["lr"] * norms["weight_decay"] == pytest.approx(others["lr"] * others["weight_decay"])
    name = f"{min(biases)}.bias"
    moved = [(weights(t)[name] - start[name]).abs().mean().item() for t in (plain, quick)]
    assert moved[1] > 3 * moved[0]


def test_the_learning_rate_of_a_cycle_is_set_step_by_step(twonorm, monkeypatch):
    settings = flat(schedule="one_cycle")
    training, seen = Training(twonorm, settings), []
    zero_grad = torch.optim.SGD.zero_grad

    def look(self: torch.optim.SGD, set_to_none: bool = True) -> None:
        seen.append(self.param_groups[0]["lr"])
        zero_grad(self, set_to_none)

    monkeypatch.setattr(torch.optim.SGD, "zero_grad", look)
    while not training.finished:
        training.run_epoch()
    # 300 samples in batches of 64: five steps per epoch.
    assert seen == [settings.learning_rate(epoch, step / 5) for epoch in range(1, 5) for step in range(5)]


def reference(training: Training, dataset: NoisyDataset) -> tuple[torch.nn.Module, list[float]]:
    """Train a copy with torch's own loss on soft targets, on the batches that the training sees."""
    s, model = training.settings, copy.deepcopy(training.model)
    order = training.data.train_inputs
    labels = training.data.train_labels
    losses = []

    def new_optimizer() -> torch.optim.Optimizer:
        if s.optimizer == "adamw":
            return torch.optim.AdamW(model.parameters(), weight_decay=s.weight_decay)
        return torch.optim.SGD(
            model.parameters(), momentum=s.momentum, nesterov=s.nesterov, weight_decay=s.weight_decay
        )

    optimizer = new_optimizer()
    for epoch in range(1, s.epochs + 1):
        if epoch == s.warmup_epochs + 1:
            optimizer = new_optimizer()
        rate = s.smooth_rate if epoch > s.warmup_epochs else 0.0
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate(epoch)
        total = 0.0
        for batch in batches_of(training):
            index = torch.cdist(batch, order).argmin(1)
            k = dataset.num_classes
            target = (1 - rate) * functional.one_hot(labels[index], k) + rate / k
            loss = functional.cross_entropy(model(batch), target)
            optimizer.zero_grad()
            loss.backward()
            if s.clip_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), s.clip_norm)
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / dataset.num_train)
    return model, losses


@torch.no_grad()
def largest_gap(a: torch.nn.Module, b: torch.nn.Module) -> float:
    return max((p - q).abs().max().item() for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"smooth_rate": 0.0},
        {"smooth_rate": 0.6, "schedule": "cosine", "warmup_epochs": 0},
        {"optimizer": "adamw", "clip_norm": 0.3, "lr": 1e-3, "warmup_lr": 1e-2, "warmup_milestones": (1,)},
        {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
    ],
)
def test_training_is_cross_entropy_and_then_the_gls_loss_with_a_fresh_optimiser(twonorm, changes):
    training = Training(twonorm, flat(**changes))
    model, losses = reference(training, twonorm)
    assert largest_gap(training.model, model) < 1e-4
    assert [m.train_loss for m in training.history] == pytest.approx(losses, abs=1e-4)


@pytest.mark.parametrize("changes", [{"smooth_rate": 0.8, "lr": 0.001}, {"epochs": 9, "warmup_epochs": 7}])
def test_trainings_that_share_a_warmup_agree_through_it(case, changes):
    data, settings = case
    first, second = Training(data, settings), Training(data, settings.model_copy(update=changes))
    for _ in range(2):
        first.run_epoch()
        second.run_epoch()
        assert_same_weights(weights(first), weights(second))
        assert numbers(first) == numbers(second)
    first.run_epoch()
    second.run_epoch()
    assert numbers(first)[-1] != numbers(second)[-1]


def test_training_learns(twonorm, images):
    flat_settings = flat(epochs=8, warmup_epochs=4, smooth_rate=-0.5, batch_size=32)
    plain_images = image_settings(epochs=6, smooth_rate=0.1, crop_padding=0, flip=False, cutout=0)
    for data, settings in ((twonorm, flat_settings), (images, plain_images)):
        assert trained(data, settings).history[-1].test_accuracy > 0.75


@torch.no_grad()
def predictions(training: Training, dataset: NoisyDataset) -> list[Tensor]:
    """Predict with the network as it is now, all samples at once, inputs prepared by numpy."""
    training.model.eval()
    parts = (standardised(dataset, part) for part in (dataset.inputs[dataset.val_indices], dataset.test_inputs))
    return [training.model(torch.from_numpy(part.astype(np.float32))) for part in parts]


def test_metrics_and_bits_are_those_of_the_predictions(case):
    data, settings = case
    training, kept = Training(data, settings), []
    for epoch in range(1, 4):
        metrics = training.run_epoch()
        val, test = predictions(training, data)
        labels = torch.from_numpy(data.noisy_labels[data.val_indices])
        val_correct = (val.argmax(1) == labels).numpy()
        test_correct = test.argmax(1).numpy() == data.test_labels
        bits = tuple(np.packbits(correct).tobytes() for correct in (val_correct, test_correct))
        assert correct_bits(training, epoch) == bits
        kept.append(bits)
        assert metrics.val_accuracy == val_correct.mean()
        assert metrics.test_accuracy == test_correct.mean()
        assert metrics.val_loss == pytest.approx(functional.cross_entropy(val, labels).item(), rel=1e-4)
        assert (metrics.epoch, metrics.phase) == (epoch, settings.phase(epoch))
        assert metrics.lr == settings.learning_rate(epoch)
        assert not metrics.diverged
        assert metrics.seconds > 0
        assert metrics.peak_memory_bytes > 2**20
        assert 0 <= metrics.train_accuracy <= 1
    assert [correct_bits(training, epoch) for epoch in (1, 2, 3)] == kept
    assert [m.epoch for m in training.history] == [1, 2, 3]
    assert training.curve() == [m.val_accuracy for m in training.history]


def test_without_a_test_set_nothing_is_said_of_it(twonorm):
    data = replace(twonorm, test_inputs=None, test_labels=None)
    training = trained(data, flat(), 2)
    assert [m.test_accuracy for m in training.history] == [None, None]
    assert correct_bits(training, 1)[1] is None
    again = Training(data, flat())
    again.load_state_dict(training.state_dict())
    assert correct_bits(again, 2) == correct_bits(training, 2)
    with_test = trained(twonorm, flat(), 2)
    assert_same_weights(weights(training), weights(with_test))


def test_bfloat16_trains_on_the_cpu_too(images):
    training = trained(images, image_settings(precision="bfloat16"), 2)
    assert not training.diverged
    assert {p.dtype for p in training.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("asked", "capabilities", "images", "expected"),
    [
        ("auto", {"avx512_bf16": True}, True, "bfloat16"),
        ("auto", {"amx_bf16": True}, True, "bfloat16"),
        ("auto", {"avx512_bf16": True}, False, "float32"),
        ("auto", {"avx512_f": True}, True, "float32"),
        ("float32", {"avx512_bf16": True}, True, "float32"),
        ("bfloat16", {}, False, "bfloat16"),
        ("auto", None, True, "float32"),  # a torch that does not know its processor
    ],
)
def test_auto_is_what_the_processor_computes_fast(monkeypatch, asked, capabilities, images, expected):
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_precision(asked, torch.device("cpu"), images=images) == expected


def test_a_training_ends_after_its_epochs(twonorm):
    training = trained(twonorm, flat())
    assert (training.epoch, training.finished, training.diverged) == (4, True, False)
    with pytest.raises(RuntimeError, match="finished after epoch 4"):
        training.run_epoch()


def test_divergence_is_an_outcome_that_is_saved(twonorm):
    training = Training(twonorm, flat(epochs=40, smooth_rate=-8.0, lr=1e4))
    while not training.finished:
        training.run_epoch()
    assert training.diverged
    assert 2 < training.epoch < 40
    assert [m.diverged for m in training.history] == [False] * (training.epoch - 1) + [True]
    # NaN logits score one class: an accuracy that must not count.
    assert len(training.curve()) == training.epoch - 1
    again = Training(twonorm, training.settings)
    again.load_state_dict(training.state_dict())
    for ended in (training, again):
        assert (ended.diverged, ended.finished) == (True, True)
        with pytest.raises(RuntimeError, match="finished"):
            ended.run_epoch()


def test_large_numbers_that_are_finite_are_no_divergence(twonorm):
    training = Training(twonorm, flat(lr=1e-12, warmup_epochs=0, weight_decay=0.0))
    with torch.no_grad():
        training.model[-1].bias += 1e15
    assert not training.run_epoch().diverged


@pytest.mark.parametrize(
    ("settings", "shape", "fragments"),
    [
        ({"batch_size": 101}, (3, 12, 12), ["batch_size", "100", "got 101"]),
        ({"crop_padding": 1}, (20,), ["crop_padding", "(20,)"]),
        ({"flip": True}, (20,), ["flip", "(20,)"]),
        ({"cutout": 1}, (20,), ["cutout", "(20,)"]),
        ({"crop_padding": 13}, (3, 12, 16), ["crop_padding", "12", "got 13"]),
        ({"cutout": 13}, (3, 16, 12), ["cutout", "12", "got 13"]),
    ],
)
def test_settings_that_do_not_fit_the_data_are_named(settings, shape, fragments):
    with pytest.raises(InputError) as caught:
        check_fit(TrainingSettings(**{"batch_size": 50, **settings}), 100, shape)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_settings_at_the_limits_fit_and_a_training_checks_that_its_own_do(twonorm):
    check_fit(TrainingSettings(batch_size=100, crop_padding=12, cutout=12, flip=True), 100, (3, 12, 12))
    check_fit(TrainingSettings(batch_size=100), 100, (20,))
    with pytest.raises(InputError, match="batch_size"):
        Training(twonorm, flat(batch_size=301))
    with pytest.raises(InputError, match="small_cnn"):
        Training(twonorm, flat(model="small_cnn"))


@pytest.mark.parametrize(("field", "wrong"), [("noisy_labels", 2), ("noisy_labels", -100), ("test_labels", 2)])
def test_a_label_that_is_no_class_is_refused_when_the_data_are_loaded(twonorm, field, wrong):
    labels = getattr(twonorm, field).copy()
    labels[-1] = wrong
    with pytest.raises(InputError, match=r"labels of twonorm must be 0 to 1, got .*; renumber them"):
        DeviceData.load(replace(twonorm, **{field: labels}), "cpu")


def test_read_only_arrays_are_taken_without_a_warning_and_left_as_they_are(case):
    data, settings = case
    arrays = {name: value.copy() for name, value in vars(data).items() if isinstance(value, np.ndarray)}
    for array in arrays.values():
        array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training = trained(replace(data, **arrays), settings, 1)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, getattr(data, name))
    assert_same_weights(weights(training), weights(trained(data, settings, 1)))


def test_the_probabilities_are_those_of_the_predictions(case):
    dataset, settings = case
    training = trained(dataset, settings, 1)
    found = training.predict_probabilities(training.data.val_inputs)
    assert (found.dtype, found.shape) == (torch.float32, (dataset.num_val, dataset.num_classes))
    torch.testing.assert_close(found.sum(1), torch.ones(dataset.num_val))
    correct = (found.argmax(1) == training.data.val_labels).numpy()
    np.testing.assert_array_equal(np.packbits(correct), np.frombuffer(correct_bits(training, 1)[0], np.uint8))
    training.model.train()  # whatever mode the model is in
    torch.testing.assert_close(training.predict_probabilities(training.data.val_inputs), found)


def test_flat_inputs_are_evaluated_alike_whatever_the_batch(twonorm, monkeypatch):
    found = []
    for size in (250, 2000):
        monkeypatch.setattr("nls_tune.training.evaluation._BATCH", size)
        training = trained(twonorm, flat(), 1)
        metrics = training.history[0]
        found.append((metrics.val_accuracy, metrics.test_accuracy, correct_bits(training, 1), metrics.val_loss))
    assert found[0][:3] == found[1][:3]
    assert found[0][3] == pytest.approx(found[1][3], rel=1e-6)  # a sum of other parts: its last bits may differ


_FAULTS = """
import resource, torch
from nls_tune.training.devices import keep_freed_memory
def faults():
    for step in range(30):
        if step == 10:  # a block must be aligned, so the heap grows a few times before it fits
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(12_000_000)  # 48 MB, more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), keep_freed_memory(), faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_asking_the_kernel():
    done = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True, timeout=60)
    usual, kept, without = done.stdout.split()
    pages = 20 * 48_000_000 // 4096
    assert kept == "True"
    assert int(without) < 0.1 * pages < 0.9 * pages < int(usual)


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()
