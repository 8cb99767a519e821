from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nls_tune.report.text import configuration, duration, number, percent, points, rate


@pytest.mark.parametrize(("value", "text"), [(0.12345, "12.3 %"), (1.0, "100.0 %"), (0.0, "0.0 %"), (None, "–")])
def test_percentages(value, text):
    assert percent(value) == text


def test_percentages_with_other_digits():
    assert percent(0.12345, 2) == "12.35 %"
    assert percent(0.5, 0) == "50 %"


@pytest.mark.parametrize(("value", "text"), [(0.0123, "+1.2"), (-0.0123, "−1.2"), (1, "+100.0")])
def test_points_carry_their_sign(value, text):
    assert points(value) == text


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-5, -1e-5, -0.0004])
def test_what_rounds_to_nothing_has_no_minus(value):
    assert points(value) in ("0.0", "+0.0", "±0.0")


@pytest.mark.parametrize(
    ("value", "text"), [(-4.0, "−4"), (-4.0625, "−4.062"), (0.1, "0.1"), (0.0, "0"), (-0.0, "0"), (None, "–")]
)
def test_rates(value, text):
    assert rate(value) == text


@pytest.mark.parametrize(("value", "text"), [(1e-6, "1e-06"), (0.003, "0.003"), (0.1, "0.1"), (10, "10")])
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (190, "3 min 10 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@given(st.floats(0, 1e6))
def test_no_duration_has_sixty_of_anything(seconds):
    assert not {"60"} & set(duration(seconds).split()[2::2])
    assert not duration(seconds).startswith("60 ") or "h" in duration(seconds)


def test_a_configuration_in_one_line():
    config = {"smooth_rate": -4.0625, "warmup_epochs": 10, "lr": 0.003, "optimizer": "adamw"}
    assert configuration(config) == "r=−4.062 warm-up 10 lr=0.003 optimizer=adamw"


def test_a_configuration_of_the_rate_alone():
    assert configuration({"smooth_rate": 0.0}) == "r=0"
