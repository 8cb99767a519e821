from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.level_summaries import PairedDifference, level_summaries, paired_difference
from nls_tune.runs.schemas import STATUSES

correctness = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def bits(text: str) -> np.ndarray:
    return np.array([c == "1" for c in text])


# Paired differences


@given(correctness)
def test_a_difference_and_its_error_are_those_of_the_paired_samples(pairs):
    a, b = (np.array(values) for values in zip(*pairs, strict=True))
    found = paired_difference(a, b)
    per_sample = a.astype(float) - b.astype(float)
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert found.standard_error == pytest.approx(np.std(per_sample) / math.sqrt(len(pairs)), abs=1e-12)
    assert found.num_samples == len(pairs)
    assert paired_difference(b, a) == PairedDifference(-found.difference, found.standard_error, len(pairs))
    assert paired_difference(a, a) == PairedDifference(0, 0, len(pairs))


@pytest.mark.parametrize(("difference", "distinct"), [(0.0197, True), (0.0195, False), (-0.0197, True), (0, False)])
def test_a_difference_is_distinct_outside_of_two_standard_errors(difference, distinct):
    assert PairedDifference(difference, 0.01, 1000).distinct == distinct


@pytest.mark.parametrize(("a", "b"), [("101", "10"), ("", "")])
def test_only_the_same_samples_can_be_compared(a, b):
    with pytest.raises(ValueError, match="the same samples"):
        paired_difference(bits(a), bits(b))


# Levels


def make_rows(values: dict[str, float], **changes):
    """A completed trial for each arm, with 1,000 validation and 501 test samples."""
    rates = {"ce": 0.0, "positive": 0.3, "negative": -2.0}
    val, test = np.arange(1000), np.arange(501)
    return [
        trial_row(
            {"smooth_rate": rates[arm]},
            val_correct=val < 1000 * value,
            test_correct=test < 501 * (value + 0.1),
            minute=i,
            **changes,
        )
        for i, (arm, value) in enumerate(values.items())
    ]


def summary_of(rows):
    (summary,) = level_summaries(trials_frame(rows))
    return summary


@pytest.mark.parametrize("status", [s for s in STATUSES if s != "completed"])
def test_without_a_completed_trial_no_arm_is_described(status):
    summary = summary_of(make_rows({"ce": 0.6, "negative": 0.7}, status=status))
    assert (summary.arms, summary.statuses, summary.used) == ({}, {status: 2}, None)


def test_an_arm_is_described_by_its_selected_trial():
    rows = make_rows({"ce": 0.6})
    rows.append(trial_row({"lr": 0.5}, status="stopped", best_val_accuracy=0.9, minute=9))
    arm = summary_of(rows).arms["ce"]
    assert (arm.arm, arm.num_trials, arm.num_completed, arm.trial_id) == ("ce", 2, 1, rows[0]["trial_id"])
    assert arm.config == {"smooth_rate": 0.0, "warmup_epochs": 2, "lr": 0.01}
    assert {type(v) for v in arm.config.values()} == {int, float}
    assert (arm.best_epoch, arm.epochs) == (5, 10)
    assert arm.val_accuracy == pytest.approx(0.6)
    assert arm.last_val_accuracy == pytest.approx(0.59)
    assert arm.test_accuracy_at_best == rows[0]["test_accuracy_at_best"]
    assert arm.last_test_accuracy == rows[0]["last_test_accuracy"]


def test_levels_are_summarised_apart_in_the_order_asked_for_or_in_which_they_started():
    low = make_rows({"ce": 0.5, "negative": 0.6}, noise_level="pairflip:0.3")
    high = make_rows({"ce": 0.9, "negative": 0.8}, noise_level="clean")
    frame = trials_frame(low + high)
    assert [(s.noise_level, s.arms["ce"].val_accuracy) for s in level_summaries(frame)] == [
        ("pairflip:0.3", 0.5),
        ("clean", 0.9),
    ]
    assert [s.noise_level for s in level_summaries(frame, ["clean", "none", "pairflip:0.3"])] == [
        "clean",
        "pairflip:0.3",
    ]


def test_confirmation_takes_no_part_and_what_is_unknown_is_none():
    rows = make_rows({"ce": 0.6}, noise_rate=None, noise_cancelling_rate=None)
    rows += make_rows({"negative": 0.9}, stage="confirm")
    summary = summary_of(rows)
    assert list(summary.arms) == ["ce"]
    assert (summary.noise_rate, summary.noise_cancelling_rate) == (None, None)
    assert level_summaries(trials_frame(rows[1:])) == level_summaries(trials_frame([])) == ()
