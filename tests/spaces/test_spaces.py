import itertools
import math
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from pydantic import ValidationError
from scipy.stats import kstest

from nls_tune.errors import InputError
from nls_tune.spaces.settings import RATE_ARMS, arm_of
from nls_tune.spaces.space import SMALLEST_RATE, SearchSpace

LOG1M = {"type": "float", "low": -8, "high": 0.8, "scale": "log1m", "default": -1}
WARMUP = {"type": "int", "low": 0, "high": 15, "default": 5}
TENS = {"type": "int", "low": 10, "high": 30, "step": 10, "default": 20}
LR = {"type": "float", "low": 1e-5, "high": 1e-1, "scale": "log", "default": 3e-3}
BUDGET = {"trials": 20, "epochs": 40, "grace_epochs": 6}


def make_space(**changes: Any) -> SearchSpace:
    values: dict[str, Any] = {
        "name": "a space",
        "space": {"smooth_rate": LOG1M, "warmup_epochs": WARMUP, "lr": LR},
        "fixed": {"model": "mlp"},
        "budget": BUDGET,
    }
    return SearchSpace(**{**values, **changes})


def rates(*values: float, default: float | None = None) -> dict[str, Any]:
    return {"type": "choice", "values": list(values), "default": values[0] if default is None else default}


@st.composite
def rate_parameters(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["linear", "log1m", "choice"]))
    some = st.floats(-20, 0.95).map(lambda r: float(f"{r:.3g}"))
    if kind == "choice":
        values = draw(st.lists(some, min_size=1, max_size=6, unique=True))
        return rates(*values)
    low, high = sorted([draw(some), draw(some)])
    return {"type": "float", "low": low, "high": high, "scale": kind, "default": low}


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    choice = {"type": "choice", "values": [0, 3, 39], "default": 3}
    warmups = st.sampled_from([{**WARMUP, "high": 39}, choice, {**WARMUP, "low": 1, "scale": "log"}])
    more = {
        "milestones": {"type": "choice", "values": [[], [10], [10, 20]], "default": [10]},
        "momentum": {"type": "float", "low": 0.5, "high": 0.99, "default": 0.9},
        "optimizer": {"type": "choice", "values": ["sgd", "adamw"], "default": "sgd"},
        "batch_size": {"type": "int", "low": 16, "high": 512, "scale": "log", "default": 128},
    }
    names = draw(st.sets(st.sampled_from(sorted(more))))
    searched = {"smooth_rate": draw(rate_parameters()), "warmup_epochs": draw(warmups), "lr": LR}
    return make_space(space=searched | {name: more[name] for name in sorted(names)})


def draw_params(distributions: dict[str, BaseDistribution], data: st.DataObject) -> dict[str, Any]:
    def one(d: Any) -> Any:
        if isinstance(d, CategoricalDistribution):
            return data.draw(st.sampled_from(d.choices))
        if isinstance(d, IntDistribution):
            return data.draw(st.integers(d.low, d.high))
        return data.draw(st.floats(d.low, d.high))

    return {name: one(d) for name, d in distributions.items()}


def lies_in(space: SearchSpace, config: dict[str, Any]) -> bool:
    return list(config) == list(space.space) and all(p.contains(config[n]) for n, p in space.space.items())


# Sampling


@given(spaces(), st.data())
def test_every_sampled_configuration_lies_in_the_space_and_in_its_arm(space, data):
    arm = data.draw(st.sampled_from([a for a in RATE_ARMS if space.has_arm(a)]))
    part = space.arm(arm)
    config = part.decode(draw_params(part.distributions(), data))
    assert lies_in(space, config)
    assert arm_of(config["smooth_rate"]) == arm
    training = space.settings(config, seed=3)
    assert training.arm == arm
    assert (training.seed, training.epochs) == (3, 40)


