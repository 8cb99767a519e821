"""The last layer of every network, and training it alone."""

import pytest
import torch
from squares import squares
from torch import nn

from nls_tune.spaces.networks import MODEL_NAMES
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.last_layer import last_layer_name
from nls_tune.training.models import build_model
from nls_tune.training.training import Training


@pytest.mark.parametrize("name", [name for name in MODEL_NAMES if name not in ("resnet34", "resnet50")])
def test_every_network_has_a_last_layer_that_makes_the_logits(name):
    network = build_model(name, num_classes=7, input_shape=(3, 16, 16))
    last = network.get_submodule(last_layer_name(network))
    assert isinstance(last, nn.Linear)
    assert last.out_features == 7


def test_torchvision_calls_it_classifier_fc_head_or_heads():
    from torchvision.models import get_model

    for name, expected in (("mobilenet_v3_small", "classifier"), ("vit_b_32", "heads"), ("resnet18", "fc")):
        with torch.device("meta"):
            assert last_layer_name(get_model(name, weights=None)) == expected


def test_what_a_network_of_timm_says_goes_first():
    network = nn.Module()
    network.head, network.last = nn.Linear(2, 2), nn.Linear(2, 2)
    assert last_layer_name(network) == "head"
    network.get_classifier = lambda: network.last
    assert last_layer_name(network) == "last"
    assert last_layer_name(nn.Module()) is None


@pytest.mark.parametrize("name", ["preact_resnet18", "fast_cnn_small"])
def test_a_frozen_training_changes_the_last_layer_alone(name, tmp_path):
    data = squares(32, 12, 12, 16)
    torch.save(
        build_model(name, num_classes=data.num_classes, input_shape=data.input_shape).state_dict(), tmp_path / "w"
    )
    settings = TrainingSettings(
        model=name, weights=str(tmp_path / "w"), freeze=True, epochs=2, warmup_epochs=1, batch_size=16,
        norm_bias_lr_factor=2.0, average_spans=(1.0,), smooth_rate=-0.5,
    )  # fmt: skip
    training = Training(data, settings)
    before = {key: value.clone() for key, value in training.network.state_dict().items()}
    stored = torch.load(tmp_path / "w", weights_only=True)
    assert all(torch.equal(value, stored[key]) for key, value in before.items())
    while not training.finished:
        training.run_epoch()
    last = last_layer_name(training.network)
    for key, value in training.network.state_dict().items():
        assert torch.equal(value, before[key]) != key.startswith(f"{last}."), key
