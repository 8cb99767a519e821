"""Stacked networks against each alone: the numbers, and the types that enter the layers, also on a GPU not there."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import stack_module_state
from torch.utils._python_dispatch import TorchDispatchMode

from nls_tune.training.models import build_model
from nls_tune.training.stacked import stacked_logits

SHAPES = {"small_cnn": (3, 16, 16), "mlp": (20,)}
MEMBERS = 3
SAMPLES = 8


class Layers(TorchDispatchMode):
    """Notes the types that enter convolutions, batch norms and products."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if "convolution" in name or "batch_norm" in name:
            self.seen.add((name, *(a.dtype for a in args if isinstance(a, torch.Tensor))))
        elif name in ("mm", "bmm", "addmm", "baddbmm"):
            self.seen.add(("product", *{a.dtype for a in args}))
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple) else (found,):
            assert (
                not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or tensor.device == self.device
            )
        return found

    device = torch.device("cpu")


@contextlib.contextmanager
def autocast(device: str, dtype: torch.dtype):
    """As ``torch.autocast``, which does nothing for CUDA on a machine without it."""
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, dtype != torch.float32)
    torch.set_autocast_dtype(device, torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])
        torch.clear_autocast_cache()


def networks(name: str, count: int) -> list[torch.nn.Module]:
    torch.manual_seed(0)
    return [build_model(name, num_classes=4, input_shape=SHAPES[name]) for _ in range(count)]


def stacked_state(models: list[torch.nn.Module]) -> dict[str, torch.Tensor]:
    parameters, buffers = stack_module_state(models)
    return {**{k: v.detach().contiguous() for k, v in parameters.items()}, **buffers}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shared", [True, False], ids=["the same inputs", "own inputs"])
@pytest.mark.parametrize("name", SHAPES)
def test_logits_and_running_statistics_are_those_of_each_alone(name, shared, training):
    models = networks(name, MEMBERS)
    for model in models:
        model.train(training)
    state = stacked_state(models)
    inputs = torch.randn(1 if shared else MEMBERS, SAMPLES, *SHAPES[name])
    found = stacked_logits(models[0], state, inputs, torch.float32)
    assert found.shape == (MEMBERS, SAMPLES, 4)
    for index, model in enumerate(models):
        expected = model(inputs[0 if shared else index])
        torch.testing.assert_close(found[index], expected, rtol=1e-4, atol=1e-5)
        for key, buffer in model.named_buffers():  # in place, as those of the network alone
            torch.testing.assert_close(state[key][index], buffer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("case", ["own inputs", "the same inputs", "one member"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_layers_compute_in_the_types_of_a_network_alone(name, dtype, case, device):
    """With tensors that have no values torch takes the way that it takes on a GPU, without one."""
    if device == "cuda" and torch.version.cuda is None:
        pytest.skip("this torch is built without CUDA")
    count = 1 if case == "one member" else MEMBERS
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device(device):
        models = networks(name, count)
        one = torch.randn(SAMPLES, *SHAPES[name])
        if one.dim() == 4:
            one = one.contiguous(memory_format=torch.channels_last)
        inputs = torch.stack([one] * (1 if case == "the same inputs" else count))
        sides = []
        for run in (
            lambda: models[0](one),
            lambda: stacked_logits(models[0], stacked_state(models), inputs, dtype),
        ):
            with autocast(device, dtype), Layers() as layers:
                layers.device = one.device
                logits = run()
            assert logits.dtype == dtype
            sides.append(layers.seen)
    alone, together = sides
    assert len(alone) >= (1 if name == "mlp" else 3)
    assert together == alone
