"""One suite that every network passes, exact parameter counts, and the errors."""

from __future__ import annotations

import copy
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from nls_tune.errors import InputError
from nls_tune.spaces.networks import MODEL_NAMES, check_model
from nls_tune.training.models import build_model, count_parameters

# 16 x 16 and not 32 x 32: every network takes it, and the suite stays quick on two cores.
SHAPE = (3, 16, 16)
IMAGE_MODELS = [name for name in MODEL_NAMES if name != "mlp"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Batches of two gain nothing from more threads, which on a busy machine wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _build(name: str, num_classes: int = 10, input_shape: tuple[int, ...] = SHAPE, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(name, num_classes=num_classes, input_shape=input_shape)


def _inputs(batch: int, input_shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(batch, *input_shape, generator=torch.Generator().manual_seed(1))


def test_the_names_are_those_of_the_settings():
    assert MODEL_NAMES == ("resnet18", "resnet34", "resnet50", "preact_resnet18", "cnn9", "small_cnn", "mlp")


@pytest.mark.parametrize("name", MODEL_NAMES)
class TestEveryModel:
    @pytest.mark.parametrize("num_classes", [2, 10, 100])
    def test_maps_a_batch_to_float_logits(self, name, num_classes):
        logits = _build(name, num_classes).eval()(_inputs(2))
        assert logits.shape == (2, num_classes)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()

    def test_takes_one_channel(self, name):
        logits = _build(name, input_shape=(1, 16, 16)).eval()(_inputs(2, (1, 16, 16)))
        assert logits.shape == (2, 10)

    def test_takes_images_that_are_not_square(self, name):
        assert _build(name, input_shape=(3, 12, 21)).eval()(_inputs(2, (3, 12, 21))).shape == (2, 10)

    def test_is_deterministic_in_evaluation(self, name):
        model = _build(name).eval()
        with torch.no_grad():
            assert torch.equal(model(_inputs(2)), model(_inputs(2)))

    def test_takes_a_batch_of_one_and_an_empty_one_in_evaluation(self, name):
        model = _build(name).eval()
        with torch.no_grad():
            alone, together = model(_inputs(3)[:1]), model(_inputs(3))
            assert model(_inputs(0)).shape == (0, 10)
        # No sample sees its neighbours once batch norm uses its running statistics.
        torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-4)

    def test_the_gradient_reaches_every_parameter(self, name):
        model = _build(name)
        cross_entropy(model(_inputs(4)), torch.arange(4)).backward()
        for parameter_name, parameter in model.named_parameters():
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

    def test_takes_its_smallest_image(self, name):
        side = 12 if name == "cnn9" else 8
        shape = (1, side, side)
        model = _build(name, input_shape=shape)
        model(_inputs(2, shape)).sum().backward()
        assert model.eval()(_inputs(1, shape)).shape == (1, 10)

    @pytest.mark.parametrize("num_classes", [1, 0, -1])
    def test_refuses_fewer_than_two_classes(self, name, num_classes):
        with pytest.raises(InputError, match=f"num_classes is 2 or more, got {num_classes}: "):
            build_model(name, num_classes=num_classes, input_shape=SHAPE)

    @pytest.mark.parametrize("shape", [(), (0,), (3, 0, 32), (-1, 32, 32)])
    def test_refuses_an_empty_shape(self, name, shape):
        with pytest.raises(InputError, match="sizes of 1 or more"):
            check_model(name, shape)


def _cnn9_parameters(num_classes: int, channels: int) -> int:
    widths = [channels, 128, 128, 128, 256, 256, 256, 512, 256, 128]
    kernels = [3] * 7 + [1] * 2
    convolutions = sum(k * k * a * b for k, (a, b) in zip(kernels, pairwise(widths), strict=True))
    return convolutions + 2 * sum(widths[1:]) + (128 + 1) * num_classes


def _preact_resnet18_parameters(num_classes: int, channels: int) -> int:
    count = 9 * channels * 64
    before = 64
    for width in (64, 128, 256, 512):
        # Four 3 x 3 convolutions, the first of them from the stage before, and its 1 x 1 projection.
        count += 9 * before * width + 3 * 9 * width * width + (before * width if before != width else 0)
        # A norm in front of each of the four, two values a channel.
        count += 2 * (before + 3 * width)
        before = width
    # The activation after the last unit has a norm too; without it there would be 11,171,146 at 10 classes.
    return count + 2 * 512 + (512 + 1) * num_classes


def _resnet_stem_difference(channels: int) -> int:
    return 9 * 64 * (3 - channels)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("resnet50", 23_520_842),
        ("preact_resnet18", 11_172_170),
        ("cnn9", 3_121_802),
        ("small_cnn", 113_962),
        ("mlp", 3072 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10),
    ],
)
def test_parameter_counts_on_cifar10(name, expected):
    assert count_parameters(build_model(name, num_classes=10, input_shape=(3, 32, 32))) == expected


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_parameter_counts_by_formula(num_classes, channels):
    def count(name: str) -> int:
        return count_parameters(
            build_model(name, num_classes=num_classes, input_shape=(channels, 32, 32)),
        )

    assert count("cnn9") == _cnn9_parameters(num_classes, channels)
    assert count("preact_resnet18") == _preact_resnet18_parameters(num_classes, channels)
    assert count("resnet18") == 11_173_962 + 513 * (num_classes - 10) - _resnet_stem_difference(channels)


def test_frozen_parameters_and_running_statistics_do_not_count():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert count_parameters(model) == 8 + 4
    model[0].requires_grad_(False)
    assert count_parameters(model) == 4


def test_mlp_takes_flat_inputs():
    model = _build("mlp", 2, (20,))
    assert count_parameters(model) == 20 * 128 + 128 + 128 * 128 + 128 + 128 * 2 + 2
    assert model(_inputs(5, (20,))).shape == (5, 2)


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
    model = _build("cnn9")
    assert [module.p for module in model if isinstance(module, nn.Dropout)] == [0.25, 0.25]
    norms_frozen = model.train()
    for module in norms_frozen:
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        assert not torch.equal(norms_frozen(_inputs(2)), norms_frozen(_inputs(2)))


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(InputError, match=r"unknown model 'resnet81' \(did you mean 'resnet18'\?\); valid: resnet18,"):
        check_model("resnet81", SHAPE)


@pytest.mark.parametrize("name", IMAGE_MODELS)
@pytest.mark.parametrize("shape", [(20,), (32, 32), (1, 3, 32, 32)])
def test_image_models_refuse_other_shapes(name, shape):
    with pytest.raises(InputError, match=r"\(channels, height, width\), got inputs of shape .*: use model 'mlp'"):
        build_model(name, num_classes=10, input_shape=shape)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_image_models_refuse_images_that_are_too_small(name):
    side = 12 if name == "cnn9" else 8
    for shape in [(3, side - 1, 32), (3, 32, side - 1)]:
        with pytest.raises(InputError, match=rf"{side} x {side} pixels or more \(.*\), got .*: use model 'mlp'"):
            check_model(name, shape)
    check_model(name, (3, side, side))


@pytest.mark.parametrize("shape", [(1,), (20,), (1, 2, 2), (2, 3, 4, 5)])
def test_mlp_takes_any_shape(shape):
    assert build_model("mlp", num_classes=3, input_shape=shape)(torch.zeros(2, *shape)).shape == (2, 3)


def test_torchvision_is_imported_for_resnets_only():
    program = (
        "import sys; from nls_tune.training.models import build_model; "
        "build_model('small_cnn', num_classes=2, input_shape=(3, 8, 8)); "
        "assert not any(name.startswith('torchvision') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
