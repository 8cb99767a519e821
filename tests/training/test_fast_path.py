"""What makes a training faster on the CPU leaves its numbers as they are."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from nls_tune.losses import gls_loss
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.models import build_model
from nls_tune.training.training import Training


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


def test_flat_inputs_are_evaluated_alike_whatever_the_batch(monkeypatch):
    from nls_tune.datasets import load_dataset

    dataset = load_dataset("twonorm", "symmetric:0.4", noise_seed=0, split_seed=0, train_size=200)
    found = []
    for size in (250, 2000):
        monkeypatch.setattr("nls_tune.training.training._EVALUATION_BATCH", size)
        training = Training(dataset, TrainingSettings(model="mlp", epochs=2, warmup_lr=0.05, lr=0.05, batch_size=50))
        metrics = training.run_epoch()
        found.append((metrics.val_accuracy, metrics.test_accuracy, training.correct_bits(1), metrics.val_loss))
    assert found[0][:3] == found[1][:3]
    assert found[0][3] == pytest.approx(found[1][3], rel=1e-6)  # a sum of other parts: its last bits may differ


_FAULTS = """
import resource, torch
from nls_tune.devices import keep_freed_memory
def faults():
    for step in range(21):
        if step == 1:  # the first one's pages are new in any case
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(12_000_000)  # 48 MB, more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), keep_freed_memory(), faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_asking_the_kernel():
    done = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True, timeout=60)
    usual, kept, without = done.stdout.split()
    pages = 20 * 48_000_000 // 4096
    assert kept == "True"
    # Once or twice the heap has to grow, because a block must be aligned.
    assert int(without) < 0.2 * pages < 0.9 * pages < int(usual)


def test_without_glibc_nothing_happens(monkeypatch):
    from nls_tune.training import devices

    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: object())
    assert not devices.keep_freed_memory()