@given(spaces(), st.data())
def test_a_configuration_survives_encoding_and_decoding(space, data):
    arm = data.draw(st.sampled_from([a for a in RATE_ARMS if space.has_arm(a)]))
    part = space.arm(arm)
    distributions = part.distributions()
    config = part.decode(draw_params(distributions, data))
    params = part.encode(config)
    assert list(params) == list(distributions)
    for name, distribution in distributions.items():
        assert distribution._contains(distribution.to_internal_repr(params[name]))
    again = part.decode(params)
    for name, value in config.items():
        assert again[name] == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value)
    # This is the way that results go when a run is resumed.
    training = space.settings(config, seed=0)
    assert part.encode({name: getattr(training, name) for name in space.space}) == params


def test_cross_entropy_samples_everything_but_the_rate_and_other_rates_keep_away_from_zero():
    part = make_space().arm("ce")
    assert set(part.distributions()) == {"warmup_epochs", "lr"}
    assert part.decode({"warmup_epochs": 2, "lr": 0.01}) == {"smooth_rate": 0.0, "warmup_epochs": 2, "lr": 0.01}
    negative, positive = (make_space().arm(a).distributions()["smooth_rate"] for a in ("negative", "positive"))
    assert -math.expm1(negative.low) == pytest.approx(-SMALLEST_RATE)
    assert -math.expm1(positive.high) == pytest.approx(SMALLEST_RATE)


def test_floats_are_rounded_to_what_is_printed_and_do_not_leave_the_space():
    config = make_space().arm("negative").decode({"smooth_rate": math.log(3), "warmup_epochs": 1, "lr": 0.0123456})
    assert config == {"smooth_rate": -2.0, "warmup_epochs": 1, "lr": 0.01235}
    lr = {"type": "float", "low": 0.0012348, "high": 0.0012349, "default": 0.0012348}
    space = make_space(space={"smooth_rate": rates(0), "lr": lr}, fixed={"warmup_epochs": 1})
    config = space.arm("ce").decode({"lr": 0.00123485})
    assert 0.0012348 <= config["lr"] <= 0.0012349


@pytest.mark.parametrize("arm", ["positive", "negative"])
def test_log1m_is_uniform_in_the_logarithm_of_one_minus_the_rate(arm):
    part = make_space().arm(arm)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [part.decode(study.ask(part.distributions()).params)["smooth_rate"] for _ in range(400)]
    low, high = (math.log1p(SMALLEST_RATE), math.log(9)) if arm == "negative" else (math.log(0.2), math.log(0.999))
    assert kstest(np.log1p(-np.array(found)), "uniform", args=(low, high - low)).pvalue > 0.01
    assert kstest(found, "uniform", args=(min(found), max(found) - min(found))).pvalue < 0.01


# Arms and their quotas


@pytest.mark.parametrize("arms", [{"ce": 1, "positive": 4, "negative": 9}, {"ce": 1, "positive": 1, "negative": 2}])
def test_with_more_trials_no_arm_loses_its_own(arms):
    space = make_space(arms=arms)
    for few, more in itertools.pairwise(space.quotas(n) for n in range(1, 30)):
        assert set(few) <= set(more)
    assert set(space.quotas(3)) == set(arms)


@pytest.mark.parametrize(
    ("num_trials", "expected"),
    [
        (1, {"ce": 1}),
        (2, {"ce": 1, "negative": 1}),
        (3, {"ce": 1, "positive": 1, "negative": 1}),
        (4, {"ce": 1, "positive": 1, "negative": 2}),
        (6, {"ce": 2, "positive": 1, "negative": 3}),
        (20, {"ce": 5, "positive": 5, "negative": 10}),
    ],
)
def test_quotas_are_a_quarter_a_quarter_and_a_half(num_trials, expected):
    assert make_space().quotas(num_trials) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-8, 0, {"ce": 4, "negative": 8}),
        (0, 0.8, {"ce": 6, "positive": 6}),
        (-8, -1, {"negative": 12}),
        (0.1, 0.8, {"positive": 12}),
        (0, 0, {"ce": 12}),
    ],
)
def test_an_arm_that_the_space_has_no_part_in_gives_its_share_away(low, high, expected):
    rate = {"type": "float", "low": low, "high": high, "default": low}
    assert make_space(space={"smooth_rate": rate, "warmup_epochs": WARMUP, "lr": LR}).quotas(12) == expected


