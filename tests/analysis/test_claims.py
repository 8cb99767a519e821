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


def test_fresh_seeds_that_diverge_are_a_doubt_though_those_that_do_not_prove_a_gain():
    rows = [*searched({"ce": 0.6, "negative": 0.7}), *confirmed("ce", 0.6, CE)]
    gain = CE + np.array([0.02, 0.021, 0.022, 0.023, 0.024])
    assert "many_diverged" not in findings(trials_frame(rows + confirmed("negative", 0.7, gain))).verdicts[0].doubts
    lost = {"status": "diverged", "best_val_accuracy": None, "test_accuracy_at_best": None, "best_epoch": None}
    swept = [{**row, **lost, "stage": "sweep_search", "trial_id": f"swept{i}"} for i, row in enumerate(rows[-5:])]
    kept = findings(trials_frame([*rows, *confirmed("negative", 0.7, gain), *swept])).verdicts[0].doubts
    assert "many_diverged" not in kept  # a sweep tries what is known to fail, too
    fresh = confirmed("negative", 0.7, gain)
    (found,) = findings(trials_frame([*rows, *fresh[:3], *({**row, **lost} for row in fresh[3:])])).verdicts
    assert (found.finding, found.difference.num_seeds) == ("better", 3)
    assert "many_diverged" in found.doubts


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
