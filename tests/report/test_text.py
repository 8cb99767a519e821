from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nls_tune.report.text import amount, configuration, duration, number, percent, points, rate


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (percent(0.12345), "12.3 %"),
        (percent(1.0), "100.0 %"),
        (percent(None), "–"),
        (percent(0.12345, 2), "12.35 %"),
        (percent(0.5, 0), "50 %"),
        (points(0.0123), "+1.2"),
        (points(-0.0123), "−1.2"),
        (points(-0.0), "+0.0"),
        (rate(-4.0), "−4"),
        (rate(-4.0625), "−4.062"),
        (rate(-0.0), "0"),
        (rate(None), "–"),
        (number(1e-6), "1e-06"),
        (number(0.003), "0.003"),
        (number(10), "10"),
        (amount(1, "trial"), "1 trial"),
        (amount(1200, "trial"), "1,200 trials"),
    ],
)
def test_numbers(written, text):
    assert written == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
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
    assert configuration({"smooth_rate": 0.0}) == "r=0"
