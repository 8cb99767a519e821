"""Claims and their proofs: where a wrong `better`, or a gain over an untrained cross-entropy, could arise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.confirmation import confirmations
from nls_tune.analysis.learned import is_rising
from nls_tune.analysis.level_summaries import paired_difference
from nls_tune.analysis.statistics import detectable_difference
from nls_tune.analysis.verdicts import findings
from nls_tune.report.words import table_note, verdict_words
from nls_tune.runs.schemas import unpack_correct

RATES = {"ce": 0.0, "positive": 0.3, "negative": -2.0}
LEVEL = "symmetric:0.2"
CE = np.array([0.900, 0.910, 0.905, 0.903, 0.908])


def confirmed(
    arm: str,
    val: float,
    test: Sequence[float],
    level: str = LEVEL,
    changes: Mapping[str, Any] | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """One confirmation trial per value, seeds 1, 2, ..."""
    return [
        trial_row(
            {"smooth_rate": RATES[arm], "seed": seed, **settings}, stage="confirm", noise_level=level, minute=seed,
            **{"best_val_accuracy": val, "test_accuracy_at_best": t, "last_test_accuracy": t, "num_test": 1000,
               **(changes or {})},
        )
        for seed, t in enumerate(test, start=1)
    ]  # fmt: skip


def test_configurations_that_differ_in_a_list_are_two():
    rows = [row for step in (3, 5) for row in confirmed("ce", 0.6 + step / 100, CE, milestones=(step,))]
    rows += confirmed("negative", 0.7, CE + 0.01, milestones=(3,))
    (found,) = confirmations(trials_frame(rows))
    assert [(one.config["milestones"], one.seeds) for one in found.configurations] == [
        ([3], (1, 2, 3, 4, 5)),
        ([5], (1, 2, 3, 4, 5)),
        ([3], (1, 2, 3, 4, 5)),
    ]
    assert found.strongest_ce == 1
    assert found.comparisons[2].difference.num_seeds == 5  # no seed counts twice


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.1] * 4 + [0.001] * 8, True),  # the phase after the warm-up rises, however low its rate
        ([0.01] * 4 + [0.001] * 8, True),
        ([0.1] * 4 + [0.01] * 4 + [0.0001] * 4, False),  # its own schedule has run its course
        ([0.01] * 4 + [0.01] * 7 + [0.0001], False),
    ],
)
def test_a_warm_up_at_a_higher_rate_hides_no_rise(rates, expected):
    accuracies = [0.5] * 4 + [0.5 + 0.04 * i for i in range(8)]
    phases = ["warmup"] * 4 + ["gls"] * 8
    epochs = pd.DataFrame(
        {"trial_id": "a", "val_accuracy": accuracies, "lr": rates, "phase": phases, "diverged": False}
    )
    assert is_rising(epochs, 2, 4000) is expected


def test_the_jump_at_the_end_of_a_warm_up_is_no_rise():
    epochs = pd.DataFrame(
        {"trial_id": "a", "val_accuracy": [0.6] * 9 + [0.8] * 3, "lr": [0.1] * 9 + [0.001] * 3, "diverged": False,
         "phase": ["warmup"] * 9 + ["gls"] * 3}
    )  # fmt: skip
    assert not is_rising(epochs, 2, 4000)


def searched(values: Mapping[str, float]) -> list[dict[str, Any]]:
    """One completed search trial per arm."""
    return [
        trial_row({"smooth_rate": RATES[arm]}, noise_level=LEVEL, best_val_accuracy=value, num_val=4000, num_test=1000)
        for arm, value in values.items()
    ]


def test_no_gain_is_stated_against_a_cross_entropy_that_has_not_learned():
    val = {"ce": 0.51, "negative": 0.7}
    rows = [*searched(val), *confirmed("ce", 0.51, CE - 0.3), *confirmed("negative", 0.7, CE)]
    for row in rows[2:]:
        rows = [*rows, {**row, "trial_id": "all" + row["trial_id"], "stage": "confirm_all"}]
    found = findings(trials_frame(rows))
    assert [one.reason for one in found.verdicts] == ["ce_at_chance"]
    assert found.verdicts[0].search_difference is None
    (confirmation,) = found.confirmations
    assert confirmation.comparisons == (None, None)
    assert [one.on_all_labels.difference for one in confirmation.configurations] == [None, None]
    (before,) = confirmations(trials_frame(rows))
    assert before.configurations[1].on_all_labels.difference.mean == pytest.approx(0.3)


LOST = {"status": "diverged", "best_val_accuracy": None, "test_accuracy_at_best": None, "best_epoch": None}


def test_fresh_seeds_that_diverge_at_once_count_as_guessing():
    rows = [*searched({"ce": 0.6, "negative": 0.7}), *confirmed("ce", 0.6, CE)]
    gain = CE + np.array([0.02, 0.021, 0.022, 0.023, 0.024])
    assert "many_diverged" not in findings(trials_frame(rows + confirmed("negative", 0.7, gain))).verdicts[0].doubts
    swept = [{**row, **LOST, "stage": "sweep_search", "trial_id": f"swept{i}"} for i, row in enumerate(rows[-5:])]
    kept = findings(trials_frame([*rows, *confirmed("negative", 0.7, gain), *swept])).verdicts[0].doubts
    assert "many_diverged" not in kept  # a sweep tries what is known to fail, too
    fresh = confirmed("negative", 0.7, gain)
    (found,) = findings(trials_frame([*rows, *fresh[:3], *({**row, **LOST} for row in fresh[3:])])).verdicts
    assert (found.finding, found.difference.num_seeds) == ("no_proven_difference", 5)
    assert found.difference.mean == pytest.approx((gain[:3].sum() + 2 * 0.5 - CE.sum()) / 5)
    assert "many_diverged" in found.doubts
    (found,) = findings(trials_frame([*rows, *fresh[:4], {**fresh[4], **LOST}])).verdicts
    assert (found.finding, "many_diverged" in found.doubts) == ("no_proven_difference", True)


def test_cross_entropy_that_diverges_at_once_makes_no_gain():
    """Its seed is missing: a gain over guessing would be none over cross-entropy."""
    ce, rate = confirmed("ce", 0.6, CE), confirmed("negative", 0.7, CE + 0.001)
    (found,) = confirmations(trials_frame([*ce[:4], {**ce[4], **LOST}, *rate]))
    assert found.configurations[0].seeds == (1, 2, 3, 4)
    assert found.comparisons[1].difference.mean == pytest.approx(0.001)


def test_without_a_test_set_guessing_has_no_test_accuracy():
    untested = {"num_test": 0, "test_accuracy_at_best": None, "last_test_accuracy": None}
    rows = [{**row, **untested} for row in confirmed("negative", 0.7, CE)]
    (found,) = confirmations(trials_frame([*rows[:4], {**rows[4], **LOST}]))
    assert found.configurations[0].validation.mean == pytest.approx((4 * 0.7 + 0.5) / 5)
    assert found.configurations[0].test_at_best is None


@pytest.mark.parametrize(("num_levels", "proven"), [(1, True), (3, True), (5, False), (7, False), (20, False)])
def test_more_claims_never_prove_what_fewer_do_not(num_levels, proven):
    """One of eight seeds is against it: from seven levels on no p value of the sign-flip test is small enough."""
    gains = np.array([-0.001, 0.020, 0.022, 0.018, 0.024, 0.019, 0.021, 0.023])
    levels = [f"symmetric:0.{i:02}" for i in range(1, num_levels + 1)]
    rows = [
        row
        for level in levels
        for row in confirmed("ce", 0.6, 0.9 + 0 * gains, level) + confirmed("negative", 0.7, 0.9 + gains, level)
    ]
    assert {found.comparisons[1].proven for found in confirmations(trials_frame(rows))} == {proven}


def test_few_seeds_that_all_agree_leave_it_to_the_t_test():
    rows = confirmed("ce", 0.6, [0.9, 0.9, 0.9]) + confirmed("negative", 0.7, [0.920, 0.921, 0.922])
    (found,) = confirmations(trials_frame(rows))
    assert (found.comparisons[1].proven, found.comparisons[1].smallest_p) == (True, 0.25)


def test_a_setting_that_may_be_missing_tells_configurations_apart():
    settings = [{"warmup_weight_decay": value} for value in (None, 0.0)]
    rows = [row for one in settings for row in confirmed("ce", 0.6, CE, **one) + confirmed("negative", 0.7, CE, **one)]
    (found,) = confirmations(trials_frame(rows))
    assert [one.config["warmup_weight_decay"] for one in found.configurations] == [None, 0.0, None, 0.0]
    assert findings(trials_frame([*searched({"ce": 0.6, "negative": 0.7}), *rows])).verdicts[0].ce is not None


def test_a_level_where_cross_entropy_leads_has_had_its_chance_too():
    gain = np.array([0.010, 0.012, 0.018, -0.001, 0.012])
    p = stats.ttest_1samp(gain, 0).pvalue
    assert 0.05 / 2 < p < 0.05
    rows = [*confirmed("ce", 0.6, CE), *confirmed("negative", 0.7, CE + gain)]
    other = [*confirmed("ce", 0.8, CE, "clean"), *confirmed("negative", 0.7, CE - 0.001, "clean")]
    (alone,) = confirmations(trials_frame(rows))
    (one, _) = confirmations(trials_frame([*rows, *other]))
    assert (alone.comparisons[1].holm_t_p, alone.comparisons[1].proven) == (pytest.approx(p), True)
    assert (one.comparisons[1].holm_t_p, one.comparisons[1].proven) == (pytest.approx(2 * p), False)
    # A level without a rate, or without a cross-entropy, has none.
    for arm in ("ce", "negative"):
        (same, _) = confirmations(trials_frame([*rows, *confirmed(arm, 0.6, CE, "clean")]))
        assert same == alone
    # What could have been found is told at the same error.
    assert one.comparisons[1].detectable == pytest.approx(detectable_difference(float(np.std(gain, ddof=1)), 5, 0.025))
    assert one.comparisons[1].detectable > alone.comparisons[1].detectable


@pytest.mark.parametrize(("num_test", "doubted"), [(359, True), (40_000, False)])
def test_a_gain_that_the_test_samples_could_make_is_doubted(num_test, doubted):
    rows = searched({"ce": 0.6, "negative": 0.7})
    for arm, value in (("ce", 0.6), ("negative", 0.7)):
        for seed, lost in enumerate((0.0084, 0.0084, 0.0112, 0.0084, 0.0056), start=1):  # 2 to 4 of 359 samples
            correct = np.arange(num_test) >= (round(lost * num_test) if arm == "ce" else 0)
            settings = {"smooth_rate": RATES[arm], "seed": seed}
            rows.append(
                trial_row(settings, test_correct=correct, stage="confirm", best_val_accuracy=value, noise_level=LEVEL)
            )
    found = findings(trials_frame(rows))
    assert found.verdicts[0].finding == "better"
    bits = (unpack_correct(row["test_correct_at_best"], num_test) for row in (rows[-1], rows[2]))
    error = paired_difference(*bits).standard_error  # of one seed; seeds that differ little have about the same
    assert found.confirmations[0].comparisons[1].test_error == pytest.approx(error, rel=0.1)
    assert ("small_test_set" in found.verdicts[0].doubts) is doubted


def test_given_test_labels_are_a_doubt_and_are_not_called_clean():
    rows = [*searched({"ce": 0.6, "negative": 0.7}), *confirmed("ce", 0.6, CE), *confirmed("negative", 0.7, CE + 0.02)]
    clean, given = (findings(trials_frame(rows), test_clean=known).verdicts for known in (True, False))
    assert ["noisy_test" in found[0].doubts for found in (clean, given)] == [False, True]
    assert "repeats the mistakes" in " ".join(verdict_words(given[0]).doubts)
    assert ["on clean labels" in table_note(found) for found in (clean, given)] == [True, False]
    assert "on the given test labels" in table_note(given)
    # Without fresh seeds no gain is stated.
    assert "noisy_test" not in findings(trials_frame(rows[:2]), test_clean=False).verdicts[0].doubts
