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


def test_the_recommended_arm_is_compared_with_cross_entropy():
    summary = summary_of(make_rows({"ce": 0.6, "positive": 0.65, "negative": 0.7}))
    assert (summary.recommended, summary.rival) == ("negative", "ce")
    assert summary.validation.difference == pytest.approx(0.1)
    assert summary.validation.num_samples == 1000
    # 501 samples fill 62 bytes and a part of another, whose padding is no sample.
    assert summary.test.num_samples == 501
    assert summary.test == paired_difference(np.arange(501) < 501 * 0.8, np.arange(501) < 501 * 0.7)


@pytest.mark.parametrize(
    ("values", "recommended", "rival"),
    [
        ({"ce": 0.7, "positive": 0.6, "negative": 0.65}, "ce", "negative"),
        ({"negative": 0.7, "positive": 0.7, "ce": 0.7}, "ce", "positive"),  # a tie
        ({"ce": 0.7}, "ce", None),
        ({"negative": 0.7}, "negative", None),
        ({"positive": 0.6, "negative": 0.7}, "negative", None),
    ],
)
def test_ties_go_to_the_first_arm_and_without_a_rival_there_is_no_difference(values, recommended, rival):
    summary = summary_of(make_rows(values))
    assert (summary.recommended, summary.rival) == (recommended, rival)
    assert (summary.validation is None) == (summary.test is None) == (rival is None)


@pytest.mark.parametrize("test", [(np.ones(10, bool), np.zeros(10, bool)), (None, None)])
def test_the_test_set_does_not_recommend_and_may_be_missing(test):
    arms = zip((0.0, -1.0), ("1100", "1110"), test, strict=True)
    summary = summary_of([trial_row({"smooth_rate": r}, val_correct=bits(b), test_correct=t) for r, b, t in arms])
    assert (summary.recommended, summary.validation.difference) == ("negative", 0.25)
    if test[0] is None:
        assert summary.test is None
        assert (summary.arms["ce"].test_accuracy_at_best, summary.arms["ce"].last_test_accuracy) == (None, None)
    else:
        assert summary.test.difference == -1


@pytest.mark.parametrize("status", [s for s in STATUSES if s != "completed"])
def test_without_a_completed_trial_nothing_is_recommended(status):
    summary = summary_of(make_rows({"ce": 0.6, "negative": 0.7}, status=status))
    assert summary.arms == {}
    assert (summary.recommended, summary.rival, summary.validation) == (None, None, None)


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


@pytest.mark.parametrize(
    ("level", "num_classes", "expected"),
    [
        ("symmetric:0.4", 2, 0.2),
        ("symmetric:0.6", 10, 1 / 3),
        ("symmetric:0", 10, 1),
        ("symmetric:0.9", 10, 0),
        ("pairflip:0.3", 10, None),
    ],
)
def test_the_signal_share_is_that_of_symmetric_noise(level, num_classes, expected):
    summary = summary_of([trial_row(noise_level=level, num_classes=num_classes)])
    assert summary.signal_share == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_levels_are_summarised_apart_in_the_order_asked_for_or_in_which_they_started():
    low = make_rows({"ce": 0.5, "negative": 0.6}, noise_level="pairflip:0.3")
    high = make_rows({"ce": 0.9, "negative": 0.8}, noise_level="clean")
    frame = trials_frame(low + high)
    assert [s.recommended for s in level_summaries(frame)] == ["negative", "ce"]
    assert [s.noise_level for s in level_summaries(frame)] == ["pairflip:0.3", "clean"]
    assert [s.noise_level for s in level_summaries(frame, ["clean", "none", "pairflip:0.3"])] == [
        "clean",
        "pairflip:0.3",
    ]


def test_confirmation_takes_no_part_and_what_is_unknown_is_none():
    rows = make_rows({"ce": 0.6}, noise_rate=None, noise_cancelling_rate=None)
    rows += make_rows({"negative": 0.9}, stage="confirm")
    summary = summary_of(rows)
    assert summary.recommended == "ce"
    assert (summary.noise_rate, summary.noise_cancelling_rate) == (None, None)
    assert level_summaries(trials_frame(rows[1:])) == level_summaries(trials_frame([])) == ()
