"""One suite that every network passes, exact parameter counts, and the errors."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from nls_tune.errors import InputError
from nls_tune.losses import gls_loss
from nls_tune.spaces.networks import MODEL_NAMES, check_model
from nls_tune.training.models import build_model

# 16 x 16 and not 32 x 32: every network takes it, and the suite stays quick on two cores.
SHAPE = (3, 16, 16)
#: Every network; the largest two are slow, and made of the parts of the others.
ALL = [pytest.param(n, marks=pytest.mark.slow) if n in ("resnet34", "resnet50") else n for n in MODEL_NAMES]
#: The smallest side of an image, where it is not 8.
SMALLEST = {"cnn9": 12, "fast_cnn_small": 16, "fast_cnn": 16, "fast_cnn_large": 16}
IMAGE_MODELS = [name for name in MODEL_NAMES if name not in ("mlp", "linear")]


def _build(name: str, num_classes: int = 10, input_shape: tuple[int, ...] = SHAPE, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(name, num_classes=num_classes, input_shape=input_shape)


def _inputs(batch: int, input_shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(batch, *input_shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ALL)
class TestEveryModel:
    @pytest.mark.parametrize("num_classes", [2, 10, 100])
    def test_maps_a_batch_to_float_logits(self, name, num_classes):
        logits = _build(name, num_classes).eval()(_inputs(2))
        assert logits.shape == (2, num_classes)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()

    def test_takes_other_images_down_to_its_smallest(self, name):
        side = SMALLEST.get(name, 8)
        for shape in ((1, 16, 16), (3, side, 21), (1, side, side)):
            model = _build(name, input_shape=shape)
            model(_inputs(2, shape)).sum().backward()
            assert model.eval()(_inputs(1, shape)).shape == (1, 10)

    def test_evaluation_repeats_itself_and_takes_a_batch_of_one_and_an_empty_one(self, name):
        model = _build(name).eval()
        with torch.no_grad():
            alone, together = model(_inputs(3)[:1]), model(_inputs(3))
            assert torch.equal(model(_inputs(3)), together)
            assert model(_inputs(0)).shape == (0, 10)
        # No sample sees its neighbours once batch norm uses its running statistics.
        torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-4)

    def test_the_gradient_reaches_every_parameter(self, name):
        model = _build(name)
        cross_entropy(model(_inputs(4)), torch.arange(4)).backward()
        for parameter_name, parameter in model.named_parameters():
            if name.startswith("fast_cnn") and not parameter.requires_grad:
                continue  # whitening, and the scales of batch norm
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad).all(), parameter_name
            assert parameter.grad.abs().sum() > 0, parameter_name

    def test_state_dict_round_trip(self, name):
        model = _build(name)
        with torch.no_grad():
            model(_inputs(4))  # moves the running statistics
        other = _build(name, seed=1)
        other.load_state_dict(copy.deepcopy(model.state_dict()))
        with torch.no_grad():
            assert torch.equal(model.eval()(_inputs(2)), other.eval()(_inputs(2)))

    def test_the_seed_decides_the_weights(self, name):
        one, same, other = _build(name), _build(name), _build(name, seed=1)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
        assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))

    def test_channels_last_gives_the_same_logits(self, name):
        model = _build(name).eval()
        with torch.no_grad():
            expected = model(_inputs(2))
            model = model.to(memory_format=torch.channels_last)
            logits = model(_inputs(2).contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)

    def test_refuses_fewer_than_two_classes_and_an_empty_shape(self, name):
        for num_classes in (1, 0, -1):
            with pytest.raises(InputError, match=f"num_classes is 2 or more, got {num_classes}: "):
                build_model(name, num_classes=num_classes, input_shape=SHAPE)
        for shape in ((), (0,), (3, 0, 32), (-1, 32, 32)):
            with pytest.raises(InputError, match="sizes of 1 or more"):
                check_model(name, shape)


#: Parameters for CIFAR-10, those per class, and those per channel of the inputs.
COUNTS = {
    "resnet18": (11_173_962, 512 + 1, 9 * 64),
    "resnet34": (21_282_122, 512 + 1, 9 * 64),
    "resnet50": (23_520_842, 2048 + 1, 9 * 64),
    # With a norm after the last unit; without it there would be 11,171,146.
    "preact_resnet18": (11_172_170, 512 + 1, 9 * 64),
    "cnn9": (3_121_802, 128 + 1, 9 * 128),
    "fast_cnn_small": (146_744, 64, 136 + 72 * 32),
    "fast_cnn": (1_972_792, 256, 136 + 72 * 64),
    "fast_cnn_large": (4_606_520, 384, 136 + 72 * 128),
    "small_cnn": (113_962, 2048 + 1, 9 * 32),
    "mlp": (3072 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10, 128 + 1, 1024 * 128),
    "linear": (3072 * 10 + 10, 3072 + 1, None),
}


@pytest.mark.parametrize("name", ALL)
def test_parameter_counts(name):
    on_cifar10, per_class, per_channel = COUNTS[name]
    for num_classes, channels in ((10, 3), (100, 3), (10, 1)):
        model = build_model(name, num_classes=num_classes, input_shape=(channels, 32, 32))
        expected = on_cifar10 + per_class * (num_classes - 10) + (per_channel or 1024 * num_classes) * (channels - 3)
        assert sum(p.numel() for p in model.parameters()) == expected


def test_the_resnet_stem_keeps_the_resolution():
    model = _build("resnet18")
    seen: list[torch.Size] = []
    model.get_submodule("layer1").register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    model.eval()(_inputs(1))
    assert seen == [(1, 64, 16, 16)]


def test_the_resnet_stem_is_initialised_like_the_rest():
    std = _build("resnet18").get_submodule("conv1").weight.std().item()
    assert std == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)


def test_preact_units_add_to_an_untouched_shortcut():
    """With the residual branch silenced, every unit without projection is the identity, except the first."""
    model = _build("preact_resnet18").eval()
    units = [module for module in model if type(module).__name__ == "_PreActBlock"]
    assert [unit.skips_from_activated for unit in units] == [True, False, True, False, True, False, True, False]
    x = torch.randn(2, 64, 4, 4)
    for unit in units[:2]:
        nn.init.zeros_(unit.conv2.weight)
    with torch.no_grad():
        assert torch.equal(units[1](x), x)
        torch.testing.assert_close(units[0](x), relu(units[0].bn1(x)))


def test_cnn9_drops_out_in_training_only():
    model = _build("cnn9").train()
    assert [module.p for module in model if isinstance(module, nn.Dropout)] == [0.25, 0.25]
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        assert not torch.equal(model(_inputs(2)), model(_inputs(2)))


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(InputError, match=r"unknown model 'resnet81' \(did you mean 'resnet18'\?\); valid: resnet18,"):
        check_model("resnet81", SHAPE)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_image_models_refuse_other_shapes_and_images_that_are_too_small(name):
    for shape in ((20,), (32, 32), (1, 3, 32, 32)):
        with pytest.raises(InputError, match=r"\(channels, height, width\), got inputs of shape .*: use model 'mlp'"):
            build_model(name, num_classes=10, input_shape=shape)
    side = SMALLEST.get(name, 8)
    for shape in ((3, side - 1, 32), (3, 32, side - 1)):
        with pytest.raises(InputError, match=rf"{side} x {side} pixels or more \(.*\), got .*: use model 'mlp'"):
            check_model(name, shape)
    check_model(name, (3, side, side))


@pytest.mark.parametrize("shape", [(1,), (20,), (1, 2, 2), (2, 3, 4, 5)])
@pytest.mark.parametrize("name", ["mlp", "linear"])
def test_flat_models_take_any_shape(name, shape):
    assert build_model(name, num_classes=3, input_shape=shape)(torch.zeros(2, *shape)).shape == (2, 3)


@pytest.mark.slow
def test_torchvision_is_imported_for_resnets_only():
    program = (
        "import sys; from nls_tune.training.models import build_model; "
        "build_model('small_cnn', num_classes=2, input_shape=(3, 8, 8)); "
        "assert not any(name.startswith('torchvision') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def relu_before_pool(model):
    """The same network in the usual order."""
    layers = list(model)
    for i in [k for k, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]:
        layers[i], layers[i + 1] = layers[i + 1], layers[i]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("kind", ["random", "equal pixels", "not finite"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pooling_before_the_relu_changes_no_bit(kind, dtype, memory_format):
    torch.manual_seed(0)
    model = build_model("small_cnn", num_classes=10, input_shape=(3, 16, 16)).to(memory_format=memory_format)
    usual = relu_before_pool(model)
    assert [type(layer) for layer in usual][2:4] == [nn.ReLU, nn.MaxPool2d]
    inputs = torch.randn(32, 3, 16, 16)
    if kind == "equal pixels":  # ties, and whole windows at or below 0
        inputs = inputs.round().clamp(-1, 0)
    if kind == "not finite":
        inputs[3, 0, 5, 5], inputs[4, 1, 2, 2] = float("nan"), float("-inf")
    labels = torch.arange(32) % 10
    found = []
    for network in (model, usual):
        network.train()
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = gls_loss(network(inputs.to(memory_format=memory_format)), labels, -0.4)
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in network.parameters())])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours.nan_to_num(7.0), theirs.nan_to_num(7.0))
