from __future__ import annotations

import numpy as np
import pytest
from trial_rows import trial_row, trials_frame

from nls_tune.results import STATUSES
from nls_tune.selection import select


def test_the_highest_objective_is_selected():
    rows = [trial_row({"lr": lr}, best_val_accuracy=v) for lr, v in ((0.1, 0.6), (0.2, 0.8), (0.3, 0.7))]
    assert select(trials_frame(rows))["lr"] == 0.2


@pytest.mark.parametrize("status", [s for s in STATUSES if s != "completed"])
def test_only_completed_trials_are_selected(status):
    better = trial_row({"lr": 0.1}, best_val_accuracy=0.9, status=status)
    frame = trials_frame([better, trial_row({"lr": 0.2}, best_val_accuracy=0.5)])
    assert select(frame)["lr"] == 0.2
    assert select(frame[frame["status"] == status]) is None


def test_the_test_set_takes_no_part():
    right, wrong = np.ones(10, bool), np.zeros(10, bool)
    rows = [
        trial_row({"lr": 0.1}, best_val_accuracy=0.6, test_correct=right),
        trial_row({"lr": 0.2}, best_val_accuracy=0.7, test_correct=wrong),
    ]
    assert select(trials_frame(rows))["lr"] == 0.2


def test_ties_go_to_the_trial_that_started_first():
    rows = [trial_row({"lr": lr}, best_val_accuracy=0.5, minute=m) for lr, m in ((0.1, 2), (0.2, 1), (0.3, 3))]
    assert select(trials_frame(rows))["lr"] == 0.2


def test_a_trial_without_an_objective_is_not_selected():
    row = trial_row(best_val_accuracy=None, best_epoch=None)
    assert select(trials_frame([row])) is None


def test_nothing_is_selected_from_nothing():
    assert select(trials_frame([])) is None
