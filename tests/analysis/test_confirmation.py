import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nls_tune.analysis.confirmation import confirmations
from nls_tune.report.confirmation import confirmation_sentence


def rows(level, arm, rate, val, test, *, lr=0.01, status="completed", stage="confirm", last=None, noise_seeds=None):
    """One confirmation trial a value, seeds 1, 2, ..."""
    return [
        {
            "stage": stage,
            "noise_level": level,
            "arm": arm,
            "smooth_rate": rate,
            "warmup_epochs": 3,
            "lr": lr,
            "config_model": "mlp",
            "config_milestones": np.array([], dtype=np.int64),
            "seed": seed,
            "noise_seed": 0 if noise_seeds is None else noise_seeds[seed - 1],
            "status": status,
            "best_val_accuracy": v,
            "test_accuracy_at_best": t,
            "last_test_accuracy": t if last is None else last,
        }
        for seed, (v, t) in enumerate(zip(val, test, strict=True), start=1)
    ]


CE = [0.90, 0.91, 0.92, 0.90]
NEGATIVE = [0.93, 0.93, 0.95, 0.92]


def frame(*groups):
    return pd.DataFrame([row for group in groups for row in group])


def test_numbers_are_those_of_scipy():
    (found,) = confirmations(
        frame(rows("a", "ce", 0.0, [0.5] * 4, CE), rows("a", "negative", -2.0, [0.6] * 4, NEGATIVE))
    )
    ce, negative = found.configurations
    assert (ce.arm, negative.arm) == ("ce", "negative")
    assert negative.test_at_best.mean == pytest.approx(np.mean(NEGATIVE))
    differences = np.subtract(NEGATIVE, CE)
    low, high = stats.t.interval(0.95, 3, loc=differences.mean(), scale=stats.sem(differences))
    comparison = found.comparisons[1]
    assert (comparison.difference.low, comparison.difference.high) == (pytest.approx(low), pytest.approx(high))
    assert comparison.sign_flip_p == pytest.approx(2 / 2**4)
    assert comparison.smallest_p == pytest.approx(2 / 2**4)
    assert found.comparisons[0] is None
    assert comparison.proven


def test_the_strongest_ce_is_the_one_with_the_better_validation_not_test():
    (found,) = confirmations(
        frame(
            rows("a", "ce", 0.0, [0.50] * 2, [0.99, 0.98], lr=0.1),
            rows("a", "ce", 0.0, [0.55] * 2, [0.90, 0.91], lr=0.2),
            rows("a", "positive", 0.1, [0.52] * 2, [0.97, 0.97]),
        )
    )
    assert found.configurations[found.strongest_ce].config["lr"] == 0.2
    assert found.recommended == found.strongest_ce
    assert "no rate beats cross-entropy" in confirmation_sentence(found)


def test_pairs_are_matched_by_seed():
    ce = rows("a", "ce", 0.0, [0.5] * 3, [0.90, 0.80, 0.70])
    other = rows("a", "negative", -1.0, [0.6] * 3, [0.91, 0.81, 0.71])[1:]  # seed 1 is missing
    (found,) = confirmations(frame(ce, other))
    comparison = found.comparisons[1]
    assert comparison.difference.num_seeds == 2
    assert comparison.difference.mean == pytest.approx(0.01)


def test_diverged_seeds_count_with_their_best_epoch_and_failed_ones_do_not():
    table = frame(
        rows("a", "ce", 0.0, [0.5] * 2, [0.9, 0.9]),
        rows("a", "negative", -4.0, [0.6] * 2, [0.95, 0.96], status="diverged", last=0.5),
        rows("a", "positive", 0.1, [0.6], [0.9], status="failed"),
        rows("a", "positive", 0.2, [None], [None], status="diverged"),
        rows("a", "positive", 0.3, [0.99], [0.99], stage="search"),
    )
    (found,) = confirmations(table)
    assert [c.arm for c in found.configurations] == ["ce", "negative"]
    assert found.configurations[1].num_diverged == 2
    assert found.configurations[1].test_at_last.mean == 0.5


def test_p_values_are_corrected_over_the_levels():
    table = frame(
        *(rows(level, "ce", 0.0, [0.5] * 4, CE) for level in "abc"),
        *(rows(level, "negative", -2.0, [0.6] * 4, NEGATIVE) for level in "abc"),
    )
    found = confirmations(table, ["c", "a", "b"])
    assert [c.noise_level for c in found] == ["c", "a", "b"]
    assert [c.comparisons[1].holm_p for c in found] == pytest.approx([3 * 0.125] * 3)


def test_one_seed_proves_nothing():
    (found,) = confirmations(frame(rows("a", "ce", 0.0, [0.5], [0.9]), rows("a", "negative", -1.0, [0.6], [0.95])))
    assert not found.comparisons[1].proven
    assert "proves nothing" in confirmation_sentence(found)
    assert np.isinf(found.comparisons[1].detectable)


def test_without_test_labels_there_is_nothing_to_compare():
    (found,) = confirmations(
        frame(rows("a", "ce", 0.0, [0.5], [None]), rows("a", "negative", -1.0, [0.6], [None], last=np.nan))
    )
    assert found.configurations[1].test_at_best is None
    assert "cannot be compared" in confirmation_sentence(found)


def test_without_confirmation_rows_there_is_none():
    assert confirmations(frame(rows("a", "ce", 0.0, [0.5], [0.9], stage="search"))) == ()


@pytest.mark.parametrize(("shift", "verdict"), [(0.03, "is better than"), (-0.03, "is worse than"), (0.0, "makes no")])
def test_the_sentence_follows_the_interval(shift, verdict):
    other = [c + shift + wobble for c, wobble in zip(CE, (0.001, -0.001, 0.002, -0.002), strict=True)]
    (found,) = confirmations(frame(rows("a", "ce", 0.0, [0.5] * 4, CE), rows("a", "negative", -2.0, [0.6] * 4, other)))
    assert verdict in confirmation_sentence(found)


def test_pairs_have_the_same_draw_of_the_noise():
    ce = rows("a", "ce", 0.0, [0.5] * 3, [0.90, 0.80, 0.70], noise_seeds=(1, 2, 3))
    other = rows("a", "negative", -1.0, [0.6] * 3, [0.91, 0.82, 0.99], noise_seeds=(1, 2, 7))
    (found,) = confirmations(frame(ce, other))
    difference = found.comparisons[1].difference
    assert (difference.num_seeds, difference.mean) == (2, pytest.approx(0.015))
