"""Averages of weights against their definition, in float64 and with every snapshot kept."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nls_tune.training.averages import WeightAverages, floating_state

spans = st.lists(st.floats(0.01, 1), min_size=1, max_size=3)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
    model[1].weight.requires_grad_(False)
    return model


def step(model: nn.Module, number: int) -> None:
    """Move weights as an optimiser does, in place, and the statistics of batch norm by a forward pass."""
    generator = torch.Generator().manual_seed(number)
    model.train()(torch.randn(5, 2, 2, 2, generator=generator))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def slow_average(snapshots: list[Tensor], span: float) -> Tensor:
    """The sum of all snapshots, each with the share that the later ones have left of it."""
    shares = [1 / (1 + span * k) for k in range(len(snapshots))]
    total = torch.zeros_like(snapshots[0], dtype=torch.float64)
    for k, snapshot in enumerate(snapshots):
        share = shares[k]
        for later in shares[k + 1 :]:
            share *= 1 - later
        total += share * snapshot.double()
    return total


def run(model: nn.Module, averages: WeightAverages, steps: int, begin: int = 0) -> list[dict[str, Tensor]]:
    """Train for some steps, and return the weights after every fourth."""
    kept = []
    for number in range(1, steps + 1):
        step(model, begin + number)
        averages.update()
        if number % 4 == 0:
            kept.append(values(model))
    return kept


@settings(max_examples=settings.default.max_examples // 2)
@given(spans, st.integers(0, 43))
def test_an_average_is_that_of_the_definition(spans, steps):
    model = network()
    averages = WeightAverages(model, spans)
    snapshots = run(model, averages, steps) or [values(model)]
    assert len(averages.models) == len(spans)
    for span, average in zip(spans, averages.models, strict=True):
        for name, found in average.state_dict().items():
            if found.is_floating_point():
                expected = slow_average([snapshot[name] for snapshot in snapshots], span)
                torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
            else:
                assert torch.equal(found, snapshots[-1][name])  # a counter is no average


def test_span_1_is_the_mean_and_a_small_one_reaches_back_less():
    model = network()
    averages = WeightAverages(model, (1.0, 0.2))
    weights = torch.stack([snapshot["3.weight"] for snapshot in run(model, averages, 80)])
    torch.testing.assert_close(averages.models[0][3].weight, weights.mean(0))
    # (eta + 1) / (eta + k) at eta = 4: the share of the k-th of n is about k ** 4.
    k = torch.arange(1, 21, dtype=torch.float64)
    shares = k * (k + 1) * (k + 2) * (k + 3)
    expected = (shares.view(-1, 1, 1) * weights).sum(0) / shares.sum()
    torch.testing.assert_close(averages.models[1][3].weight.double(), expected, rtol=1e-4, atol=1e-5)


@given(spans, st.integers(0, 11), st.integers(0, 11))
@settings(max_examples=settings.default.max_examples // 4)
def test_a_restart_forgets_what_was(spans, before, after):
    model = network()
    averages = WeightAverages(model, spans)
    run(model, averages, before)
    averages.restart()
    for average in averages.models:
        for found, now in zip(values(average).values(), values(model).values(), strict=True):
            assert torch.equal(found, now)
    fresh = WeightAverages(other := copy.deepcopy(model), spans)
    run(model, averages, after, begin=99)
    run(other, fresh, after, begin=99)
    for one, two in zip(averages.models, fresh.models, strict=True):
        for a, b in zip(values(one).values(), values(two).values(), strict=True):
            assert torch.equal(a, b)


def test_a_mask_is_a_constant_and_no_divergence():
    model = nn.Sequential(network(), nn.Identity())
    mask = torch.tensor([0.0, -torch.inf])
    model.register_buffer("mask", mask.clone())
    averages, state = WeightAverages(model, (0.5,)), floating_state(model)
    with torch.no_grad():
        for number in range(9):
            model[0][3].weight += number
            averages.update()
    assert torch.equal(averages.models[0].mask, mask)
    assert all(one.isfinite().all() for one in state)
    model[0][1].running_mean[0] = torch.nan
    assert not all(one.isfinite().all() for one in state)


def test_averages_do_not_train_and_the_network_does_not_see_them():
    model, alone = network(), network()
    model[0].weight.requires_grad_(False)  # frozen, as whitening is
    alone[0].weight.requires_grad_(False)
    averages = WeightAverages(model, (0.5,))
    run(model, averages, 9)
    for number in range(1, 10):
        step(alone, number)
    for found, expected in zip(values(model).values(), values(alone).values(), strict=True):
        assert torch.equal(found, expected)
    (average,) = averages.models
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert torch.equal(average[0].weight, model[0].weight)
    assert torch.equal(average[1].weight, model[1].weight)
    assert not torch.equal(average[3].weight, model[3].weight)


@pytest.mark.parametrize("stop", range(9))
def test_averages_go_on_from_their_state_bit_by_bit(stop):
    model, other = network(), network(seed=1)
    averages = WeightAverages(model, (1.0, 0.3))
    run(model, averages, stop)
    later = WeightAverages(other, (1.0, 0.3))
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    later.load_state_dict(copy.deepcopy(averages.state_dict()))
    for one, two in ((model, averages), (other, later)):
        run(one, two, 13, begin=50)
    for one, two in zip(averages.models, later.models, strict=True):
        for a, b in zip(values(one).values(), values(two).values(), strict=True):
            assert torch.equal(a, b)
