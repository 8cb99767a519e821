from __future__ import annotations

import math
import time
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trial_rows import trial_row, trials_frame

from nls_tune.analysis import selection as module
from nls_tune.analysis.level_summaries import paired_difference
from nls_tune.analysis.selection import average, paired_variance, posterior, raw_best, select, selection
from nls_tune.runs.schemas import STATUSES, unpack_correct

NOT_COMPLETED = [s for s in STATUSES if s != "completed"]
counts = st.lists(st.integers(0, 200), min_size=8, max_size=14)


def make_trials(accuracies, lr=None, rate=None, warmup=None, **columns) -> pd.DataFrame:
    """The columns that selection reads, by default of trials along a line of learning rates."""
    n = len(accuracies)
    begin = datetime(2025, 1, 1, tzinfo=UTC)
    frame = pd.DataFrame(
        {
            "trial_id": [f"trial{i:03d}" for i in range(n)],
            "status": "completed",
            "smooth_rate": np.full(n, -1.0) if rate is None else rate,
            "warmup_epochs": np.full(n, 2) if warmup is None else warmup,
            "lr": np.geomspace(1e-4, 1e-1, n) if lr is None else lr,
            "config_epochs": 10,
            "best_val_accuracy": np.asarray(accuracies, float),
            "test_accuracy_at_best": 0.5,
            "num_val": 100,
            "val_correct_at_best": None,
            "started_at": [begin + timedelta(minutes=i) for i in range(n)],
        }
    )
    return frame.assign(**columns)


def line(n: int, lucky: int, luck: float = 0.1) -> np.ndarray:
    """Accuracies that rise to the last trial, but for one lucky one."""
    return np.linspace(0.6, 0.7, n) + luck * (np.arange(n) == lucky)


# The raw best


@pytest.mark.parametrize("choose", [raw_best, select])
class TestFewTrials:
    def test_the_highest_objective_is_selected(self, choose):
        rows = [trial_row({"lr": lr}, best_val_accuracy=v) for lr, v in ((0.1, 0.6), (0.2, 0.8), (0.3, 0.7))]
        assert choose(trials_frame(rows))["lr"] == 0.2

    @pytest.mark.parametrize("status", NOT_COMPLETED)
    def test_only_completed_trials_are_selected(self, choose, status):
        better = trial_row({"lr": 0.1}, best_val_accuracy=0.9, status=status)
        frame = trials_frame([better, trial_row({"lr": 0.2}, best_val_accuracy=0.5)])
        assert choose(frame)["lr"] == 0.2
        assert choose(frame[frame["status"] == status]) is None

    def test_the_test_set_takes_no_part(self, choose):
        right, wrong = np.ones(10, bool), np.zeros(10, bool)
        rows = [
            trial_row({"lr": 0.1}, best_val_accuracy=0.6, test_correct=right),
            trial_row({"lr": 0.2}, best_val_accuracy=0.7, test_correct=wrong),
        ]
        assert choose(trials_frame(rows))["lr"] == 0.2

    def test_ties_go_to_the_trial_that_started_first(self, choose):
        rows = [trial_row({"lr": lr}, best_val_accuracy=0.5, minute=m) for lr, m in ((0.1, 2), (0.2, 1), (0.3, 3))]
        assert choose(trials_frame(rows))["lr"] == 0.2

    def test_a_trial_without_an_objective_is_not_selected(self, choose):
        row = trial_row(best_val_accuracy=None, best_epoch=None)
        assert choose(trials_frame([row])) is None

    def test_nothing_is_selected_from_nothing(self, choose):
        assert choose(trials_frame([])) is None


@pytest.mark.parametrize("n", [1, 2, 7])
def test_too_few_trials_are_taken_as_they_are(n):
    stopped = make_trials([0.9] * 20, status="stopped")
    found = selection(pd.concat([make_trials(line(n, 0)), stopped], ignore_index=True))
    assert (found.method, found.posterior_mean, found.posterior_std) == ("raw", None, None)
    assert found.row["trial_id"] == found.raw_best_row["trial_id"] == "trial000"


# The posterior mean


def test_a_lucky_trial_among_worse_neighbours_is_passed_over():
    found = selection(make_trials(line(12, lucky=2)))
    assert found.method == "posterior"
    assert found.row["trial_id"] == "trial011"
    assert found.raw_best_row["trial_id"] == "trial002"
    assert 0.65 < found.posterior_mean < 0.71
    assert 0 < found.posterior_std < 0.05
    with pytest.raises(FrozenInstanceError):
        found.method = "raw"


