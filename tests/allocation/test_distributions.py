"""A space of Optuna distributions, as the allocator uses it."""

from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nls_tune.allocation.allocator import Allocator, Group
from nls_tune.allocation.asha import Rungs
from nls_tune.allocation.distributions import DistributionSpace

FINITE = DistributionSpace(
    layers=IntDistribution(1, 5, step=2),
    drop=FloatDistribution(0.0, 0.5, step=0.25),
    norm=CategoricalDistribution(["batch", None]),
    fixed=FloatDistribution(0.1, 0.1),
)


def ask_all(allocator: Allocator) -> list[dict]:
    found = []
    while (suggestion := allocator.ask()) is not None:
        found.append(suggestion.config)
        allocator.tell(suggestion.number, "completed", len(found) / 100, 1.0)
    return found


def test_points_are_all_combinations():
    points = FINITE.points()
    assert len(points) == 3 * 3 * 2
    assert {p["layers"] for p in points} == {1, 3, 5}
    assert {p["drop"] for p in points} == {0.0, 0.25, 0.5}
    assert {p["norm"] for p in points} == {"batch", None}
    assert {p["fixed"] for p in points} == {0.1}


def test_a_real_parameter_has_no_points():
    assert DistributionSpace(lr=FloatDistribution(0.1, 1), layers=IntDistribution(1, 2)).points() is None


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_finite_group_runs_every_point_once_and_ends(sampler):
    allocator = Allocator([Group("a", FINITE, 30)], Rungs(()), sampler=sampler)
    found = ask_all(allocator)
    assert len(found) == 18
    assert all(point in found for point in FINITE.points())


def test_start_points_come_first_and_configurations_are_parameters():
    space = DistributionSpace(lr=FloatDistribution(1e-5, 1, log=True), layers=IntDistribution(1, 9))
    start = ({"lr": 0.5, "layers": 2}, {"layers": 3, "lr": 0.25})
    found = ask_all(Allocator([Group("a", space, 6, start)], Rungs(()), seed=3))
    assert found[:2] == list(start)
    assert all(1e-5 <= c["lr"] <= 1 and c["layers"] in range(1, 10) for c in found)


@pytest.mark.parametrize(
    ("config", "message"),
    [({"lr": 0.5}, "must have"), ({"lr": 0.5, "x": 1, "layers": 1}, "must have"), ({"lr": 2.0, "layers": 1}, "lr")],
)
def test_a_start_point_outside_is_refused(config, message):
    space = DistributionSpace(lr=FloatDistribution(0.1, 1), layers=IntDistribution(1, 2))
    with pytest.raises(ValueError, match=message):
        space.encode(config)


def test_a_space_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        DistributionSpace()
