from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.selection import best_first, select
from nls_tune.runs.schemas import STATUSES


def trials_of(accuracies, **changes):
    """Trials that started one after the other."""
    return [
        trial_row({"lr": 0.01 * 1.1**i}, best_val_accuracy=value, minute=i, **changes)
        for i, value in enumerate(accuracies)
    ]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.randoms(use_true_random=False))
@settings(max_examples=settings.default.max_examples // 4)
def test_the_highest_objective_is_selected_the_earlier_trial_on_ties_in_whatever_order(values, random):
    rows = trials_of([value / 8 for value in values])
    expected = rows[int(np.argmax(values))]["trial_id"]
    random.shuffle(rows)
    assert select(trials_frame(rows))["trial_id"] == expected
    ranked = best_first(trials_frame(rows))["best_val_accuracy"].tolist()
    assert ranked == sorted([value / 8 for value in values], reverse=True)


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "completed"])
def test_only_completed_trials_with_an_objective_are_selected(status):
    frame = trials_frame([*trials_of([0.9], status=status), *trials_of([0.5])])
    assert select(frame)["best_val_accuracy"] == 0.5
    for rows in (trials_of([0.9], status=status), [], [trial_row(best_val_accuracy=None, best_epoch=None)]):
        assert select(trials_frame(rows)) is None


def test_the_test_set_takes_no_part():
    right, wrong = np.ones(10, bool), np.zeros(10, bool)
    worse, better = trials_of([0.6], test_correct=right), trials_of([0.7], test_correct=wrong)
    assert select(trials_frame(worse + better))["best_val_accuracy"] == 0.7
