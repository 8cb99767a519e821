"""Whether a training has learned."""

from __future__ import annotations

import pandas as pd
import pytest

from nls_tune.analysis.learned import is_at_chance, is_rising


@pytest.mark.parametrize(
    ("accuracy", "num_classes", "num_samples", "expected"),
    [
        (0.512, 2, 4000, True),
        (0.523, 2, 4000, True),  # chance plus three standard errors is 0.5237
        (0.525, 2, 4000, False),
        (0.3, 2, 4000, True),  # a network that predicts the wrong class has not learned either
        (0.12, 10, 400, True),
        (0.12, 10, 4000, False),
        (0.012, 100, 10_000, True),
        (0.02, 100, 10_000, False),
    ],
)
def test_an_accuracy_within_three_errors_of_guessing_is_chance(accuracy, num_classes, num_samples, expected):
    assert is_at_chance(accuracy, num_classes, num_samples) is expected


def epochs(values, rates=None, diverged=None):
    count = len(values)
    return pd.DataFrame(
        {"val_accuracy": values, "lr": rates or [0.01] * count, "diverged": diverged or [False] * count}
    )


STEEP = [0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (epochs(STEEP), True),
        (epochs(STEEP[::-1]), False),
        (epochs([0.6, 0.8, 0.88, 0.9, 0.9, 0.9, 0.9, 0.9]), False),
        (epochs([0.6, 0.8, 0.88, 0.9, 0.9, 0.9, 0.9, 0.93]), False),  # less than a tenth of what was learned
        (epochs([0.5, 0.7, 0.9]), True),
        (epochs([0.5, 0.9]), False),  # two epochs cannot tell
        (epochs([]), False),
        (epochs(STEEP, rates=[0.01] * 7 + [0.0009]), False),  # a schedule that has run its course
        (epochs(STEEP, rates=[0.01] * 7 + [0.0011]), True),
        (epochs([0.5, 0.9, 0.9, 0.9, 0.1], diverged=[False] * 4 + [True]), False),  # what diverged does not count
    ],
)
def test_a_rise_is_steep_where_a_tenth_of_what_was_learned_came_in_the_last_quarter(frame, expected):
    assert is_rising(frame, 2, 4000) is expected


def test_a_rise_within_the_error_of_few_samples_is_none():
    frame = epochs([0.55, 0.56, 0.57, 0.58])
    assert is_rising(frame, 2, 100_000)
    assert not is_rising(frame, 2, 1000)
