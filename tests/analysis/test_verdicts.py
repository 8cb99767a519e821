"""What to use at a noise level, what is proven of it, and what speaks against it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from any_run import RATES, SPACE, any_rows, epochs_of, run_of, searched
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.level_summaries import level_summaries
from nls_tune.analysis.verdicts import find, findings
from nls_tune.report.words import verdict_words
from nls_tune.runs.run_json import RunData

LEVEL = "symmetric:0.2"
STRONG = {"ce": 0.6, "negative": 0.7}
CE = np.array([0.900, 0.910, 0.905, 0.903, 0.908, 0.906, 0.911, 0.902])
SIX = np.array([0.02, 0.03, 0.025, 0.015, 0.02, 0.03])
SLIGHT = np.array([0.01] * 3)


def confirmed(arm, val, test, level=LEVEL, **settings):
    return [
        trial_row(
            {"smooth_rate": RATES[arm], "seed": seed, **settings}, stage="confirm", noise_level=level,
            best_val_accuracy=v, test_accuracy_at_best=t, last_test_accuracy=t, minute=900 + seed, num_test=1000,
        )
        for seed, (v, t) in enumerate(zip(val, test, strict=True), start=1)
    ]  # fmt: skip


def both(differences, level=LEVEL, val=0.7):
    test = CE[: len(differences)]
    return [
        *confirmed("ce", [0.6] * len(test), test, level),
        *confirmed("negative", [val] * len(test), test + differences, level),
    ]


def without_test(rows):
    return [{**row, "num_test": 0, "test_correct_at_best": None, "test_accuracy_at_best": None} for row in rows]


def verdicts(rows, **given):
    return findings(trials_frame(rows), **given).verdicts


def one(rows, **given):
    (found,) = verdicts(rows, **given)
    return found


# Every finding and reason

PLANNED = {LEVEL: {"ce": 8, "negative": 8}}
DIVERGED_CE = searched({"ce": 0.6}, status="diverged") + searched({"negative": 0.7})
RISEN = searched({"ce": 0.8, "negative": 0.9}) + both(SIX, val=0.9)
RISING = {"epochs_of": lambda ids: epochs_of([row for row in RISEN if row["trial_id"] in ids], rising=True)}


@pytest.mark.parametrize(
    ("rows", "given", "finding", "reason", "use"),
    [
        (searched(STRONG) + both(SIX), {}, "better", None, "negative"),
        (searched(STRONG) + both(-SIX), {}, "worse", None, "ce"),
        (searched(STRONG) + both(np.array([0.01, -0.01, 0.02])), {}, "no_proven_difference", None, "ce"),
        (searched(STRONG) + both(SLIGHT), {}, "no_proven_difference", None, "ce"),  # equal differences prove nothing
        (searched(STRONG) + both(SIX, val=0.59), {}, "no_proven_difference", None, "ce"),  # validation prefers CE
        (searched(STRONG) + both(np.array([0.05, 0.06])), {}, "no_proven_difference", None, "ce"),
        (searched(STRONG) + both(np.array([0.05])), {}, "not_confirmed", "one_seed", "ce"),
        (searched(STRONG), {}, "not_confirmed", "no_fresh_seeds", "ce"),
        (searched({"ce": 0.7, "negative": 0.6}), {}, "not_confirmed", "no_fresh_seeds", "ce"),
        (without_test(searched(STRONG) + both(SIX)), {}, "not_confirmed", "no_test_set", "ce"),
        (searched({"ce": 0.7}), {}, "not_confirmed", "no_rate", "ce"),
        (searched({"negative": 0.7}), {}, "not_confirmed", "no_ce", "negative"),
        (searched({"negative": 0.7}), {"planned": {LEVEL: {"negative": 8}}}, "not_confirmed", "no_ce", "negative"),
        (searched({"negative": 0.7}), {"planned": PLANNED}, "not_trained_enough", "no_ce_completed", None),
        (DIVERGED_CE, {}, "not_trained_enough", "no_ce_completed", None),
        (searched(STRONG, status="diverged"), {}, "not_trained_enough", "nothing_completed", None),
        (searched({"ce": 0.54, "negative": 0.7}), {}, "not_trained_enough", "ce_at_chance", None),
        (RISEN, RISING, "not_trained_enough", "ce_rising", None),
    ],
)
def test_every_finding_and_reason(rows, given, finding, reason, use):
    found = one(rows, **given)
    assert (found.finding, found.reason, found.use and found.use.arm) == (finding, reason, use)
    assert (found.difference is None) == (found.detectable is None)
    if finding == "not_trained_enough":
        assert (found.difference, found.sign_flip_p) == (None, None)
    words = verdict_words(found)
    assert (words.noise_level, words.finding) == (LEVEL, finding)
    assert len(words.doubts) == len(found.doubts)
    assert (words.snippet is None) == (use is None)
    if words.snippet is not None:
        compile(words.snippet, "snippet", "exec")


def test_cross_entropy_at_chance_ends_the_comparison_however_good_the_rate():
    found = one(searched({"ce": 0.512, "negative": 0.81}, num_val=4000))
    assert (found.finding, found.reason, found.use, found.difference) == (
        "not_trained_enough",
        "ce_at_chance",
        None,
        None,
    )
    assert (found.ce.arm, found.rate.config["smooth_rate"]) == ("ce", -2.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_proven_difference_has_the_numbers_of_scipy(sign):
    differences = sign * SIX
    found = one(searched(STRONG) + both(differences), space=SPACE)
    assert (found.rate.arm, found.rate.num_seeds, found.rate.val_accuracy) == ("negative", 6, pytest.approx(0.7))
    assert found.difference.mean == pytest.approx(differences.mean())
    interval = stats.t.interval(0.95, 5, loc=differences.mean(), scale=stats.sem(differences))
    assert (found.difference.low, found.difference.high) == pytest.approx(interval)
    permuted = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found.sign_flip_p == pytest.approx(permuted.pvalue) == 2 / 2**6
    assert found.ce.config == {"smooth_rate": 0.0, "warmup_epochs": 2, "lr": 0.01}
    assert "few_seeds" not in found.doubts


def at_three_levels(differences):
    """The verdicts of a run that finds the same at each of its levels."""
    levels = ("clean", LEVEL, "symmetric:0.3")
    return verdicts([row for level in levels for row in searched(STRONG, level) + both(differences, level)])


def test_an_interval_without_0_proves_nothing_where_the_sign_flips_could_have_shown_it_and_do_not():
    differences = np.array([0.010, 0.011, 0.012, 0.011, 0.010, 0.012, -0.0005, -0.0004])
    alone = one(searched(STRONG) + both(differences))
    assert (alone.finding, alone.sign_flip_p) == ("better", pytest.approx(8 / 2**8))
    found = at_three_levels(differences)
    assert {(f.finding, f.use.arm) for f in found} == {("no_proven_difference", "ce")}
    assert [f.sign_flip_p for f in found] == pytest.approx([3 * 8 / 2**8] * 3)
    assert all("few_seeds" not in f.doubts for f in found)


def test_an_interval_without_0_proves_nothing_where_many_levels_had_their_chance():
    differences = np.array([0.010, 0.012, 0.018, -0.001, 0.012])
    assert 0.05 / 3 < stats.ttest_1samp(differences, 0).pvalue < 0.05
    assert one(searched(STRONG) + both(differences)).finding == "better"
    assert {f.finding for f in at_three_levels(differences)} == {"no_proven_difference"}


def test_few_seeds_are_a_doubt_and_the_t_test_decides():
    found = one(searched(STRONG) + both(np.array([0.02, 0.03, 0.025, 0.015])))
    assert (found.finding, found.sign_flip_p) == ("better", 2 / 2**4)
    assert "few_seeds" in found.doubts
    # Six seeds are enough at one level, and too few at two.
    two = [row for level in (LEVEL, "clean") for row in searched(STRONG, level) + both(SIX, level)]
    assert all("few_seeds" in f.doubts for f in verdicts(two))


# Choices


def test_a_confirmation_that_has_begun_only_with_some_arms_decides_nothing():
    rows = searched(STRONG) + confirmed("ce", [0.9], [0.9])
    found = one(rows)
    assert (found.reason, found.rate.num_seeds, found.use.num_seeds) == ("no_fresh_seeds", 0, 0)
    assert "going_on" in found.doubts
    assert one(rows + confirmed("negative", [0.8], [0.9])).use.num_seeds == 1


def test_the_strongest_ce_is_chosen_by_validation_and_the_rate_too():
    rows = [
        *searched({"ce": 0.6, "positive": 0.61, "negative": 0.605}),
        *both(SIX),
        *confirmed("positive", [0.5] * 6, CE[:6] + 0.09),
        *confirmed("ce", [0.65] * 6, CE[:6] - 0.2, lr=0.09),
    ]
    found = one(rows)
    assert (found.ce.config["lr"], found.rate.config["smooth_rate"], found.finding) == (0.09, -2.0, "better")
    assert "other_ce_stronger" in found.doubts
    assert "another cross-entropy, perhaps that with the defaults" in " ".join(verdict_words(found).doubts)
    assert found.search_difference is None  # the search has no trial of this CE
    assert one(searched(STRONG)).search_difference.difference == pytest.approx(0.1)


def test_the_epoch_is_the_median_of_fresh_seeds_or_that_of_the_searchs_trial():
    rows = searched(STRONG)
    (summary,) = level_summaries(trials_frame(rows))
    best = summary.arms["negative"]
    assert (one(rows).rate.trial_id, one(rows).rate.best_epoch) == (best.trial_id, best.best_epoch)
    again = confirmed("ce", [0.9, 0.9, 0.9], CE[:3], lr=0.09) + confirmed("negative", [0.8] * 3, CE[:3])
    for row, epoch in zip(again, (3, 9, 4), strict=False):
        row["best_epoch"] = epoch
    found = one(rows + again).use
    assert (found.config["lr"], found.trial_id, found.best_epoch) == (0.09, None, 4)
    for row, epoch in zip(again[3:], (5, 8, 7), strict=True):
        row["best_epoch"] = epoch
    found = one(rows + again).rate  # the search has a trial of it
    assert (found.trial_id, found.best_epoch) == (best.trial_id, 7)
    assert best.best_epoch != 7


# Doubts


@pytest.mark.parametrize(
    ("kind", "rows", "given"),
    [
        ("two_seeds", searched(STRONG) + both(np.array([0.05, 0.06])), {}),
        ("few_seeds", searched(STRONG) + both(SLIGHT), {}),
        ("going_on", searched(STRONG), {"planned": {LEVEL: {"ce": 9, "negative": 8}}}),
        ("going_on", searched(STRONG) + both(SIX)[:-1], {}),
        ("too_noisy", searched(STRONG, noise_cancelling_rate=None), {}),
        ("few_trials", searched(STRONG, per_arm=7), {}),
        ("at_the_edge", searched(STRONG), {"space": {**SPACE, "smooth_rate": {**SPACE["smooth_rate"], "low": -2.0}}}),
        ("at_the_edge", searched(STRONG), {}),  # without a space, that of what was tried
        ("asymmetric_noise", searched(STRONG, "human:worst", noise_rate=None), {}),
        ("many_diverged", searched(STRONG) + searched({"negative": 0.5}, per_arm=3, status="diverged"), {}),
        ("other_ce_stronger", [*searched(STRONG), *both(SLIGHT), *confirmed("ce", [0.65] * 3, CE[:3], lr=0.09)], {}),
    ],
)
def test_each_doubt_has_its_cause(kind, rows, given):
    assert kind in one(rows, **given).doubts
    plain = one(searched({"ce": 0.6, "positive": 0.55, "negative": 0.7}) + both(SIX), space=SPACE)
    assert "going_on" in plain.doubts  # the selected positive rate has no seeds yet
    assert one(searched(STRONG) + both(SIX), space=SPACE, planned=PLANNED).doubts == ()


@pytest.mark.parametrize(
    ("kind", "changes", "given"),
    [
        ("too_noisy", {"noise_cancelling_rate": None}, {}),
        ("asymmetric_noise", {"level": "human:worst", "noise_rate": None}, {}),
        ("noisy_metric", {}, {"metric": "macro_f1"}),
    ],
)
def test_clean_validation_labels_are_not_doubted(kind, changes, given):
    rows = searched(STRONG, **changes)
    if given:
        rows = [{**row, "best_val_macro_f1": row["best_val_accuracy"]} for row in rows]
    doubted, sure = (one(rows, val_clean=val_clean, **given).doubts for val_clean in (False, True))
    assert set(doubted) - set(sure) == {kind}
    assert set(sure) <= set(doubted)


def test_what_a_run_says_of_its_validation_labels_counts():
    run = run_of(searched(STRONG, "human:worst", noise_rate=None))
    for val_clean in (False, True):
        content = run.content.model_copy(update={"data": RunData(val_clean=val_clean)})
        (found,) = find(replace(run, content=content)).verdicts
        assert ("asymmetric_noise" in found.doubts) is not val_clean


# Words


@pytest.mark.parametrize(
    ("rows", "headline"),
    [
        (
            searched(STRONG) + both(SIX),
            "use smooth_rate −2 (warm-up 2, lr 0.01), stop after epoch 5: better than the strongest cross-entropy, by "
            "+2.33 [+1.70, +2.97] points of test accuracy over 6 fresh seeds on this test set.",
        ),
        (
            searched(STRONG) + both(np.array([0.01, -0.01, 0.02])),
            "use cross-entropy (warm-up 2, lr 0.01), stop after epoch 5: nothing is proven to beat it. The best rate, "
            "−2, differs by +0.67 [−3.13, +4.46] points of test accuracy over 3 fresh seeds; a true difference of ",
        ),
        (
            searched(STRONG) + both(-SIX),
            "use cross-entropy (warm-up 2, lr 0.01), stop after epoch 5: nothing is proven to beat it. The best rate, "
            "−2, is worse",
        ),
        (
            searched(STRONG),
            "use cross-entropy (warm-up 2, lr 0.01), stop after epoch 5. Not confirmed: no rate has been compared with "
            "it on fresh seeds; --confirm-seeds 5 on the same command does it. The best rate of the search was "
            "smooth_rate −2 (warm-up 2, lr 0.01), which may be luck.",
        ),
        (
            searched({"ce": 0.512, "negative": 0.81}, num_val=4000),
            "not trained enough to say: cross-entropy itself (51.2 % on validation) is within its error of guessing; ",
        ),
    ],
)
def test_the_headline_says_what_to_use_and_why(rows, headline):
    said = verdict_words(one(rows)).headline
    assert said.startswith(headline)
    assert said.endswith(".")
    assert "inf" not in said


# Whatever the run


def gains(trials, level, config, ce):
    """Test accuracy over fresh seeds of a configuration minus that of CE, seed by seed."""
    rows = trials[(trials["stage"] == "confirm") & (trials["noise_level"] == level)]
    one, other = (
        rows[(rows["smooth_rate"] == c["smooth_rate"]) & (rows["lr"] == c["lr"])].set_index("seed")
        for c in (config, ce)
    )
    return (one["test_accuracy_at_best"] - other["test_accuracy_at_best"]).dropna().to_numpy()


def flip_p(differences):
    """The share of all flips of signs with a mean at least as far from 0."""
    means = np.array(list(product((-1, 1), repeat=len(differences)))) @ differences
    return float((np.abs(means) >= abs(differences.sum()) - 1e-12).mean())


def holm(p_values):
    """Corrected p values by level."""
    corrected, highest = {}, 0.0
    for i, level in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = corrected[level] = max(highest, (len(p_values) - i) * p_values[level])
    return corrected


@settings(max_examples=settings.default.max_examples // 4)
@given(st.randoms(use_true_random=False))
def test_only_a_proven_rate_displaces_cross_entropy(random):
    run = run_of(any_rows(random))
    found, claims = find(run), {}
    for level in found.confirmations:
        best = level.configurations[level.best]
        if best.arm != "ce" and level.strongest_ce is not None and best.test_at_best is not None:
            ce = level.configurations[level.strongest_ce].config
            claims[level.noise_level] = gains(run.trials, level.noise_level, best.config, ce)
    claims = {level: differences for level, differences in claims.items() if len(differences)}
    for verdict in found.verdicts:
        if verdict.finding == "not_trained_enough":
            assert (verdict.use, verdict.difference) == (None, None)
        elif verdict.finding != "better":
            assert verdict.use == (verdict.ce or verdict.rate)
            assert verdict.ce is not None or verdict.reason == "no_ce"
        else:
            assert verdict.use == verdict.rate
            differences = claims[verdict.noise_level]
            assert verdict.difference.mean == pytest.approx(differences.mean())
            assert differences.mean() > 0  # no rate below CE is used
            t_p = {level: stats.ttest_1samp(x, 0).pvalue if np.ptp(x) > 1e-12 else 1.0 for level, x in claims.items()}
            assert holm(t_p)[verdict.noise_level] <= 0.05
            if len(claims) * 2 / 2 ** len(differences) <= 0.05:
                flips = holm({level: flip_p(x) for level, x in claims.items()})
                assert flips[verdict.noise_level] <= 0.05 + 1e-12


@settings(max_examples=settings.default.max_examples // 8)
@given(st.randoms(use_true_random=False))
def test_the_test_set_of_the_search_takes_no_part_in_any_choice(random):
    rows = any_rows(random)
    search = [row for row in rows if row["stage"] == "search"]
    names = ("test_accuracy_at_best", "last_test_accuracy", "test_correct_at_best")
    others = random.sample(search, len(search))
    shuffled = [{**row, **{name: other[name] for name in names}} for row, other in zip(search, others, strict=True)]
    rows = [*search, *(row for row in rows if row["stage"] != "search")]
    before, after = (
        [
            (v.finding, v.reason, v.use and v.use.config, v.ce and v.ce.config, v.doubts)
            for v in find(run_of(some)).verdicts
        ]
        for some in (rows, [*shuffled, *rows[len(search) :]])
    )
    assert before == after