def test_a_finite_arm_gets_no_more_trials_than_it_has_configurations():
    space = make_space(
        space={"smooth_rate": rates(0, 0.1, 0.2, -1, -2, -4, -8)}, fixed={"warmup_epochs": 1, "lr": 0.01}
    )
    assert space.warmup_lengths() == [1]
    assert space.quotas(7) == {"ce": 1, "positive": 2, "negative": 3}
    assert space.quotas(100) == {"ce": 1, "positive": 2, "negative": 4}


# Finite spaces


def test_points_are_all_combinations_of_a_finite_arm():
    space = make_space(
        space={
            "smooth_rate": rates(0, 0.1, -1, -2),
            "warmup_epochs": {"type": "int", "low": 1, "high": 3, "default": 1},
            "lr": {"type": "float", "low": 0.1, "high": 0.1, "default": 0.1},
            "optimizer": {"type": "choice", "values": ["sgd", "adamw"], "default": "sgd"},
        }
    )
    assert {arm: space.arm(arm).size() for arm in RATE_ARMS} == {"ce": 6, "positive": 6, "negative": 12}
    part = space.arm("negative")
    configs = [part.decode(p) for p in part.points()]
    expected = [
        {"smooth_rate": r, "warmup_epochs": w, "lr": 0.1, "optimizer": o}
        for r in (-1, -2)
        for w in (1, 2, 3)
        for o in ("sgd", "adamw")
    ]
    assert sorted(configs, key=str) == sorted(expected, key=str)
    real = make_space(space={"smooth_rate": LOG1M, "warmup_epochs": WARMUP}, fixed={"lr": 0.1})
    assert real.arm("ce").size() == 16  # a real rate does not make cross-entropy infinite
    assert real.arm("negative").size() is real.arm("negative").points() is None


# Start points


def test_start_points_are_those_of_the_rates_and_then_the_spaces_own():
    space = make_space(start=({"smooth_rate": -3.0, "lr": 0.05}, {"warmup_epochs": 9}))
    assert space.arm("ce").start([0.0, 0.1, -4.0]) == ({"smooth_rate": 0.0, "warmup_epochs": 5, "lr": 3e-3},)
    assert space.arm("negative").start([0.0, 0.1, -4.0]) == (
        {"smooth_rate": -4.0, "warmup_epochs": 5, "lr": 3e-3},
        {"smooth_rate": -3.0, "warmup_epochs": 5, "lr": 0.05},
        {"smooth_rate": -1.0, "warmup_epochs": 9, "lr": 3e-3},
    )
    # Equal ones run once.
    assert len(space.arm("negative").start([-4.0, -4.0])) == 3
    assert len(space.arm("ce").start([0.0, -0.0])) == 1


def test_a_rate_beyond_the_space_moves_to_its_end_or_its_nearest_choice():
    assert [p["smooth_rate"] for p in make_space().arm("negative").start([-50.0])] == [-8]
    rate = {"type": "float", "low": -8, "high": 0, "default": -1}
    without_positive = make_space(space={"smooth_rate": rate, "warmup_epochs": WARMUP, "lr": LR})
    assert without_positive.arm("positive").start([0.1]) == ()
    assert [p["smooth_rate"] for p in without_positive.arm("ce").start([0.0, 0.1])] == [0]
    space = make_space(space={"smooth_rate": rates(0, -1, -2, -4), "warmup_epochs": WARMUP, "lr": LR})
    assert [space.clip_rate(r) for r in (-3.5, -100, 0.8, -1.4)] == [-4, -4, 0, -1]


# Another number of epochs


