"""Groups take over what is best in others: the allocator's side and the search's."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nls_tune.allocation.allocator import Allocator, Group
from nls_tune.allocation.asha import Rungs
from nls_tune.noise import noise_cancelling_rate
from nls_tune.plan.plan import make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.plan.start_points import translated
from nls_tune.spaces.settings import arm_of
from nls_tune.spaces.space import SearchSpace

SPACE = SearchSpace(
    name="a space",
    space={
        "smooth_rate": {"type": "float", "low": -8, "high": 0.8, "scale": "log1m", "default": -1},
        "warmup_epochs": {"type": "int", "low": 0, "high": 4, "default": 2},
        "lr": {"type": "float", "low": 1e-4, "high": 0.1, "scale": "log", "default": 0.01},
    },
    budget={"epochs": 9, "grace_epochs": 1},
)
NEGATIVE = SPACE.arm("negative")


def double(config):
    return {**config, "smooth_rate": 2 * config["smooth_rate"]}


def allocator_of(*, num_trials=9, siblings=("teacher", "second", "third"), translate=double):
    teachers = [Group(key, NEGATIVE, 0) for key in siblings]  # none of their own, so that only the learner is asked
    learner = Group("learner", NEGATIVE, num_trials, siblings=dict.fromkeys(siblings, translate))
    return Allocator([*teachers, learner], Rungs(()))


def teach(allocator, key, values, outcome="completed"):
    """Let a group end with trials of some values; the rate of each is minus its value."""
    for value in values:
        config = {"smooth_rate": -value, "warmup_epochs": 1, "lr": 0.01}
        allocator.adopt(key, config, outcome, value, 1.0, {})


def next_of_learner(allocator):
    suggestion = allocator.ask()
    assert suggestion.group == "learner"
    return suggestion


def test_the_best_of_another_group_is_tried_as_it_looks_here():
    allocator = allocator_of()
    teach(allocator, "teacher", [0.5, 0.9, 0.7])
    assert next_of_learner(allocator).config == {"smooth_rate": -1.8, "warmup_epochs": 1, "lr": 0.01}


def test_each_group_teaches_once_and_two_at_most():
    allocator = allocator_of()
    for key, values in (("teacher", [0.1, 0.2, 0.3]), ("second", [0.4, 0.5, 0.6]), ("third", [0.7, 0.8, 0.9])):
        teach(allocator, key, values)
    rates = [next_of_learner(allocator).config["smooth_rate"] for _ in range(4)]
    assert rates[:2] == [-0.6, -1.2]
    assert -1.8 not in rates


def test_two_completed_trials_do_not_teach_nor_do_stopped_ones():
    allocator = allocator_of()
    teach(allocator, "teacher", [0.5, 0.9])
    teach(allocator, "second", [0.6, 0.7, 0.8], outcome="stopped")
    assert next_of_learner(allocator).config["lr"] != 0.01


def test_a_group_that_knows_enough_itself_learns_from_none():
    allocator = allocator_of(num_trials=9)  # its sampler has a model after 3 trials
    teach(allocator, "teacher", [0.5, 0.9, 0.7])
    teach(allocator, "learner", [0.31, 0.32, 0.33])
    assert next_of_learner(allocator).config["lr"] != 0.01


def test_a_configuration_that_is_known_is_not_taken_over():
    allocator = allocator_of(translate=dict)
    teach(allocator, "teacher", [0.5, 0.9, 0.7])
    teach(allocator, "learner", [0.9])
    assert next_of_learner(allocator).config["smooth_rate"] != -0.9


def test_what_is_taken_over_stands_in_the_study():
    allocator = allocator_of()
    teach(allocator, "teacher", [0.5, 0.9, 0.7])
    suggestion = next_of_learner(allocator)
    allocator.tell(suggestion.number, "completed", 0.8)
    (trial,) = allocator.study("learner").trials
    assert trial.value == 0.8
    assert trial.params["smooth_rate"] == pytest.approx(math.log1p(1.8))


RATES = st.floats(-7.9, 0.79).filter(lambda r: abs(r) > 0.01)
NOISE = st.floats(0, 0.6)


@given(RATES, NOISE, NOISE)
def test_translation_keeps_the_arm_and_the_space(rate, there, here):
    arm = arm_of(rate)
    stars = [noise_cancelling_rate(noise, 10) for noise in (there, here)]
    config = translated(SPACE, arm, *stars, {"smooth_rate": rate, "warmup_epochs": 3, "lr": 0.02})
    assert arm_of(config["smooth_rate"]) == arm
    assert -8 <= config["smooth_rate"] <= 0.8
    assert (config["warmup_epochs"], config["lr"]) == (3, 0.02)


def test_translation_keeps_the_distance_to_the_noise_cancelling_rate():
    there, here = noise_cancelling_rate(0.2, 10), noise_cancelling_rate(0.4, 10)
    config = translated(SPACE, "negative", there, here, {"smooth_rate": -1.0, "warmup_epochs": 1, "lr": 0.01})
    distance = math.log(2) - math.log1p(-there)
    assert math.log1p(-config["smooth_rate"]) - math.log1p(-here) == pytest.approx(distance, abs=1e-3)


@pytest.mark.parametrize(("there", "here"), [(None, -1.0), (-1.0, None)])
def test_without_a_noise_cancelling_rate_rates_stay(there, here):
    config = {"smooth_rate": -0.5, "warmup_epochs": 1, "lr": 0.01}
    assert translated(SPACE, "negative", there, here, config) == config


def test_the_levels_of_a_search_learn_from_one_another_arm_by_arm():
    settings = check_search_settings(dataset="twonorm", noise=("symmetric:0.2", "symmetric:0.4"), transfer=True)
    groups = {g.key: g for g in make_plan(settings, 0, progress=False).groups()}
    assert set(groups["symmetric:0.2/negative"].siblings) == {"symmetric:0.4/negative"}
    assert set(groups["symmetric:0.4/ce"].siblings) == {"symmetric:0.2/ce"}
    config = {"smooth_rate": -2 / 3, "warmup_epochs": 2, "lr": 0.003}
    moved = groups["symmetric:0.4/negative"].siblings["symmetric:0.2/negative"](config)
    assert moved["smooth_rate"] == pytest.approx(-4.0)