@given(counts, st.randoms(use_true_random=False), st.integers(-200, 200))
@settings(max_examples=20)
def test_order_constants_and_the_test_set_do_not_matter(values, random, shift):
    accuracies = np.array(values) / 1024
    frame = make_trials(accuracies, warmup=[(3 * i) % 5 for i in range(len(values))])
    chosen = select(frame)["trial_id"]
    order = random.sample(range(len(values)), len(values))
    assert select(frame.iloc[order])["trial_id"] == chosen
    assert select(frame.assign(best_val_accuracy=accuracies + shift / 1024))["trial_id"] == chosen
    assert select(frame.assign(test_accuracy_at_best=np.array(order) / 10))["trial_id"] == chosen


@given(counts, st.lists(st.tuples(st.sampled_from(NOT_COMPLETED), st.floats(0, 1)), min_size=1, max_size=5))
@settings(max_examples=20)
def test_trials_that_were_not_completed_never_matter(values, others):
    frame = make_trials(np.array(values) / 1000)
    statuses, accuracies = zip(*others, strict=True)
    more = make_trials(accuracies, status=statuses, trial_id=[f"other{i}" for i in range(len(others))])
    alone, among = selection(frame), selection(pd.concat([more, frame], ignore_index=True))
    assert among.row["trial_id"] == alone.row["trial_id"]
    assert among.posterior_mean == alone.posterior_mean


def test_without_noise_the_raw_best_or_its_equal_is_selected():
    rng = np.random.default_rng(0)
    for _ in range(20):
        lr, rate = np.exp(rng.uniform(-9, -2, 20)), -rng.uniform(0, 8, 20)
        accuracies = 0.8 - 0.01 * (np.log(lr) + 5) ** 2 - 0.05 * (np.log(1 - rate) - 1) ** 2
        found = selection(make_trials(accuracies, lr=lr, rate=rate))
        # The noise is not known to be 0, so the next best, a hair's breadth below, may win.
        assert found.row["best_val_accuracy"] >= accuracies.max() - 0.05 * accuracies.std()
        assert found.posterior_mean == pytest.approx(accuracies.max(), abs=0.01)


def test_with_a_tiny_nugget_the_surface_is_what_was_measured():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(15, 3))
    accuracies = rng.normal(size=15)
    kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1))
    found = average(accuracies, kernel[None], np.array([1.0]), np.array([1e-9]))
    np.testing.assert_allclose(found.mean, accuracies, atol=1e-6)
    assert found.std.max() < 1e-4


def test_equal_accuracies_go_to_the_first():
    found = selection(make_trials([0.7] * 9))
    assert (found.row["trial_id"], found.posterior_mean) == ("trial000", pytest.approx(0.7))


def test_one_configuration_is_worth_its_average():
    accuracies = [0.61, 0.66, 0.64, 0.63, 0.65, 0.62, 0.64, 0.60]
    found = selection(make_trials(accuracies, lr=0.01))
    assert found.posterior_mean == pytest.approx(np.mean(accuracies))
    assert found.row["trial_id"] == "trial001"


def test_seeds_of_a_configuration_are_averaged():
    # One of the first configuration's seeds is the best of all, but on average the second is better.
    accuracies = [0.72, 0.60, 0.62, 0.61, 0.63, 0.70, 0.69, 0.71, 0.70, 0.70]
    found = selection(make_trials(accuracies, lr=[0.001] * 5 + [0.1] * 5))
    assert found.raw_best_row["lr"] == 0.001
    assert found.row["trial_id"] == "trial007"
    assert found.posterior_mean == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("config_optimizer", "adamw", "sgd"),
        ("config_flip", True, False),
        ("config_batch_size", 64, 1024),
        ("config_clip_norm", 0.0, 2.0),
        ("config_milestones", [10, 20], []),
    ],
)
def test_other_settings_that_were_searched_count(name, good, bad):
    # The best trial has the setting with which all others are bad.
    accuracies = [0.70, 0.69, 0.70, 0.69, 0.70, 0.69, 0.71, 0.67, 0.68, 0.67, 0.68, 0.67]
    column = pd.Series([good] * 6 + [bad] * 6)
    lr = [0.01, 0.02] * 6
    assert selection(make_trials(accuracies, lr=lr, **{name: column})).row[name] == good
    assert selection(make_trials(accuracies, lr=lr)).raw_best_row["trial_id"] == "trial006"


