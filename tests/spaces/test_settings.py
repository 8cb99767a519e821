import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from nls_tune.errors import InputError
from nls_tune.spaces.settings import TrainingSettings, arm_of, check_training_settings, describe_validation_error


def rates_of(**values):
    settings = TrainingSettings(**values)
    return [settings.learning_rate(epoch) for epoch in range(1, settings.epochs + 1)]


def test_a_constant_schedule_changes_at_the_phase_alone():
    values = {"epochs": 5, "warmup_epochs": 2, "warmup_lr": 0.1, "lr": 0.01}
    assert rates_of(**values) == [0.1, 0.1, 0.01, 0.01, 0.01]
    phases = [TrainingSettings(**values).phase(epoch) for epoch in range(1, 6)]
    assert phases == ["warmup", "warmup", "gls", "gls", "gls"]


def test_warmup_milestones_are_absolute_epochs_after_which_the_rate_falls():
    rates = rates_of(epochs=6, warmup_epochs=5, warmup_lr=1.0, warmup_milestones=(2, 4), warmup_gamma=0.5, lr=7.0)
    assert rates == [1, 1, 0.5, 0.5, 0.25, 7]


@given(st.integers(1, 30), st.integers(1, 30), st.lists(st.integers(1, 40), max_size=4))
def test_warmups_of_different_lengths_are_prefixes_of_each_other(first, second, milestones):
    shared = {"warmup_milestones": tuple(milestones), "warmup_lr": 0.3, "warmup_gamma": 0.2, "lr": 1e-3}
    a = rates_of(epochs=first + 3, warmup_epochs=first, schedule="cosine", **shared)
    b = rates_of(epochs=second + 9, warmup_epochs=second, **shared)
    common = min(first, second)
    assert a[:common] == b[:common]


def test_milestones_count_from_the_start_of_the_gls_phase():
    rates = rates_of(epochs=7, warmup_epochs=2, lr=1.0, schedule="step", milestones=(1, 3), gamma=0.5, warmup_lr=9.0)
    assert rates == [9, 9, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_milestones_are_for_the_step_schedule_alone(schedule):
    assert rates_of(epochs=6, schedule=schedule, milestones=(1,)) == rates_of(epochs=6, schedule=schedule)


@given(st.integers(0, 20), st.integers(1, 40))
def test_cosine_falls_from_lr_towards_zero_over_the_gls_phase(warmup, length):
    rates = rates_of(epochs=warmup + length, warmup_epochs=warmup, lr=0.5, schedule="cosine")[warmup:]
    expected = [0.25 * (1 + math.cos(math.pi * i / length)) for i in range(length)]
    assert rates == pytest.approx(expected)
    assert rates[0] == 0.5
    assert all(rate > 0 for rate in rates)
    assert rates == sorted(rates, reverse=True)


def test_a_warm_up_may_have_its_own_momentum_and_weight_decay():
    settings = TrainingSettings(epochs=3, warmup_epochs=2, warmup_momentum=0, warmup_weight_decay=0.1)
    assert settings.nesterov  # the warm-up is plain SGD all the same
    assert [settings.momentum_at(epoch) for epoch in (1, 2, 3)] == [0, 0, 0.9]
    assert [settings.weight_decay_at(epoch) for epoch in (1, 2, 3)] == [0.1, 0.1, 5e-4]
    same = TrainingSettings(epochs=3, warmup_epochs=2)
    assert [(same.momentum_at(epoch), same.weight_decay_at(epoch)) for epoch in (1, 3)] == [(0.9, 5e-4)] * 2


def cycle(**values):
    return TrainingSettings(**{"schedule": "one_cycle", "epochs": 10, "lr": 1.0, "warmup_lr": 1.0, **values})


def test_one_cycle_step_by_step():
    """Four steps per epoch; the table is by hand: up to the peak at 2.3 of 10 epochs, then down."""
    settings = cycle(epochs=10)
    up = [0.2, 0.28696, 0.37391, 0.46087, 0.54783, 0.63478, 0.72174, 0.80870, 0.89565, 0.98261]
    down = [0.97584, 0.94565, 0.91545]
    found = [settings.learning_rate(epoch, step / 4) for epoch in range(1, 5) for step in range(4)]
    assert found[:13] == pytest.approx(up + down, abs=1e-5)
    assert settings.learning_rate(10, 1.0) == pytest.approx(0.07)
    rates = [settings.learning_rate(epoch, step / 50) for epoch in range(1, 11) for step in range(50)]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates.index(max(rates)) == 115  # 23 % of 500 steps


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 0.999))
def test_warmups_of_a_cycle_are_prefixes_and_each_phase_has_its_own_peak(first, second, progress):
    one, two = cycle(warmup_epochs=first, lr=0.01), cycle(warmup_epochs=second, lr=0.3, smooth_rate=-2.0)
    whole = cycle()
    for epoch in range(1, 11):
        rate = whole.learning_rate(epoch, progress)
        for settings in (one, two):
            peak = 1.0 if epoch <= settings.warmup_epochs else settings.lr
            assert settings.learning_rate(epoch, progress) == pytest.approx(peak * rate)