def test_another_number_of_epochs_scales_warmups_milestones_and_grace():
    space = make_space(
        space={"smooth_rate": LOG1M, "warmup_epochs": WARMUP, "lr": LR},
        fixed={"milestones": [10, 21], "warmup_milestones": [4]},
        start=({"warmup_epochs": 10}, {"lr": 0.01}),
    ).with_epochs(20)
    warmup = space.space["warmup_epochs"]
    assert (warmup.low, warmup.high, warmup.default) == (0, 8, 2)
    assert space.fixed == {"milestones": [5, 10], "warmup_milestones": [2]}
    assert space.start == ({"warmup_epochs": 5}, {"lr": 0.01})
    assert (space.budget.epochs, space.budget.grace_epochs, space.budget.trials) == (20, 3, 20)


@pytest.mark.parametrize(("before", "epochs", "after"), [(30, 60, 45), (39, 10, 9), (39, 1, 0)])
def test_a_fixed_or_listed_warmup_is_scaled_and_never_takes_all_epochs(before, epochs, after):
    fixed = make_space(space={"smooth_rate": LOG1M, "lr": LR}, fixed={"warmup_epochs": before}).with_epochs(epochs)
    assert fixed.fixed["warmup_epochs"] == after
    choices = {"type": "choice", "values": [0, before], "default": before}
    space, start = {"smooth_rate": LOG1M, "warmup_epochs": choices, "lr": LR}, ({"warmup_epochs": before},)
    listed = make_space(space=space, start=start).with_epochs(epochs)
    assert listed.space["warmup_epochs"].values == tuple(sorted({0, after}))
    assert listed.start == ({"warmup_epochs": after},)
    for one in (fixed, listed):
        one.check_settings()


@given(spaces(), st.integers(1, 300), st.integers(1, 40), st.data())
def test_every_number_of_epochs_leaves_a_space_that_can_be_sampled(space, epochs, grace, data):
    space = space.model_copy(update={"budget": space.budget.model_copy(update={"grace_epochs": grace})})
    scaled = space.with_epochs(epochs)
    scaled.check_settings()
    assert 1 <= scaled.budget.grace_epochs <= epochs
    arm = data.draw(st.sampled_from([a for a in RATE_ARMS if scaled.has_arm(a)]))
    part = scaled.arm(arm)
    config = part.decode(draw_params(part.distributions(), data))
    assert 0 <= config["warmup_epochs"] <= epochs - 1
    assert scaled.settings(config, 0).epochs == epochs


def test_no_epoch_is_refused_and_the_same_number_changes_nothing():
    space = make_space()
    with pytest.raises(InputError, match="--epochs must be at least 1, got 0"):
        space.with_epochs(0)
    assert space.with_epochs(40) is space