def test_a_rate_of_one_is_a_rate():
    found = selection(make_trials(line(8, 7), rate=np.linspace(0.3, 1.0, 8)))
    assert math.isfinite(found.posterior_mean)


def test_collapsed_trials_do_not_bend_the_surface():
    good = line(12, lucky=2, luck=0.03)
    collapsed = [0.1, 0.1, 0.12, 0.1, 0.1]
    alone = selection(make_trials(good))
    for lr in (np.geomspace(0.2, 1, 5), np.geomspace(2e-4, 5e-2, 5)):
        everywhere = np.concatenate([np.geomspace(1e-4, 1e-1, 12), lr])
        among = selection(make_trials([*good, *collapsed], lr=everywhere))
        assert among.row["trial_id"] == alone.row["trial_id"]
        assert among.posterior_mean == pytest.approx(alone.posterior_mean, abs=1e-12)


def test_also_most_trials_may_have_collapsed():
    accuracies = [0.70, 0.69, 0.71, 0.70, *[0.1] * 12]
    found = selection(make_trials(accuracies, lr=np.geomspace(1e-4, 1, 16)))
    assert found.posterior_mean == pytest.approx(0.7, abs=0.01)


# The surface


@given(st.integers(2, 8), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_the_posterior_is_that_of_kriging_with_an_unknown_mean(n, seed):
    rng = np.random.default_rng(seed)
    accuracies, points = rng.normal(size=n), rng.normal(size=(n, 2))
    kernel = np.exp(-((points[:, None] - points[None]) ** 2).sum(-1))
    found = average(accuracies, kernel[None], np.array([0.7]), np.array([0.2]))
    surface = 0.7 * kernel
    inverse, ones = np.linalg.inv(surface + 0.2 * np.eye(n)), np.ones(n)
    precision = ones @ inverse @ ones
    level = ones @ inverse @ accuracies / precision
    unexplained = ones - surface @ inverse @ ones
    variance = np.diag(surface - surface @ inverse @ surface) + unexplained**2 / precision
    np.testing.assert_allclose(found.mean, level + surface @ inverse @ (accuracies - level), atol=1e-9)
    np.testing.assert_allclose(found.std, np.sqrt(variance), atol=1e-9)


def test_hyperparameters_are_weighted_by_their_restricted_likelihood():
    rng = np.random.default_rng(3)
    x = np.linspace(0, 1, 9)
    accuracies = np.sin(5 * x) + 0.1 * rng.normal(size=9)
    kernels = np.array([np.exp(-((x[:, None] - x) ** 2) / s**2) for s in (0.1, 0.4)])
    signals, noises = np.array([1.0, 0.3]), np.array([0.01, 0.2])
    evidence, single = [], []
    for kernel in kernels:
        for signal, noise in zip(signals, noises, strict=True):
            covariance = signal * kernel + noise * np.eye(9)
            inverse, ones = np.linalg.inv(covariance), np.ones(9)
            left = accuracies - ones @ inverse @ accuracies / (ones @ inverse @ ones)
            # Rasmussen and Williams (2006), equation 2.45, with a constant as the basis
            evidence.append(
                -0.5 * (left @ inverse @ left + np.linalg.slogdet(covariance)[1] + math.log(ones @ inverse @ ones))
            )
            single.append(average(accuracies, kernel[None], np.array([signal]), np.array([noise])))
    weights = np.exp(np.array(evidence) - max(evidence))
    weights /= weights.sum()
    found = average(accuracies, kernels, signals, noises)
    means, variances = np.array([p.mean for p in single]), np.array([p.std**2 for p in single])
    np.testing.assert_allclose(found.mean, weights @ means, atol=1e-9)
    np.testing.assert_allclose(found.std**2, weights @ (variances + means**2) - found.mean**2, atol=1e-9)


def test_noise_that_the_samples_prove_is_smoothed_over():
    accuracies = line(10, lucky=1, luck=0.002) * 0.05
    x = np.linspace(0, 3, 10)
    distances = ((x[:, None] - x) ** 2)[None]
    sure, unsure = posterior(accuracies, distances, 0.0), posterior(accuracies, distances, 1.0)
    assert np.ptp(unsure.mean) < 0.2 * np.ptp(sure.mean)
    assert (unsure.std > sure.std).all()


def test_the_least_noise_is_half_the_median_variance_of_paired_differences():
    rng = np.random.default_rng(1)
    rows = [trial_row({"lr": 0.01 * i}, val_correct=rng.random(43) < 0.7, minute=i) for i in range(1, 6)]
    frame = trials_frame(rows)
    correct = [unpack_correct(bits, 43) for bits in frame["val_correct_at_best"]]
    variances = [paired_difference(a, b).standard_error ** 2 for a, b in combinations(correct, 2)]
    assert paired_variance(frame) == pytest.approx(np.median(variances) / 2)
    assert paired_variance(frame.iloc[:1]) == 0
    assert paired_variance(make_trials([0.5, 0.6])) == 0
    same = trials_frame([trial_row({"lr": lr}, val_correct=correct[0]) for lr in (0.1, 0.2)])
    assert paired_variance(same) == 0


def test_the_samples_decide_how_much_of_a_difference_is_luck():
    rng = np.random.default_rng(2)
    accuracies = np.linspace(0.60, 0.62, 12) + 0.001 * rng.normal(size=12)
    common = rng.random(2000) < 0.6
    agreeing = [np.packbits(common).tobytes()] * 12
    disagreeing = [np.packbits(np.where(rng.random(2000) < 0.3, ~common, common)).tobytes() for _ in range(12)]
    spread = []
    for packed in (agreeing, disagreeing):
        frame = make_trials(accuracies, val_correct_at_best=packed, num_val=2000)
        spread.append(selection(frame).posterior_mean - accuracies.mean())
    assert spread[1] < 0.7 * spread[0]


# What it is worth


def bump(u, warmup, log_lr):
    return np.maximum(1 - 0.6 * (u - 1.3) ** 2 - 0.09 * (log_lr + 5.5) ** 2 - 0.0015 * (warmup - 4) ** 2, -1)


def cliff(u, warmup, log_lr):
    return np.where(log_lr + 1.8 * u > -0.5, -6, bump(u, warmup, log_lr))


def ridge(u, warmup, log_lr):
    return np.maximum(1 - 0.3 * (log_lr + u + 4.5) ** 2, -1.5)


def mean_gain(surface, noise: float, groups: int) -> float:
    """How much better the selected trial truly is than the raw best, in standard deviations of the surface."""
    rng = np.random.default_rng(29)
    n = 20 * groups
    u, warmup, log_lr = rng.uniform(0, 2.2, n), rng.integers(0, 11, n), rng.uniform(-9, -2.5, n)
    truth = surface(u, warmup, log_lr)
    truth = truth / np.std(truth[truth > np.quantile(truth, 0.25)])
    accuracies = 0.7 + 0.01 * (truth + noise * rng.normal(size=n))
    frame = make_trials(accuracies, lr=np.exp(log_lr), rate=1 - np.exp(u), warmup=warmup)
    found = [selection(frame.iloc[group]) for group in np.arange(n).reshape(groups, 20)]
    return float(np.mean([truth[one.row.name] - truth[one.raw_best_row.name] for one in found]))


def test_the_selected_trial_is_truly_better_than_the_raw_best_where_noise_is_strong():
    gains = [mean_gain(surface, noise=1.0, groups=50) for surface in (bump, cliff, ridge)]
    assert np.mean(gains) > 0.02
    assert min(gains) > -0.02


def test_the_selected_trial_is_not_truly_worse_than_the_raw_best_where_noise_is_weak():
    assert min(mean_gain(surface, noise=0.1, groups=15) for surface in (bump, cliff, ridge)) > -0.02


def test_sixty_trials_take_no_time():
    rng = np.random.default_rng(0)
    bits = [rng.bytes(1250) for _ in range(60)]
    frame = make_trials(
        0.6 + 0.01 * rng.normal(size=60), rate=-rng.random(60), val_correct_at_best=bits, num_val=10_000
    )
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        selection(frame)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5  # 0.03 on an idle core, and cores differ


def test_lengthscales_fill_their_range_evenly():
    for settings_ in (1, 2, 5):
        scales = module._lengthscales(settings_)
        assert scales.shape == (module.NUM_LENGTHSCALES, settings_)
        low, high = np.log(module.LENGTHSCALES)
        shares = np.sort((np.log(scales) - low) / (high - low), axis=0)
        even = (np.arange(module.NUM_LENGTHSCALES)[:, None] + 0.5) / module.NUM_LENGTHSCALES
        assert np.abs(shares - even).max() < 0.1
    assert module._lengthscales(0).shape == (module.NUM_LENGTHSCALES, 0)


# Large groups


def many_trials(n: int, noise: float = 0.01, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Trials around the best learning rate, 10**-2, and rate, -1, with what each is worth."""
    random = np.random.default_rng(seed)
    lr, share = random.uniform(-4, -1, n), random.uniform(-0.5, 2, n)
    worth = 0.8 - 0.02 * (lr + 2) ** 2 - 0.03 * (share - np.log(2)) ** 2
    right = random.random(400) < (worth + random.normal(0, noise / 2, n))[:, None]
    frame = make_trials(worth + random.normal(0, noise, n), lr=10**lr, rate=1 - np.exp(share))
    bits = [np.packbits(row).tobytes() for row in right]
    return frame.assign(num_val=400, val_correct_at_best=bits), worth


@pytest.mark.parametrize("n", [8, 60, module.MAX_TRIALS])
def test_small_groups_are_looked_at_whole(n):
    """What the package did before it knew large groups, step by step."""
    frame, _ = many_trials(n)
    ranked = frame.sort_values("best_val_accuracy", ascending=False)
    accuracies = ranked["best_val_accuracy"].to_numpy()
    half = ranked["val_correct_at_best"][: (n + 1) // 2]
    correct = [unpack_correct(bits, 400) for bits in half]
    variance = np.median([paired_difference(a, b).standard_error ** 2 for a, b in combinations(correct, 2)]) / 2
    below = accuracies[0] - accuracies
    top = ranked[~(below > module.COLLAPSED * max(np.quantile(below, 0.25), variance**0.5))]
    settings_ = (np.log(1 - top["smooth_rate"].to_numpy()), np.log(top["lr"].to_numpy()))
    distances = np.array([((s[:, None] - s) / s.std()) ** 2 for s in settings_])
    expected = posterior(top["best_val_accuracy"].to_numpy(), distances, variance)
    chosen = int(expected.mean.argmax())
    found = selection(frame)
    assert found.row["trial_id"] == top["trial_id"].iloc[chosen]
    assert found.posterior_mean == pytest.approx(expected.mean[chosen], abs=1e-12)
    assert found.posterior_std == pytest.approx(expected.std[chosen], abs=1e-12)


def test_large_groups_are_quick_and_their_luck_is_still_taken_out():
    frame, worth = many_trials(3000, noise=0.03)
    begin = time.process_time()
    found = selection(frame)
    assert time.process_time() - begin < 3  # all trials would take minutes
    chosen = worth[frame.index[frame["trial_id"] == found.row["trial_id"]][0]]
    lucky = worth[frame.index[frame["trial_id"] == found.raw_best_row["trial_id"]][0]]
    assert found.raw_best_row["best_val_accuracy"] == frame["best_val_accuracy"].max()
    assert found.raw_best_row["best_val_accuracy"] - lucky > 0.05
    assert abs(found.posterior_mean - chosen) < 0.02
    assert worth.max() - chosen < 0.01


def test_of_a_large_group_the_better_half_is_looked_at_evenly(monkeypatch):
    frame, _ = many_trials(1000)
    seen = []
    monkeypatch.setattr(module, "posterior", lambda a, d, v: seen.append(a) or posterior(a, d, v))
    selection(frame)
    (looked_at,) = seen
    ranks = np.flatnonzero(np.isin(np.sort(frame["best_val_accuracy"])[::-1], looked_at))
    assert len(looked_at) == module.MAX_TRIALS
    assert (ranks[0], ranks[-1]) == (0, 499)
    assert set(np.diff(ranks)) <= {5, 6}


def test_the_variance_of_many_trials_is_that_of_some():
    frame, _ = many_trials(2000)
    pairs = np.random.default_rng(0).integers(0, 2000, (400, 2))
    correct = [unpack_correct(bits, 400) for bits in frame["val_correct_at_best"]]
    variances = [paired_difference(correct[a], correct[b]).standard_error ** 2 for a, b in pairs if a != b]
    assert paired_variance(frame) == pytest.approx(np.median(variances) / 2, rel=0.05)
