"""Saved networks predict what the trained ones did, and weights of another network are refused."""

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save
from saved_models import facts_of, write_model

from nls_tune import InputError, Training, TrainingSettings, load_dataset, load_predictor
from nls_tune.runs.saved_model import FACTS, WEIGHTS
from nls_tune.training.predictor import Predictor, load_network, weights_of

IMAGES = {"input_shape": (1, 8, 8), "mean": (0.3,), "std": (0.4,), "num_classes": 10}


@pytest.mark.parametrize(
    ("dataset", "settings"),
    [
        ("twonorm", TrainingSettings(model="mlp", epochs=1, batch_size=64)),
        ("digits", TrainingSettings(model="small_cnn", epochs=1, batch_size=64, lr=0.01, precision="float32")),
    ],
)
def test_it_predicts_what_the_training_did(dataset, settings):
    data = load_dataset(dataset, "symmetric:0.2", train_size=200)
    training = Training(data, settings)
    metrics = training.run_epoch()
    weights = weights_of(training.model)
    saved = facts_of(
        weights, model=settings.model, num_classes=data.num_classes, input_shape=data.input_shape,
        mean=data.input_mean.tolist(), std=data.input_std.tolist(), precision=training.precision,
    )  # fmt: skip
    predictor = Predictor(saved, load_network(saved, weights, WEIGHTS), torch.device("cpu"))
    expected = training.predict_probabilities(training.data.test_inputs).numpy()
    assert np.array_equal(predictor.probabilities(data.test_inputs), expected)
    assert float((predictor.predict(data.test_inputs) == data.test_labels).mean()) == metrics.test_accuracy


def test_a_folder_is_loaded(tmp_path):
    write_model(tmp_path)
    inputs = np.random.default_rng(0).normal(size=(5, 4))
    predictor = load_predictor(tmp_path / WEIGHTS, device="cpu")
    probabilities = predictor.probabilities(inputs)
    assert probabilities.shape == (5, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert np.array_equal(predictor.predict(inputs), probabilities.argmax(axis=1))
    before = inputs.copy()
    assert np.array_equal(load_predictor(tmp_path, device="cpu").probabilities(inputs), probabilities)
    assert np.array_equal(inputs, before)
    with pytest.raises(InputError, match=r"\(N, 4\)"):
        predictor.predict(inputs[:, :3])


def test_images_may_have_their_channels_last(tmp_path):
    write_model(tmp_path, model="small_cnn", **IMAGES)
    images = np.random.default_rng(0).integers(256, size=(3, 1, 8, 8), dtype=np.uint8)
    predictor = load_predictor(tmp_path, device="cpu")
    assert np.array_equal(predictor.probabilities(images), predictor.probabilities(images.transpose(0, 2, 3, 1)))
    read_only = images.view()
    read_only.flags.writeable = False
    assert predictor.probabilities(read_only).shape == (3, 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 4}, r"mlp with 4 classes .*: 5\.weight must be \(4, 128\), is \(3, 128\)|must be"),
        ({"input_shape": (5,), "mean": [0.0] * 5, "std": [1.0] * 5}, r"inputs of shape \(5,\): .* is \(128, 4\)"),
        ({"model": "small_cnn", **IMAGES}, "does not fit small_cnn"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, changes, message):
    write_model(tmp_path)
    (tmp_path / FACTS).write_text(facts_of((tmp_path / WEIGHTS).read_bytes(), **changes).text())
    with pytest.raises(InputError, match=message):
        load_predictor(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"no weights at all", save({"other": torch.ones(1)})])
def test_weights_that_are_none_are_refused(tmp_path, content):
    (tmp_path / WEIGHTS).write_bytes(content)
    (tmp_path / FACTS).write_text(facts_of(content).text())
    with pytest.raises(InputError, match=r"model\.safetensors (cannot be read|does not fit)"):
        load_predictor(tmp_path)


def test_a_changed_byte_is_found(tmp_path):
    saved = write_model(tmp_path)
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    assert hashlib.sha256(content).hexdigest() == saved.weights_sha256
    content[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, match="SHA-256 differs"):
        load_predictor(tmp_path)
