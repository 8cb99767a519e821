from __future__ import annotations

import numpy as np
import pytest
from fake_runs import write_fake_run
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.rate_against_noise import rate_against_noise
from nls_tune.analysis.verdicts import findings
from nls_tune.runs import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    levels = ("symmetric:0.1", "symmetric:0.3", "human:worst")
    return load_run(write_fake_run(tmp_path_factory.mktemp("noise") / "run", trials=40, levels=levels))


def answer(trials, levels=()):
    """The rates of the verdicts of some rows."""
    return rate_against_noise(trials, findings(trials, levels=levels).verdicts)


def test_a_level_has_the_rate_to_use_and_its_facts(run):
    found, verdicts = answer(run.trials, run.levels), findings(run.trials, levels=run.levels).verdicts
    assert found.num_classes == 2
    for best, verdict in zip(found.levels, verdicts, strict=True):
        assert (best.noise_level, best.arm) == (verdict.noise_level, "ce")  # nothing is confirmed
        assert best.smooth_rate == 0
    assert [best.noise_rate for best in found.levels] == [0.1, 0.3, None]
    assert found.levels[2].noise_cancelling_rate is None


def test_only_completed_trials_of_the_search_count():
    right, half, wrong = np.arange(100) < 100, np.arange(100) < 80, np.arange(100) < 0
    rows = [
        trial_row({"smooth_rate": 0.0}, val_correct=half),
        trial_row({"smooth_rate": -1.0}, val_correct=wrong),
        *(trial_row({"smooth_rate": -2.0}, val_correct=right, status=s) for s in ("stopped", "diverged")),
        trial_row({"smooth_rate": -3.0}, val_correct=right, stage="confirm"),
    ]
    (best,) = answer(trials_frame(rows)).levels
    assert best.smooth_rate == 0.0
    for nothing in ([], [trial_row(status="diverged")]):
        assert answer(trials_frame(nothing)) is None


@pytest.mark.parametrize("num_classes", [2, 10])
@pytest.mark.parametrize(("noise_rate", "end"), [(0.0, 0.05), (0.3, 0.33), (0.499, None)])
def test_the_line_of_theory_ends_a_little_above_the_noise_seen(num_classes, noise_rate, end):
    row = trial_row(num_classes=num_classes, noise_rate=noise_rate)
    found = answer(trials_frame([row]))
    noise, rates = np.array(found.theory_noise_rates), np.array(found.theory_rates)
    assert (noise[0], rates[0]) == (0.0, 0.0)
    assert noise[-1] == pytest.approx(end or (0.5 * 20 / 21 if num_classes == 2 else 1.1 * 0.499))
    # Wei et al.: with K classes, r* = -e K / (K - 1) / (1 - e K / (K - 1)).
    lost = noise * num_classes / (num_classes - 1)
    assert rates == pytest.approx(-lost / (1 - lost))
    assert rates.min() >= -20 - 1e-9


def test_the_estimate_stands_in_for_an_unknown_noise_rate():
    unknown = trial_row(noise_rate=None, noise_cancelling_rate=None, noise_level="given")
    estimated = {**unknown, "estimated_noise_rate": 0.2}
    assert answer(trials_frame([unknown])).theory_rates == ()
    found = answer(trials_frame([estimated]))
    assert found.theory_noise_rates[-1] == pytest.approx(0.22)
    assert (found.levels[0].noise_rate, found.levels[0].estimated_noise_rate) == (None, 0.2)
