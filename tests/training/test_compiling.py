"""Compiled steps: the numbers of eager ones, one graph for all trials, and what happens where compiling fails."""

import os
import shutil
import warnings
from typing import Any

import pytest
import torch

from nls_tune.datasets import NoisyDataset, load_dataset
from nls_tune.errors import CompileError
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.compiling import AUTO_MIN_STEPS, Compiler
from nls_tune.training.training import Training


@pytest.fixture(scope="module")
def dataset() -> NoisyDataset:
    return load_dataset("twonorm", "symmetric:0.3", train_size=300)  # four batches of 64 and one of 44


def settings(**changes: Any) -> TrainingSettings:
    values = {"model": "mlp", "epochs": 4, "warmup_epochs": 2, "batch_size": 64, "warmup_lr": 0.05}
    return TrainingSettings(**{**values, **changes})


TRIALS = [
    settings(smooth_rate=-1.0, lr=0.01),
    settings(smooth_rate=0.3, lr=0.002, seed=3),
    settings(smooth_rate=0.0, lr=0.05, momentum=0.5, epochs=5),
]


def trained(dataset: NoisyDataset, trial: TrainingSettings, compiler: Compiler | None) -> Training:
    training = Training(dataset, trial, compiler=compiler)
    while not training.finished:
        training.run_epoch()
    return training


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling on the CPU needs g++")
@pytest.mark.timeout(300)
def test_trials_share_one_graph_and_keep_their_numbers(dataset):
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    compiler = Compiler("on")
    for trial in TRIALS:
        compiled, eager = trained(dataset, trial, compiler), trained(dataset, trial, None)
        for mine, other in zip(compiled.model.parameters(), eager.model.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)
        for mine, other in zip(compiled.history, eager.history, strict=True):
            assert mine.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert "compiled" in compiled.warmup_identity()
        assert "compiled" not in eager.warmup_identity()
    assert counters["stats"]["unique_graphs"] == 1
    assert compiler.warning is None


def test_only_whole_batches_are_compiled(dataset, monkeypatch):
    seen = []

    def compile_nothing(function, **options):
        return lambda network, inputs: seen.append(len(inputs)) or function(network, inputs)

    monkeypatch.setattr(torch, "compile", compile_nothing)
    compiler = Compiler("on")
    compiled, eager = trained(dataset, TRIALS[0], compiler), trained(dataset, TRIALS[0], None)
    assert seen == [64] * (1 + 4 * 4)  # a rehearsal, then four of the five batches of each epoch
    for mine, other in zip(compiled.model.parameters(), eager.model.parameters(), strict=True):
        assert torch.equal(mine, other)  # the rehearsal has left weights and random numbers alone
    Training(dataset, TRIALS[1], compiler=compiler)
    assert len(seen) == 17  # rehearsed once a process
    Training(dataset, settings(batch_size=299), compiler=compiler)
    assert len(seen) == 17  # its only batch takes in the sample that is left over


@pytest.mark.parametrize(
    ("mode", "device", "steps", "expected"),
    [
        ("on", "cpu", 1, True),
        ("off", "cuda", 10**9, False),
        ("auto", "cpu", 10**9, False),
        ("auto", "cuda", AUTO_MIN_STEPS - 1, False),
        ("auto", "cuda", AUTO_MIN_STEPS, True),
    ],
)
def test_where_compiling_is_wanted(mode, device, steps, expected):
    compiler = Compiler(mode)
    assert compiler.wants(device, steps) is expected
    compiler.warning = "mlp cannot be compiled here"
    assert compiler.wants(device, steps) is (mode == "on")  # after a failure auto gives up for good


def failing_with(error: Exception, monkeypatch) -> None:
    def fail(network, inputs):
        raise error

    monkeypatch.setattr(torch, "compile", lambda function, **options: fail)


def test_where_compiling_fails(dataset, monkeypatch):
    failing_with(RuntimeError("\nCannot find a working triton installation.\nMore lines"), monkeypatch)
    with pytest.raises(CompileError, match=r"mlp cannot be compiled here .*triton installation.*; use --compile off"):
        Training(dataset, TRIALS[0], compiler=Compiler("on"))
    auto = Compiler("auto")
    monkeypatch.setattr(auto, "wants", lambda *_: auto.warning is None)  # as on CUDA
    with pytest.warns(RuntimeWarning, match="mlp cannot be compiled here") as told:
        compiled = trained(dataset, TRIALS[0], auto)
    assert len(told) == 1
    assert auto.warning == str(told[0].message)
    assert "\n" not in auto.warning
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(dataset, TRIALS[1], auto)
    assert compiled.history[-1].train_loss == trained(dataset, TRIALS[0], None).history[-1].train_loss
    assert "compiled" not in compiled.warmup_identity()


def test_a_full_device_is_no_reason_to_do_without(dataset, monkeypatch):
    failing_with(torch.OutOfMemoryError("CUDA out of memory"), monkeypatch)
    auto = Compiler("auto")
    monkeypatch.setattr(auto, "wants", lambda *_: True)
    with pytest.raises(torch.OutOfMemoryError):
        Training(dataset, TRIALS[0], compiler=auto)
    assert auto.warning is None


@pytest.mark.slow
def test_torch_takes_the_compiler_that_is_looked_for_before_a_search():
    from torch._inductor import config

    assert config.cpp.cxx == (None, os.environ.get("CXX", "g++"))
