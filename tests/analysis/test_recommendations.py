"""What is recommended, what is proven of it, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nls_tune.analysis.recommendations import recommendations
from scipy import stats
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.confirmation import confirmations
from nls_tune.analysis.level_summaries import PairedDifference, level_summaries
from nls_tune.report.words import confirmation_sentence, recommendation_words

RATES = {"ce": 0.0, "positive": 0.3, "negative": -2.0}
SPACE = {
    "smooth_rate": {"default": -1.0, "low": -8.0, "high": 0.8},
    "warmup_epochs": {"default": 2, "low": 0, "high": 4},
    "lr": {"default": 0.01, "low": 1e-4, "high": 0.1},
}
LEVEL = "symmetric:0.2"


def searched(values, level=LEVEL, per_arm=8, **changes):
    """Eight completed trials per arm; the selected one has the value."""
    val, rows = np.arange(1000), []
    for arm, value in values.items():
        for i in range(per_arm):
            rows.append(
                trial_row(
                    {"smooth_rate": RATES[arm], "lr": 0.01 * 1.2**i},
                    val_correct=val < 1000 * value - i,
                    test_correct=val < 1000 * value,
                    noise_level=level, minute=len(rows), **{"noise_cancelling_rate": -0.67, **changes},
                )
            )  # fmt: skip
    return rows


def confirmed(arm, val, test, level=LEVEL, **settings):
    return [
        trial_row(
            {"smooth_rate": RATES[arm], "seed": seed, **settings}, stage="confirm", noise_level=level,
            best_val_accuracy=v, test_accuracy_at_best=t, last_test_accuracy=t, minute=900 + seed,
        )
        for seed, (v, t) in enumerate(zip(val, test, strict=True), start=1)
    ]  # fmt: skip


def one(rows, **given):
    (found,) = recommendations(trials_frame(rows), **given)
    return found


CE = np.array([0.900, 0.910, 0.905, 0.903, 0.908, 0.906, 0.911, 0.902])
STRONG = {"ce": 0.6, "negative": 0.7}
SLIGHT = np.array([0.01] * 3)


def both(differences, level=LEVEL, val=0.7):
    test = CE[: len(differences)]
    return [
        *confirmed("ce", [0.6] * len(test), test, level),
        *confirmed("negative", [val] * len(test), test + differences, level),
    ]


# Verdicts


@pytest.mark.parametrize("sign", [1, -1])
def test_a_proven_difference_has_the_numbers_of_scipy(sign):
    differences = sign * np.array([0.02, 0.03, 0.025, 0.015, 0.02, 0.03])
    found = one(searched(STRONG) + both(differences), space=SPACE)
    assert found.verdict == {1: "better", -1: "worse"}[sign]
    assert (found.arm, found.num_seeds, found.val_accuracy) == ("negative", 6, pytest.approx(0.7))
    assert found.difference.mean == pytest.approx(differences.mean())
    interval = stats.t.interval(0.95, 5, loc=differences.mean(), scale=stats.sem(differences))
    assert (found.difference.low, found.difference.high) == pytest.approx(interval)
    permuted = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found.sign_flip_p == pytest.approx(permuted.pvalue) == 2 / 2**6
    assert found.strongest_ce == {"smooth_rate": 0.0, "warmup_epochs": 2, "lr": 0.01}
    assert "few_seeds" not in found.doubts


def at_three_levels(differences):
    """The rows of a run that finds the same at each of its levels."""
    levels = ("clean", LEVEL, "symmetric:0.3")
    return trials_frame([row for level in levels for row in searched(STRONG, level) + both(differences, level)])


def test_an_interval_without_0_proves_nothing_where_the_sign_flips_could_have_shown_it_and_do_not():
    differences = np.array([0.010, 0.011, 0.012, 0.011, 0.010, 0.012, -0.0005, -0.0004])
    (confirmation,) = confirmations(trials_frame(both(differences)))
    assert confirmation.comparisons[1].difference.low > 0
    assert confirmation.comparisons[1].sign_flip_p == pytest.approx(8 / 2**8)  # so 5 % are not exceeded at one level
    found = recommendations(at_three_levels(differences))
    assert {f.verdict for f in found} == {"no_proven_difference"}
    assert [f.sign_flip_p for f in found] == pytest.approx([3 * 8 / 2**8] * 3)
    assert all("few_seeds" not in f.doubts for f in found)


def test_an_interval_without_0_proves_nothing_where_many_levels_had_their_chance():
    differences = np.array([0.010, 0.012, 0.018, -0.001, 0.012])
    p = stats.ttest_1samp(differences, 0).pvalue
    assert 0.05 / 3 < p < 0.05
    assert one(searched(STRONG) + both(differences)).verdict == "better"
    trials = at_three_levels(differences)
    assert {f.verdict for f in recommendations(trials)} == {"no_proven_difference"}
    confirmed_levels = confirmations(trials)
    assert [c.comparisons[1].holm_t_p for c in confirmed_levels] == pytest.approx([3 * p] * 3)
    assert all("no proven difference" in confirmation_sentence(c) for c in confirmed_levels)


def test_few_seeds_are_a_doubt_and_the_t_test_decides():
    found = one(searched(STRONG) + both(np.array([0.02, 0.03, 0.025, 0.015])))
    assert (found.verdict, found.sign_flip_p) == ("better", 2 / 2**4)
    assert "few_seeds" in found.doubts
    # Six seeds are enough at one level, and too few at two.
    six = np.array([0.02, 0.03, 0.025, 0.015, 0.02, 0.03])
    two = [searched(STRONG, level) + both(six, level) for level in (LEVEL, "clean")]
    assert all("few_seeds" in f.doubts for f in recommendations(trials_frame([row for rows in two for row in rows])))


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (searched(STRONG) + both(np.array([0.01, -0.01, 0.02])), "no_proven_difference"),
        (searched(STRONG) + both(np.array([0.05])), "unconfirmed"),
        (searched(STRONG), "unconfirmed"),
        (searched({"negative": 0.7}), "unconfirmed"),
        (searched({"ce": 0.7, "negative": 0.6}), "cross_entropy"),
        (searched(STRONG) + both(np.array([0.05, 0.05]), val=0.5), "cross_entropy"),
        (searched(STRONG, status="diverged"), "nothing"),
    ],
)
def test_verdicts(rows, verdict):
    found = one(rows)
    assert found.verdict == verdict
    words = recommendation_words(found)
    assert (words.noise_level, words.verdict) == (LEVEL, verdict)
    assert len(words.doubts) == len(found.doubts)
    assert (words.configuration is None) == (found.config is None) == (verdict == "nothing")


def test_the_test_set_takes_no_part_in_the_choice():
    rows = searched(STRONG) + both(np.array([-0.3, -0.31, -0.3]))
    assert one(rows).arm == "negative"
    assert one(rows).verdict == "worse"


def test_a_confirmation_that_has_begun_only_with_some_arms_decides_nothing():
    rows = searched(STRONG) + confirmed("ce", [0.9], [0.9])
    found = one(rows)
    assert (found.arm, found.num_seeds) == ("negative", None)
    assert "going_on" in found.doubts
    assert one(rows + confirmed("negative", [0.8], [0.9])).arm == "ce"


def test_a_choice_of_fresh_seeds_is_not_told_with_the_errors_of_another():
    found = one(
        searched({"ce": 0.6, "positive": 0.61, "negative": 0.605})
        + both(np.array([0.02, 0.03, 0.025]))
        + confirmed("positive", [0.5] * 3, CE[:3])
    )
    assert (found.arm, found.validation) == ("negative", None)
    assert "within_error" not in found.doubts


def test_the_epoch_is_that_of_the_searchs_trial_or_the_median_of_fresh_seeds():
    rows = searched(STRONG)
    (summary,) = level_summaries(trials_frame(rows))
    best = summary.arms["negative"]
    assert (one(rows).trial_id, one(rows).best_epoch) == (best.trial_id, best.best_epoch)
    # A run of an earlier version may have confirmed another trial than the one that is selected now.
    other = one(rows + confirmed("ce", [0.5], [0.9]) + confirmed("negative", [0.8], [0.9], lr=0.012))
    assert other.trial_id == next(r["trial_id"] for r in rows if (r["arm"], r["lr"]) == ("negative", 0.012))
    again = confirmed("ce", [0.9, 0.9, 0.9], CE[:3], lr=0.09) + confirmed("negative", [0.8] * 3, CE[:3])
    for row, epoch in zip(again, (3, 9, 4), strict=False):
        row["best_epoch"] = epoch
    found = one(rows + again)
    assert (found.config["lr"], found.trial_id, found.best_epoch) == (0.09, None, 4)


# Doubts


@pytest.mark.parametrize(
    ("kind", "rows", "given"),
    [
        ("at_the_edge", searched(STRONG), {"space": {**SPACE, "smooth_rate": {**SPACE["smooth_rate"], "low": -2.0}}}),
        ("asymmetric_noise", searched(STRONG, "human:worst", noise_rate=None), {}),
        ("within_error", searched({"ce": 0.699, "negative": 0.7}), {}),
        ("many_diverged", searched(STRONG) + searched({"negative": 0.5}, per_arm=3, status="diverged"), {}),
        ("going_on", searched(STRONG), {"planned": {LEVEL: 17}}),
        ("no_test_set", [{**row, "num_test": 0, "test_correct_at_best": None} for row in searched(STRONG)], {}),
        ("default_ce_stronger", [*searched(STRONG), *both(SLIGHT), *confirmed("ce", [0.65] * 3, CE[:3], lr=0.09)], {}),
        ("too_noisy", searched(STRONG, noise_cancelling_rate=None), {}),
    ],
)
def test_each_doubt_has_its_cause(kind, rows, given):
    assert kind in one(rows, **given).doubts
    plain = one(searched({"ce": 0.6, "positive": 0.55, "negative": 0.7}), space=SPACE, planned={LEVEL: 24})
    assert plain.doubts == ()


def test_without_a_space_the_edge_is_that_of_what_was_tried():
    assert "at_the_edge" in one(searched(STRONG)).doubts
    wider = [*searched(STRONG), trial_row({"smooth_rate": -6.0}, status="stopped", noise_level=LEVEL)]
    assert "at_the_edge" not in one(wider).doubts


# Words


def test_words_say_what_could_have_been_seen():
    equal = one(searched(STRONG) + both(SLIGHT))
    assert equal.verdict == "no_proven_difference"
    assert not any("would have seen" in reason for reason in recommendation_words(equal).reasons)
    found = one(searched(STRONG) + both(np.array([0.01, -0.01, 0.02])), space=SPACE)
    words = recommendation_words(found)
    assert words.headline == (
        "use smooth_rate −2 (warm-up 2, lr 0.01), stopped at epoch 5, or cross-entropy (warm-up 2, lr 0.01): "
        "smoothing makes no proven difference."
    )
    assert f"this run would have seen a difference of {100 * found.detectable:.2f} points" in words.reasons[0]
    assert "the strongest CE" in words.reasons[0]
    code = words.configuration
    assert code == "GLSLoss(smooth_rate=-2)  # 2 epochs of cross-entropy first; then lr=0.01; stop after epoch 5"
    compile(code, "recommendation", "eval")


def test_words_of_other_settings_and_of_cross_entropy():
    alone = one(searched({"ce": 0.7}))
    assert alone.verdict == "cross_entropy"
    assert recommendation_words(alone).headline.endswith("no other rate was completed that it could be compared with.")
    found = one(searched({"ce": 0.7, "negative": 0.6}))
    changed = replace(found, config={**found.config, "optimizer": "adam\nw"}, validation=PairedDifference(0.1, 0.01, 9))
    words = recommendation_words(changed)
    assert "use cross-entropy (warm-up 2, lr 0.01, optimizer adam\nw)" in words.headline
    assert "\n" not in words.configuration
    assert "+10.00 points on noisy labels, paired standard error 1.00" in words.reasons[-1]
    close = one(searched({"ce": 0.699, "negative": 0.7}))
    assert close.verdict == "unconfirmed"
    assert recommendation_words(close).headline.endswith(
        "or cross-entropy (warm-up 2, lr 0.01): not confirmed, and validation shows no difference for the better."
    )


# Additions to the summaries


def test_cross_entropy_with_the_defaults_is_found_where_the_search_ran_it():
    rows = searched(STRONG, estimated_noise_rate=0.21)
    (without,) = level_summaries(trials_frame(rows))
    assert (without.default_ce, without.estimated_noise_rate) == (None, 0.21)
    (summary,) = level_summaries(trials_frame(rows), space=SPACE)
    default = next(row for row in rows if row["arm"] == "ce" and row["lr"] == 0.01)
    found = summary.default_ce
    assert (found.trial_id, found.status, found.epochs) == (default["trial_id"], "completed", 10)
    assert found.config == {"smooth_rate": 0.0, "warmup_epochs": 2, "lr": 0.01}
    assert found.last_test_accuracy == default["last_test_accuracy"]
    (other,) = level_summaries(trials_frame(rows), space={**SPACE, "lr": {"default": 0.5}})
    assert other.default_ce is None
