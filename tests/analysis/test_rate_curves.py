from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from fake_runs import write_fake_run
from hypothesis import given, settings
from hypothesis import strategies as st
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.rate_curves import MIN_POINTS, rate_curves, smoothed_curve
from nls_tune.runs import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    levels = ("symmetric:0.2", "human:worst")
    return load_run(write_fake_run(tmp_path_factory.mktemp("curves") / "run", trials=60, levels=levels, seed=3))


def one_point(rates, accuracies, rate, times=None) -> float:
    """The local line at one rate, step by step as the module describes it."""
    x, x0, n = np.log(1 - rates), math.log(1 - rate), len(rates)
    bandwidth = max(1.5 * sorted(abs(x - x0))[math.ceil(n ** (4 / 5) * 2 / 3) - 1], 0.2 * (x.max() - x.min()))
    weights = np.where(abs(x - x0) < bandwidth, (1 - (abs(x - x0) / bandwidth) ** 3) ** 3, 0.0)
    if times is not None:
        weights = weights * times
    used = weights > 0
    return float(np.polyval(np.polyfit(x[used] - x0, accuracies[used], 1, w=np.sqrt(weights[used])), 0.0))


def completed(run, level) -> pd.DataFrame:
    rows = run.trials.query("stage == 'search' and noise_level == @level")
    return rows[(rows["status"] == "completed") & rows["best_val_accuracy"].notna()]


def test_points_are_the_completed_trials_and_the_rest_is_counted(run):
    for curve in rate_curves(run.trials, run.levels):
        rows = completed(run, curve.noise_level).sort_values(["smooth_rate", "trial_id"])
        frame = pd.DataFrame([vars(point) for point in curve.points])
        columns = [
            "trial_id",
            "arm",
            "smooth_rate",
            "warmup_epochs",
            "lr",
            "best_val_accuracy",
            "test_accuracy_at_best",
        ]
        assert frame.to_numpy().tolist() == rows[columns].to_numpy().tolist()
        assert curve.num_left_out == 60 - len(rows) > 0
    assert [c.noise_cancelling_rate is None for c in rate_curves(run.trials, run.levels)] == [False, True]


@pytest.mark.parametrize("level", [0, 1])
def test_the_smoother_is_the_local_line_at_each_rate(run, level):
    curve = rate_curves(run.trials, run.levels)[level]
    rows = completed(run, curve.noise_level)
    rates = rows["smooth_rate"].to_numpy()
    for found, column in ((curve.validation, "best_val_accuracy"), (curve.test, "test_accuracy_at_best")):
        expected = [one_point(rates, rows[column].to_numpy(), rate) for rate in found.rates]
        assert found.mean == pytest.approx(expected, abs=1e-9)
        evenly = np.geomspace(1 - rates.min(), 1 - rates.max(), len(found.rates))
        assert 1 - np.array(found.rates) == pytest.approx(evenly)


def test_the_band_is_that_of_resampled_trials(run):
    rows = completed(run, "symmetric:0.2")
    rates, accuracies = rows["smooth_rate"].to_numpy(), rows["best_val_accuracy"].to_numpy()
    found = smoothed_curve(rates, accuracies)
    random = np.random.default_rng(5)
    for index in (16, 32, 48):
        values = []
        for _ in range(400):
            drawn = Counter(random.integers(0, len(rates), len(rates)).tolist())
            times = np.array([drawn[i] for i in range(len(rates))])
            values.append(one_point(rates, accuracies, found.rates[index], times))
        low, high = np.quantile(values, [0.025, 0.975])
        error = 0.25 * (high - low)  # both ends are estimated from 400 resamples
        assert found.low[index] == pytest.approx(low, abs=error)
        assert found.high[index] == pytest.approx(high, abs=error)
    assert smoothed_curve(rates, accuracies) == found


def test_a_straight_line_is_kept_straight_without_any_band():
    rates = 1 - np.geomspace(9, 0.2, 30)
    found = smoothed_curve(rates, 0.6 + 0.1 * np.log(1 - rates))
    line = 0.6 + 0.1 * np.log(1 - np.array(found.rates))
    assert found.mean == pytest.approx(line, abs=1e-9)
    # A resample without the trials at an end has to do with the mean of the others there, and with a line elsewhere.
    assert found.low[10:-10] == pytest.approx(line[10:-10], abs=1e-9)
    assert found.high[10:-10] == pytest.approx(line[10:-10], abs=1e-9)


def test_a_gap_beside_many_trials_of_one_rate_is_not_filled_by_a_line():
    rates = np.array([0.0] * 20 + [0.001, -0.001, 0.8])
    accuracies = np.where(rates == 0.001, 0.9, 0.8)  # a slope of 100 a unit
    found = smoothed_curve(rates, accuracies)
    assert max(found.mean[10:]) < 0.82  # where the many are
    assert min(found.mean[10:]) > 0.78


@given(st.lists(st.tuples(st.sampled_from([-8.0, -3.0, -1.0, -0.1, 0.0, 0.2, 0.9, 1.0]), st.floats(0, 1)), max_size=40))
@settings(max_examples=settings.default.max_examples // 2)
def test_whatever_the_trials_the_curve_stays_within_reason(points):
    rates, accuracies = np.array([p[0] for p in points]), np.array([p[1] for p in points])
    found = smoothed_curve(rates, accuracies)
    assert (found is None) == (len(points) < MIN_POINTS or len({min(rate, 0.99) for rate in rates}) < 3)
    if found is not None:
        assert np.isfinite([found.mean, found.low, found.high]).all()
        low, mean, high = np.array([found.low, found.mean, found.high])
        assert ((low >= 0) & (low <= mean) & (mean <= high) & (high <= 1)).all()
        assert rates.min() <= found.rates[0] < found.rates[-1] <= rates.max()
        assert list(found.rates) == sorted(found.rates)


def test_too_little_has_points_and_no_curve(tmp_path):
    assert rate_curves(trials_frame([])) == ()
    rows = [trial_row({"smooth_rate": -1.0, "lr": lr}) for lr in np.linspace(0.1, 0.2, 9)]
    (same_rate,) = rate_curves(trials_frame(rows))
    assert (len(same_rate.points), same_rate.validation, same_rate.test) == (9, None, None)
    assert {point.test_accuracy for point in same_rate.points} == {None}
    (confirmation,) = rate_curves(trials_frame([*rows, trial_row({"smooth_rate": 0.0}, stage="confirm")]))
    assert confirmation == same_rate
    run = load_run(write_fake_run(tmp_path / "run", all_diverged=True))
    curves = rate_curves(run.trials, run.levels)
    assert [(c.points, c.num_left_out, c.validation) for c in curves] == [((), 20, None)] * 2


def test_without_a_test_set_there_is_no_test_curve(tmp_path):
    run = load_run(write_fake_run(tmp_path / "run", trials=40, num_test=0))
    assert [(c.validation is None, c.test) for c in rate_curves(run.trials, run.levels)] == [(False, None)] * 2
