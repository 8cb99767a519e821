"""The rates of a sweep reach from end to end of their range, evenly, with 0 among them."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nls_tune.errors import InputError
from nls_tune.plan.sweep import spread_settings, sweep_rates
from nls_tune.spaces.reading import load_space
from nls_tune.spaces.settings import arm_of


def space(low=-8.0, high=0.8, **changes):
    changes = {"smooth_rate.default": 0, "smooth_rate.low": low, "smooth_rate.high": high, **changes}
    return load_space("twonorm", overrides=tuple(f"{key}={value}" for key, value in changes.items()))


def choices(tmp_path, values):
    path = tmp_path / "choices.yaml"
    path.write_text(
        f"space:\n  smooth_rate: {{type: choice, values: {list(values)}, default: 0}}\n"
        "  warmup_epochs: {type: int, low: 0, high: 2, default: 1}\n"
        "  lr: {type: float, low: 0.001, high: 0.1, scale: log, default: 0.01}\n"
        "budget: {trials: 9, epochs: 8, grace_epochs: 2}\n"
    )
    return load_space(str(path))


@given(low=st.floats(-20, -0.5), high=st.floats(0.05, 0.95), num=st.integers(3, 30))
def test_rates_rise_evenly_from_end_to_end_and_hold_0(low, high, num):
    rates = sweep_rates(space(low, high), num)
    assert len(rates) == num
    assert list(rates) == sorted(set(rates))
    assert 0.0 in rates
    even = (math.log1p(-low) - math.log1p(-high)) / (num - 1)
    steps = [math.log1p(-a) - math.log1p(-b) for a, b in itertools.pairwise(rates)]
    zero = rates.index(0.0)
    if 0 < zero < num - 1:
        assert (rates[0], rates[-1]) == (low, high)
    far = [step for i, step in enumerate(steps) if i not in (zero - 1, zero)]
    assert far == pytest.approx([even] * len(far), rel=0.02, abs=2e-3)


def test_arms_that_are_left_out_have_no_rates():
    rates = sweep_rates(space(**{"arms.positive": 0}), 9)
    assert {arm_of(rate) for rate in rates} == {"ce", "negative"}
    assert (len(rates), rates[0], rates[-1]) == (9, -8, 0)
    rates = sweep_rates(space(**{"arms.negative": 0, "arms.ce": 0}), 9)
    assert {arm_of(rate) for rate in rates} == {"positive"}
    assert rates[-1] == 0.8


@pytest.mark.parametrize(("num", "expected"), [(3, [-4, 0, 0.5]), (4, [-4, -1, 0, 0.5]), (9, [-4, -1, 0, 0.2, 0.5])])
def test_of_a_list_as_many_are_taken(num, expected, tmp_path):
    assert list(sweep_rates(choices(tmp_path, [0, 0.5, -4, -1, 0.2]), num)) == expected


def test_a_list_may_hold_1(tmp_path):
    assert list(sweep_rates(choices(tmp_path, [0, 0.5, 1, -4]), 3)) == [-4, 0, 1]


def test_a_range_of_one_rate_is_refused():
    with pytest.raises(InputError, match=r"--sweep needs three rates or more.*leave 1; leave it out"):
        sweep_rates(space(-1, -1, **{"smooth_rate.default": -1}), 5)


def test_too_few_rates_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"--sweep needs three rates or more.*leave 2; leave it out"):
        sweep_rates(choices(tmp_path, [0, 0.5]), 5)


@given(num=st.integers(1, 12), seed=st.integers(0, 99))
def test_settings_are_spread_over_their_ranges_each_part_once(num, seed):
    configs = spread_settings(space(), num, seed)
    assert len(configs) == num
    assert {config["smooth_rate"] for config in configs} == {0.0}
    low, high = math.log(1e-4), math.log(5e-2)  # the learning rates of the space
    shares = sorted((math.log(config["lr"]) - low) / (high - low) for config in configs)
    assert shares == pytest.approx([(i + 0.5) / num for i in range(num)], abs=0.001)
    assert len({config["warmup_epochs"] for config in configs}) == min(num, 11)
    assert spread_settings(space(), num, seed) == configs


def test_settings_of_few_values_stand_there_once(tmp_path):
    few = load_space("twonorm", overrides=("lr.low=0.003", "lr.high=0.003", "warmup_epochs.high=4"))
    configs = spread_settings(few, 20, 0)
    assert sorted(config["warmup_epochs"] for config in configs) == [0, 1, 2, 3, 4]
    assert spread_settings(few, 0, 0) == ()
