"""The race of qualities: what a pair shares, bfloat16 without its instructions, and README's table."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nls_tune.training.training import Training

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def make_training(precision: str) -> Training:
    from throughput import random_images, settings_of

    settings = settings_of("small_cnn", 64, precision).model_copy(update={"epochs": 2, "warmup_epochs": 1})
    return Training(random_images(160, num_test=20), settings)


def test_a_pair_starts_alike_and_sees_the_same_batches_in_each_epoch():
    from same_quality import SharedDrawsLoop
    from throughput import random_images

    training = make_training("float32")
    loop = SharedDrawsLoop(training, random_images(160, num_test=20))
    for name, value in loop.model.state_dict().items():
        assert torch.equal(value, training.model.state_dict()[name]), name
    for epoch in (1, 2):
        batches = list(training.batches(epoch))
        expected = training.run_epoch().train_loss
        assert loop.train_epoch() == pytest.approx(expected, rel=1e-3)
        again = list(loop.train_loader)
        assert len(again) == len(batches) == 3
        for (inputs, labels), (others, their_labels) in zip(batches, again, strict=True):
            assert torch.equal(labels, their_labels)
            torch.testing.assert_close(inputs, others, rtol=0, atol=1e-5, check_stride=False)


def gradients(training: Training, *, emulated: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of the first batch and the gradient of their loss."""
    from same_quality import FloatProducts

    inputs, labels = next(training.batches(1))
    training.model.train()
    with FloatProducts() if emulated else nullcontext():
        with training.autocast():
            logits = training.model(inputs)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
    parts = [parameter.grad.flatten() for parameter in training.model.parameters()]
    return logits.detach(), torch.cat(parts)


def test_products_in_float32_that_are_rounded_are_those_of_bfloat16():
    logits, gradient = gradients(make_training("bfloat16"), emulated=False)
    emulated_logits, emulated = gradients(make_training("bfloat16"), emulated=True)
    _, exact = gradients(make_training("float32"), emulated=False)
    assert emulated_logits.dtype == logits.dtype == torch.bfloat16
    torch.testing.assert_close(emulated_logits, logits, rtol=2**-6, atol=2**-7)
    rounding = (gradient - exact).norm()
    assert rounding > 1e-3 * exact.norm()  # bfloat16 is not float32
    assert (emulated - gradient).norm() < 0.5 * rounding
    assert (emulated - exact).norm() == pytest.approx(rounding.item(), rel=0.2)


def test_the_accuracy_is_that_of_the_last_epoch():
    from same_quality import test_accuracy as accuracy_of
    from throughput import random_images

    dataset = random_images(160, num_test=20)
    training = Training(dataset, make_training("float32").settings)
    last = training.run_epoch()
    assert accuracy_of(training, replace(dataset, val_indices=dataset.val_indices[:1])) == last.test_accuracy


def test_readme_shows_all_of_its_evidence():
    from same_quality import readme_table

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files = sorted((ROOT / "benchmarks" / "evidence").glob("same_quality_*.json"), reverse=True)
    assert files
    table = readme_table([json.loads(file.read_text(encoding="utf-8")) for file in files])
    assert "\n".join(table) in readme
    assert all(f"benchmarks/evidence/{file.name}" in readme for file in files)
