"""Estimates from trainings: that they find the noise, use nothing but noisy labels, and how the command says it."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from estimates import estimate_of
from rich.console import Console

from nls_tune import NoiseEstimate, estimate_noise, load_dataset
from nls_tune.cli.exit import run_app
from nls_tune.cli.main import app
from nls_tune.errors import InputError
from nls_tune.report.console.estimates import print_estimate
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.out_of_sample import OutOfSample

SETTINGS = TrainingSettings(model="mlp", epochs=5, lr=0.01, weight_decay=0.05)
QUICK = ("--train-size", "500", "--epochs", "4", "--folds", "2")


@pytest.fixture(scope="module")
def twonorm():
    dataset = load_dataset("twonorm", "symmetric:0.3", train_size=1_000)
    return dataclasses.replace(dataset, val_indices=dataset.val_indices[:1_000])


@pytest.fixture(scope="module")
def found(twonorm) -> NoiseEstimate:
    return estimate_noise(twonorm, SETTINGS, device="cpu")


def test_it_finds_the_noise(found, twonorm):
    used = np.concatenate([twonorm.train_indices, twonorm.val_indices])
    truth = np.mean(twonorm.clean_labels[used] != twonorm.noisy_labels[used])
    assert found.true_noise_rate == pytest.approx(truth)
    assert found.noise_rate == pytest.approx(truth, abs=0.05)
    assert found.low < found.noise_rate < found.high
    np.testing.assert_allclose(found.matrix, found.true_matrix, atol=0.1)
    assert found.noise_cancelling_rate == pytest.approx(-2 * found.noise_rate / (1 - 2 * found.noise_rate))
    assert (found.num_samples, found.num_classes, found.folds, found.model) == (2_000, 2, 3, "mlp")
    assert 0.6 < found.accuracy < 0.75
    assert len(found.best_epochs) == 3


def test_clean_labels_and_test_samples_take_no_part(found, twonorm):
    unknown = dataclasses.replace(
        twonorm, clean_labels=None, noise_rate=None, test_inputs=None, test_labels=None, noise_level="given"
    )
    again = estimate_noise(unknown, SETTINGS, device="cpu")
    assert (again.true_noise_rate, again.true_matrix) == (None, None)
    same = ("noise_rate", "low", "high", "matrix", "best_epochs", "accuracy")
    assert [getattr(again, name) for name in same] == [getattr(found, name) for name in same]


def test_validation_labels_that_are_taken_as_clean_are_not_counted(twonorm, monkeypatch):
    clean = twonorm.clean_labels
    labels = twonorm.noisy_labels.copy()
    labels[twonorm.val_indices] = clean[twonorm.val_indices]
    dataset = dataclasses.replace(twonorm, noisy_labels=labels, val_clean=True)
    every = np.sort(np.concatenate([dataset.train_indices, dataset.val_indices]))
    said = OutOfSample(every, np.eye(2, dtype=np.float32)[clean[every]], (1, 1))
    monkeypatch.setattr("nls_tune.training.estimate.predict_out_of_sample", lambda *given, **more: said)
    found = estimate_noise(dataset, SETTINGS, folds=2, device="cpu")
    assert found.num_samples == dataset.num_train == 1_000
    assert found.noise_rate == pytest.approx(0.3, abs=0.06)
    assert found.true_noise_rate == (labels != clean)[dataset.train_indices].mean()
    diluted = estimate_noise(dataclasses.replace(dataset, val_clean=False), SETTINGS, folds=2, device="cpu")
    assert diluted.noise_rate < 0.2


@pytest.mark.parametrize(("device", "looks"), [("cuda", True), ("cpu", False)])
def test_on_a_gpu_cudnn_looks_for_kernels_as_in_a_trial(twonorm, monkeypatch, device, looks):
    seen: list[bool] = []

    def predict_fold(dataset, *more):
        seen.append(torch.backends.cudnn.benchmark)
        return np.full((dataset.num_val, 2), 0.5, np.float32), 1

    monkeypatch.setattr("nls_tune.training.out_of_sample._predict_fold", predict_fold)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    estimate_noise(twonorm, SETTINGS, device=device)
    assert seen == [looks] * 3
    assert torch.backends.cudnn.benchmark is False  # whoever calls it keeps their own


def test_progress_ends_at_the_total_also_where_models_stop_early(twonorm):
    small = dataclasses.replace(
        twonorm, train_indices=twonorm.train_indices[:100], val_indices=twonorm.val_indices[:50]
    )
    settings = SETTINGS.model_copy(update={"epochs": 40, "batch_size": 16, "lr": 0.1, "weight_decay": 0.0})
    seen: list[int] = []
    estimate_noise(small, settings, folds=2, device="cpu", report=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 80
    assert len(seen) < 80


def test_few_samples_are_enough(twonorm):
    # A batch that is larger than a part is made smaller.
    small = dataclasses.replace(twonorm, train_indices=twonorm.train_indices[:60], val_indices=twonorm.val_indices[:6])
    found = estimate_noise(small, SETTINGS.model_copy(update={"batch_size": 60, "epochs": 1}), folds=2, device="cpu")
    assert found.num_samples == 66
    # Without settings the dataset has its own.
    small = load_dataset("twonorm", "clean", train_size=20, val_fraction=0.01)
    assert estimate_noise(small, folds=2, device="cpu").model == "mlp"


def test_a_training_that_diverges_is_said(twonorm):
    with pytest.raises(InputError, match=r"diverged in its first epoch at learning rate 1e\+30; lower .*, or search"):
        estimate_noise(twonorm, SETTINGS.model_copy(update={"lr": 1e30}), device="cpu")


@pytest.mark.parametrize("folds", [1, 0, 21])
def test_folds_out_of_range(twonorm, folds):
    with pytest.raises(InputError, match=f"--folds must be from 2 to 20, got {folds}"):
        estimate_noise(twonorm, SETTINGS, folds=folds)


def estimate_command(*arguments: str) -> int:
    return run_app(app, ["estimate", *arguments])


def test_the_command_prints_rate_interval_truth_matrix_and_bias(capsys):
    assert estimate_command("twonorm", "--noise", "symmetric:0.2", *QUICK) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "twonorm, symmetric:0.2: 4,500 labelled samples, 2 classes" in out
    assert re.search(r"noise rate   [\d.]+ % \[[\d.]+, [\d.]+\]; true (20|19)\.\d %", out)
    assert "smooth rate  −" in out
    assert "2 of mlp, best epochs" in out
    assert "transition matrix in %" in out
    assert "Counted are the labels of the samples that the models are surest of" in out


def test_the_command_prints_json_for_every_level(capsys):
    assert estimate_command("twonorm", "--noise", "clean, symmetric:0.3", "--format", "json", *QUICK) == 0
    clean, noisy = (NoiseEstimate.from_json(values) for values in json.loads(capsys.readouterr().out))
    assert (clean.noise_level, noisy.noise_level) == ("clean", "symmetric:0.3")
    assert clean.noise_rate < 0.05 < noisy.noise_rate < 0.45


def test_many_classes_are_shown_by_their_largest_entries(capsys):
    matrix = np.full((30, 30), 0.4 / 29)
    np.fill_diagonal(matrix, 0.6)
    matrix[3, 7] = 0.25
    rows = tuple(map(tuple, matrix.tolist()))
    print_estimate(estimate_of("given", num_classes=30, matrix=rows, noise_cancelling_rate=None), Console())
    lines = capsys.readouterr().out.splitlines()
    header = next(i for i, line in enumerate(lines) if "clean" in line and "noisy" in line)
    assert lines[header].split() == ["clean", "noisy", "estimated"]
    assert lines[header + 1].split() == ["3", "7", "25.0", "%"]
    assert len(lines) == header + 16


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("twonrom",), ("'twonrom'", "did you mean 'twonorm'?")),
        (("twonorm", "--noise", "human:worst"), ("no human labels", "cifar10n")),
        (("twonorm", "--folds", "1"), ("--folds", "from 2 to 20", "got 1")),
        (("twonorm", "--epochs", "0"), ("--epochs", "got 0")),
        (("twonorm", "--train-size", "5000"), ("train_size", "4,000", "5,000")),
        (("twonorm", "--model", "mpl"), ("'mpl'", "did you mean 'mlp'?")),
        (("twonorm", "--preset", "tpu"), ("unknown preset", "'tpu'")),
        (("twonorm", "--format", "jsn"), ("'jsn'", "did you mean 'json'?")),
        (("twonorm", "--seed", "-1"), ("--seed", "got -1")),
        ((), ("name the DATASET", "--table")),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, parts):
    assert estimate_command(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


def test_models_that_err_where_they_are_surest_are_too_weak_to_say(capsys):
    weak = estimate_of("given", noise_rate=0.3, low=0.2, high=0.4, is_weak=True)
    print_estimate(weak, Console())
    out = capsys.readouterr().out
    assert "noise rate   the models are too weak to say, between 20.0 and 40.0 %" in out
    assert "smooth rate  none: the noise is not known well enough" in out