def test_other_schedules_stay_the_same_within_an_epoch():
    for schedule in ("constant", "step", "cosine"):
        settings = cycle(schedule=schedule, milestones=(2,), warmup_epochs=3, warmup_milestones=(2,))
        for epoch in range(1, 11):
            assert settings.learning_rate(epoch, 0.9) == settings.learning_rate(epoch)


def test_warmups_of_a_cycle_depend_on_the_length_of_the_training_and_others_do_not():
    assert cycle().warmup_settings() == cycle(warmup_epochs=3, lr=0.5, smooth_rate=-1.0).warmup_settings()
    assert cycle().warmup_settings() != cycle(epochs=11).warmup_settings()
    assert cycle().warmup_settings() != cycle(schedule="constant").warmup_settings()
    constant = cycle(schedule="constant").warmup_settings()
    assert constant == cycle(schedule="cosine", epochs=99).warmup_settings()


def test_the_epoch_that_counts_is_the_last_one_of_a_cycle():
    assert [cycle().objective, cycle(schedule="cosine").objective] == ["last", "best"]


@pytest.mark.parametrize("span", [0, -0.5, 1.5, math.nan])
def test_a_span_is_a_share(span):
    with pytest.raises(ValidationError, match="average_spans"):
        TrainingSettings(average_spans=(0.5, span))


@pytest.mark.parametrize("rate", [0, -1])
@pytest.mark.parametrize(("warmup", "expected"), [(0, 3), (4, 7), (6, 9), (7, None), (9, None)])
def test_a_rung_judges_after_as_many_gls_epochs_whatever_the_warm_up_and_never_at_the_end(rate, warmup, expected):
    settings = TrainingSettings(epochs=10, warmup_epochs=warmup, smooth_rate=rate)
    assert settings.rung_epoch(3) == expected
    assert [settings.gls_epochs(epoch) for epoch in (1, warmup, warmup + 3)] == [int(warmup == 0), 0, 3]


@pytest.mark.parametrize(
    ("rate", "arm"), [(0, "ce"), (-0.0, "ce"), (1e-300, "positive"), (1.0, "positive"), (-1e-300, "negative")]
)
def test_arms_meet_at_exactly_zero_and_only_cross_entropy_may_win_by_its_warmup(rate, arm):
    settings = TrainingSettings(epochs=10, warmup_epochs=5, smooth_rate=rate)
    assert arm_of(rate) == settings.arm == arm
    assert settings.first_counting_epoch == (1 if arm == "ce" else 6)


@pytest.mark.parametrize(
    ("values", "fragments"),
    [
        ({"smooth_rat": 0.1}, ["'smooth_rat'", "did you mean 'smooth_rate'?"]),
        ({"smooth_rate": 1.5}, ["smooth_rate", "1", "got 1.5"]),
        ({"smooth_rate": float("nan")}, ["smooth_rate", "finite"]),
        ({"smooth_rate": -math.inf}, ["smooth_rate", "finite"]),
        ({"lr": 0}, ["lr", "greater than 0", "got 0"]),
        ({"lr": "fast"}, ["lr", "'fast'"]),
        ({"epochs": 0}, ["epochs", "got 0"]),
        ({"epochs": 5.5}, ["epochs", "5.5"]),
        ({"batch_size": 1}, ["batch_size", "2", "got 1"]),
        ({"momentum": 1.0}, ["momentum", "less than 1", "got 1.0"]),
        ({"schedule": "linear"}, ["schedule", "'cosine'", "got 'linear'"]),
        ({"milestones": [3, 0]}, ["milestones.1", "got 0"]),
        ({"seed": -1}, ["seed", "got -1"]),
        ({"seed": 2**63}, ["seed", "less than"]),
        ({"epochs": 5, "warmup_epochs": 5}, ["warmup_epochs", "5 of 5", "lower warmup_epochs or raise epochs"]),
        ({"momentum": 0, "nesterov": True}, ["nesterov", "momentum", "got 0", "raise momentum"]),
    ],
)
def test_a_wrong_value_is_named_in_one_line(values, fragments):
    with pytest.raises(InputError) as caught:
        check_training_settings(values, "space.yaml")
    message = str(caught.value)
    assert message.startswith("space.yaml: ")
    assert len(message.splitlines()) == 1
    for fragment in fragments:
        assert fragment in message


def test_without_a_place_the_message_begins_with_the_setting():
    with pytest.raises(InputError, match=r"^lr: "):
        check_training_settings({"lr": -1})
    with pytest.raises(InputError, match=r"^unknown training setting 'lrs'"):
        check_training_settings({"lrs": 1})


class _Outer(BaseModel):
    class Inner(BaseModel):
        values: list[int]
        text: str

    inner: Inner


def _error(**values):
    with pytest.raises(ValidationError) as caught:
        _Outer(**values)
    return caught.value


def test_a_description_gives_place_value_rule_and_how_many_more():
    message = describe_validation_error(_error(inner={"values": [1, "x"], "text": 3}), "file.yaml")
    assert message.startswith("file.yaml: inner.values.1: ")
    assert "got 'x'" in message
    assert message.endswith("(and 1 more)")


def test_a_description_shows_no_objects_and_counts_no_more_than_there_are():
    message = describe_validation_error(_error(inner=object()))
    assert "got" not in message
    assert "more)" not in message