# What is refused


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"space": {"lr": LR}}, ["space must hold smooth_rate"]),
        ({"space": {"smooth_rate": {"type": "int", "low": -1, "high": 1, "default": 0}}}, ["float or a choice"]),
        ({"space": {"smooth_rate": LOG1M, "lrs": LR}}, ["'lrs'", "did you mean 'lr'?"]),
        ({"fixed": {"lr": 0.1}}, ["lr stands in both space and fixed"]),
        ({"fixed": {"seed": 1}}, ["seed cannot stand", "--seed"]),
        ({"fixed": {"epochs": 1}}, ["epochs cannot stand", "--epochs"]),
        ({"space": {"smooth_rate": LOG1M, "lr": {**LR, "scale": "log1m"}}}, ["log1m is for smooth_rate", "lr"]),
        ({"arms": {"ce": 0}}, ["no arm has both a share"]),
        ({"arms": {"positive": 1}, "space": {"smooth_rate": rates(0, -1)}}, ["no arm has both a share"]),
        ({"arms": {"ce": -1}}, ["arms", "ce", "greater than or equal to 0"]),
        ({"start": ({"warmup": 1},)}, ["'warmup'", "did you mean 'warmup_epochs'?"]),
        ({"budget": {"trials": 0}}, ["budget", "trials"]),
        ({"budget": {"reduction_factor": 1}}, ["reduction_factor", "greater than 1"]),
        ({"colour": "red"}, ["colour"]),
    ],
)
def test_a_space_that_breaks_a_rule_is_refused(changes, fragments):
    with pytest.raises(ValidationError) as caught:
        make_space(**changes)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"fixed": {"batch_size": 1}}, ["batch_size", "got 1"]),
        ({"space": {"smooth_rate": LOG1M, "warmup_epochs": {**WARMUP, "high": 40}}}, ["warmup_epochs", "40 of"]),
        ({"space": {"smooth_rate": LOG1M, "momentum": {"type": "float", "low": 0.5, "high": 1, "default": 0.9}}},
         ["momentum", "less than 1"]),
        ({"start": ({"lr": 5},)}, ["start {'lr': 5", "lr must lie in the space, got 5"]),
        ({"start": ({"warmup_epochs": -1},)}, ["start", "warmup_epochs", "got -1"]),
        ({"space": {"smooth_rate": rates(0, -1)}, "start": ({"smooth_rate": -3},)}, ["lie in the space, got -3"]),
        ({"space": {"smooth_rate": LOG1M, "warmup_epochs": TENS}, "start": ({"warmup_epochs": 25},)},
         ["warmup_epochs must lie in the space, got 25"]),
    ],
)  # fmt: skip
def test_settings_that_no_training_accepts_are_found_before_the_search(changes, fragments):
    with pytest.raises(InputError) as caught:
        make_space(**changes).check_settings()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("warmup_epochs", {"type": "float", "low": 0, "high": 10, "default": 4}),
        ("batch_size", {"type": "float", "low": 32, "high": 256, "scale": "log", "default": 64}),
        ("flip", {"type": "float", "low": 0, "high": 1, "default": 0}),
        ("smooth_rate", rates(-1, "a lot")),
    ],
)
def test_values_of_another_type_than_the_setting_s_are_refused(name, parameter):
    # The ends of a real range may be whole numbers; what is drawn between them is not.
    with pytest.raises((ValidationError, InputError), match=name):
        make_space(space={"smooth_rate": LOG1M, name: parameter}).check_settings()


def test_whole_numbers_on_a_grid_are_sampled_encoded_and_listed_on_it():
    space = make_space(space={"smooth_rate": rates(0, -1), "warmup_epochs": TENS}, fixed={"lr": 0.1})
    part = space.arm("ce")
    distribution = part.distributions()["warmup_epochs"]
    assert (distribution.low, distribution.high, distribution.step) == (10, 30, 10)
    encoded = [part.encode({"smooth_rate": 0.0, "warmup_epochs": w})["warmup_epochs"] for w in (1, 17, 30, 99)]
    assert encoded == [10, 20, 30, 30]
    assert [point["warmup_epochs"] for point in part.points()] == [10, 20, 30]


@pytest.mark.parametrize("epochs", [1, 2, 7, 13, 20, 39, 41, 57, 400])
def test_a_grid_of_another_length_is_valid(epochs):
    space = {"smooth_rate": LOG1M, "warmup_epochs": TENS, "lr": LR}
    scaled = make_space(space=space, start=({"warmup_epochs": 30},)).with_epochs(epochs)
    SearchSpace.model_validate(scaled.model_dump()).check_settings()
    assert scaled.space["warmup_epochs"].high < epochs


@pytest.mark.parametrize(
    ("changes", "lengths", "shared"),
    [
        ({}, [10, 20, 30], True),
        ({"warmup_epochs": {"type": "choice", "values": [8, 0, 3], "default": 0}}, [3, 8], True),
        ({"warmup_epochs": {"type": "int", "low": 0, "high": 0, "default": 0}}, [], False),
        ({"warmup_lr": {"type": "choice", "values": [0.1, 0.2], "default": 0.1}}, [10, 20, 30], True),
        ({"warmup_lr": {**LR}}, [10, 20, 30], False),
        ({"gamma": {**LR}}, [10, 20, 30], True),
    ],
)
def test_which_warm_ups_a_space_can_ask_for(changes, lengths, shared):
    space = make_space(space={"smooth_rate": LOG1M, "warmup_epochs": TENS, "lr": LR, **changes})
    assert (space.warmup_lengths(), space.shares_warmups()) == (lengths, shared)
