"""What the fast networks are made of: their work, whitening, identities and frozen scales."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from squares import squares
from torch import Tensor, nn
from torch.nn.functional import unfold
from torch.utils.flop_counter import FlopCounterMode

from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.augment import normalise
from nls_tune.training.fast_cnn import FastCNN
from nls_tune.training.models import build_model
from nls_tune.training.training import Training

GFLOP = {"fast_cnn_small": 0.0342, "fast_cnn": 0.236, "fast_cnn_large": 0.603}


def network(name: str = "fast_cnn_small", channels: int = 3, side: int = 16, seed: int = 0) -> FastCNN:
    torch.manual_seed(seed)
    found = build_model(name, num_classes=4, input_shape=(channels, side, side))
    assert isinstance(found, FastCNN)
    return found


def images(number: int = 40, channels: int = 3, side: int = 16) -> Tensor:
    """Images whose neighbouring pixels and channels go together, as those of photographs do."""
    noise = torch.randn(number, channels, side + 1, side + 1, generator=torch.Generator().manual_seed(5))
    mixed = noise[..., 1:, 1:] + noise[..., :-1, 1:] + 0.5 * noise[..., 1:, :-1]
    return mixed + 0.7 * mixed.roll(1, 1) if channels > 1 else mixed


def settings(**changes) -> TrainingSettings:
    values = {"model": "fast_cnn_small", "epochs": 2, "batch_size": 16, "precision": "float32", "lr": 1e-3}
    return TrainingSettings(**{**values, **changes})


@pytest.mark.parametrize(("name", "expected"), GFLOP.items())
def test_the_work_of_a_forward_pass(name, expected):
    model = build_model(name, num_classes=10, input_shape=(3, 32, 32)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() / 1e9 == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitening_makes_outputs_of_unit_size_that_do_not_go_together(channels):
    model, some = network(channels=channels), images(channels=channels)
    model.whiten([some])
    with torch.no_grad():
        outputs = model.whitening(some).transpose(0, 1).flatten(1).double()
    number = 4 * channels
    second = outputs @ outputs.T / outputs.shape[1]
    patches = unfold(some, 2).transpose(0, 1).flatten(1).double()
    values = torch.linalg.eigvalsh(patches @ patches.T / patches.shape[1]).flip(0)
    expected = torch.diag(values / (values + 5e-4))  # 1 but for the small number that keeps it finite
    torch.testing.assert_close(second[:number, :number], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(outputs[number:], -outputs[:number])
    assert (second.diagonal() > 0.95).all()


def test_whitening_of_images_without_variance_is_finite():
    model = network()
    model.whiten([torch.zeros(3, 3, 16, 16)])
    assert model.whitening.weight.isfinite().all()


def test_whitening_does_not_depend_on_how_images_are_cut_into_parts():
    whole, parts = network(), network()
    whole.whiten([images()])
    parts.whiten(images().split(7))
    # An eigenvector and its negative are as good as one another.
    first, second = (model.whitening.weight.flatten(1)[:12] for model in (whole, parts))
    torch.testing.assert_close((first * second).sum(1).abs(), first.square().sum(1), rtol=1e-4, atol=1e-5)


def test_a_training_whitens_its_own_images_which_seed_and_data_decide(monkeypatch):
    monkeypatch.setattr("nls_tune.training.starting_network.WHITENING_IMAGES", 8)
    data = squares(side=16)

    def whitening(**changes) -> Tensor:
        return Training(replace(data), settings(**changes)).model.whitening.weight

    first = whitening()
    assert torch.equal(first, whitening(lr=0.5, batch_size=7, epochs=9))
    assert not torch.equal(first, whitening(seed=1))
    dark = replace(data, inputs=(data.inputs // 2).astype(np.uint8))
    assert not torch.equal(first, Training(dark, settings()).model.whitening.weight)
    monkeypatch.setattr("nls_tune.training.starting_network.WHITENING_IMAGES", 5000)
    training = Training(data, settings())
    expected = network()
    expected.whiten([normalise(training.data.train_inputs, training.data.mean, training.data.std)])
    found, others = (weight.flatten(1)[:12] for weight in (training.model.whitening.weight, expected.whitening.weight))
    torch.testing.assert_close((found * others).sum(1).abs(), found.square().sum(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 8])  # of 8 channels the first layer makes more than the first group has
def test_convolutions_begin_as_identities_on_their_first_channels(channels):
    model = network(channels=channels)
    convolutions = [module for module in model.groups.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 6
    for conv in convolutions:
        x = torch.randn(1, conv.in_channels, 5, 5)
        kept = min(conv.in_channels, conv.out_channels)
        with torch.no_grad():
            torch.testing.assert_close(conv(x)[:, :kept], x[:, :kept])
        if conv.out_channels > conv.in_channels:
            assert conv.weight[kept:].abs().sum() > 0


def test_training_leaves_whitening_and_scales_of_batch_norm_alone_and_moves_the_rest():
    training = Training(squares(side=16), settings(lr=0.05, weight_decay=0.1))
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    training.run_epoch()
    after = training.model.state_dict()
    frozen = {name for name in before if name == "whitening.weight" or (".norm" in name and name.endswith("weight"))}
    assert len(frozen) == 7
    assert {name for name, value in before.items() if torch.equal(value, after[name])} == frozen
    assert frozen == {name for name, p in training.model.named_parameters() if not p.requires_grad}
    for name in frozen - {"whitening.weight"}:
        assert (after[name] == 1).all()


@pytest.mark.parametrize(("side", "channels"), [(16, 1), (17, 3), (33, 3), (48, 2)])
def test_images_of_any_size_are_taken(side, channels):
    logits = network(channels=channels, side=side)(torch.randn(2, channels, side, side))
    assert logits.shape == (2, 4)


def test_logits_are_small_at_the_start():
    model = network().eval()
    with torch.no_grad():
        logits = model(images(4))
        head = model.head(model.groups(nn.functional.gelu(model.whitening(images(4)))).amax((2, 3)))
    torch.testing.assert_close(logits, head / 9)
