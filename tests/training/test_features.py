"""A frozen network is run once: what is trained on its features is what would be trained behind it."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from squares import squares
from torch import nn

from nls_tune.metrics import Judging
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.features import FrozenNetwork
from nls_tune.training.final import final_weights
from nls_tune.training.models import build_model
from nls_tune.training.predictor import weights_of
from nls_tune.training.training import Training


@pytest.fixture
def data():
    return squares(32, 12, 12, 16)


@pytest.fixture
def settings(data, tmp_path, monkeypatch):
    """A frozen network with weights from a file; features are kept in a folder of the test.

    In float32, so that numbers can be compared on processors that compute bfloat16 as well.
    """
    monkeypatch.setattr("nls_tune.training.features.cache_folder", lambda: tmp_path / "cache")
    torch.manual_seed(1)
    network = build_model("preact_resnet18", num_classes=data.num_classes, input_shape=data.input_shape)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    return TrainingSettings(
        model="preact_resnet18", weights=str(tmp_path / "w.pth"), freeze=True, epochs=3, warmup_epochs=1,
        batch_size=16, lr=0.05, smooth_rate=-0.5, average_spans=(1.0,), precision="float32",
    )  # fmt: skip


@pytest.fixture
def runs(monkeypatch):
    """The batches that have gone through a frozen network."""
    seen, run = [], FrozenNetwork._run
    monkeypatch.setattr(
        FrozenNetwork, "_run", lambda self, batch, *rest: (seen.append(batch), run(self, batch, *rest))[1]
    )
    return seen


def trained(data, settings, **how):
    training = Training(data, settings, **how)
    while not training.finished:
        training.run_epoch()
    return training


def test_the_numbers_are_those_of_the_network_in_every_epoch(data, settings, monkeypatch):
    features = trained(data, settings)
    assert isinstance(features.model, nn.Linear)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingSettings, "trains_on_features", False)
        whole = trained(data, settings)
    assert whole.model is whole.network
    for one, other in zip(features.history, whole.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.val_loss == pytest.approx(other.val_loss, rel=1e-4)
        assert (one.val_accuracy, one.test_accuracy) == (other.val_accuracy, other.test_accuracy)
        assert one.average_val_accuracies == other.average_val_accuracies


@pytest.mark.parametrize("readout", ["plain", "average:1"])
def test_what_is_taken_home_is_the_whole_network(data, settings, readout):
    training = trained(data, settings)
    network = final_weights(training, readout)
    kept = weights_of(network)
    assert network is training.network
    assert len(kept) > 10_000_000
    images = torch.from_numpy(data.test_inputs)
    mean, std = (torch.from_numpy(a).view(-1, 1, 1) for a in (data.input_mean, data.input_std))
    with torch.inference_mode():
        logits = network.eval()((images / 255 - mean) / std)
        head = training.model if readout == "plain" else training.readouts.averages.models[0]
        torch.testing.assert_close(logits, head(training.data.test_inputs), rtol=1e-4, atol=1e-4)


def test_features_are_computed_once_for_all_settings_levels_and_seeds(data, settings, runs):
    trained(data, settings)
    assert sum(map(len, runs)) == len(data.inputs) + len(data.test_inputs) + len(runs[0])  # the first batch tells twice
    before = len(runs)
    other = dataclasses.replace(
        data, noisy_labels=data.noisy_labels[::-1].copy(), train_indices=data.train_indices[::2]
    )
    trained(other, settings.model_copy(update={"seed": 3, "lr": 0.01, "batch_size": 8}))
    assert len(runs) == before


@pytest.mark.parametrize("what", ["images", "weights", "statistics"])
def test_other_features_are_computed_anew(data, settings, runs, tmp_path, what):
    trained(data, settings)
    before = len(runs)
    if what == "images":
        data = dataclasses.replace(data, inputs=255 - data.inputs)
    elif what == "statistics":
        data = dataclasses.replace(data, input_mean=data.input_mean / 2)
    else:
        state = torch.load(tmp_path / "w.pth", weights_only=True)
        torch.save(
            {name: value * 1.5 if value.is_floating_point() else value for name, value in state.items()},
            tmp_path / "v.pth",
        )
        settings = settings.model_copy(update={"weights": str(tmp_path / "v.pth")})
    trained(data, settings)
    assert len(runs) == 2 * before


@pytest.mark.parametrize("damage", ["torn", "changed", "no meta"])
def test_a_damaged_file_is_made_again(data, settings, runs, tmp_path, damage):
    history = trained(data, settings).history
    before = len(runs)
    (file,) = (tmp_path / "cache").rglob("features.npy")
    content = bytearray(file.read_bytes())
    if damage == "torn":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[-7] ^= 4
        file.write_bytes(content)
    else:
        (file.parent / "meta.json").unlink()
    assert [m.val_loss for m in trained(data, settings).history] == [m.val_loss for m in history]
    assert len(runs) == 2 * before


def test_where_nothing_can_be_kept_the_network_runs_in_every_epoch(data, settings, tmp_path, caplog, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("nls_tune.training.features.cache_folder", lambda: tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        training = Training(data, settings)
    assert training.model is training.network
    assert "cannot be kept" in caplog.text


@pytest.mark.parametrize("change", [{"flip": True}, {"crop_padding": 1}, {"cutout": 4}])
def test_augmented_images_have_other_features_in_every_epoch(data, settings, change, runs):
    training = Training(data, settings.model_copy(update=change))
    assert training.model is training.network
    assert not runs


def test_mirror_images_have_features_of_their_own(data, settings, runs):
    training = Training(data, settings, judging=Judging(mirror=True))
    assert training.model is training.network
    assert not runs


def test_a_network_that_goes_on_after_its_last_layer_is_run_whole(data, settings, tmp_path):
    network = build_model("fast_cnn_small", num_classes=data.num_classes, input_shape=data.input_shape)
    torch.save(network.state_dict(), tmp_path / "f.pth")
    change = {"model": "fast_cnn_small", "weights": str(tmp_path / "f.pth")}
    training = Training(data, settings.model_copy(update=change))
    assert training.model is training.network


def test_a_training_goes_on_where_it_was(data, settings):
    whole = trained(data, settings)
    begun = Training(data, settings)
    begun.run_epoch()
    resumed = Training(data, settings)
    resumed.load_state_dict(begun.state_dict())
    while not resumed.finished:
        resumed.run_epoch()
    assert [m.val_loss for m in resumed.history] == [m.val_loss for m in whole.history]
    assert sum(t.numel() for t in begun.state_dict()["model"].values()) < 10_000


@pytest.mark.slow
def test_resnet50_of_torchvision_with_a_file_of_weights_at_224_pixels(tmp_path, monkeypatch):
    from torchvision.models import resnet50

    monkeypatch.setattr("nls_tune.training.features.cache_folder", lambda: tmp_path / "cache")
    torch.manual_seed(0)
    stored = resnet50(weights=None)
    torch.save(stored.state_dict(), tmp_path / "resnet50.pth")
    data = squares(8, 4, 4, 224)
    settings = TrainingSettings(
        model="torchvision:resnet50",
        weights=str(tmp_path / "resnet50.pth"),
        freeze=True,
        epochs=2,
        batch_size=4,
        lr=0.01,
    )
    training = trained(data, settings)
    assert training.data.train_inputs.shape == (8, 2048)
    network = final_weights(training, "plain")
    for name, value in stored.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(network.state_dict()[name], value), name
    assert np.isfinite(training.history[-1].val_loss)
