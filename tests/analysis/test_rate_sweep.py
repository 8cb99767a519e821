"""The curve of a sweep: one point per rate, with the difference to rate 0 seed by seed."""

import pytest
from sweeps import CE, swept_row, swept_rows
from trial_rows import trials_frame

from nls_tune.analysis.rate_sweep import rate_sweeps


def test_each_rate_is_compared_with_rate_0_seed_by_seed():
    (found,) = rate_sweeps(trials_frame(swept_rows()))
    assert [rate.smooth_rate for rate in found.rates] == [-4.0, -1.0, 0.0, 0.5]
    assert [rate.arm for rate in found.rates] == ["negative", "negative", "ce", "positive"]
    assert found.rates[found.best].smooth_rate == -1.0  # by validation, not by test
    assert [rate.difference and rate.difference.mean for rate in found.rates] == [
        pytest.approx(0.02), pytest.approx(-0.01), None, pytest.approx(0.01),
    ]  # fmt: skip
    assert found.rates[0].test.mean == pytest.approx(0.84)
    assert found.rates[0].validation.num_seeds == 2


def test_what_was_confirmed_counts_and_of_one_rate_the_settings_that_validate_best():
    more = [
        swept_row(0.0, seed, stage="confirm", lr=0.1, best_val_accuracy=0.9, test_accuracy_at_best=0.7) for seed in CE
    ]
    (found,) = rate_sweeps(trials_frame([*swept_rows(), *more]))
    assert [rate.config["lr"] for rate in found.rates] == [0.01, 0.01, 0.1, 0.01]
    assert found.best == 2
    assert found.rates[0].difference.mean == pytest.approx(0.84 - 0.7)


def test_settings_with_fewer_seeds_do_not_take_the_place_of_those_with_all():
    lucky = swept_row(-4.0, 1, lr=0.1, best_val_accuracy=0.99)
    (found,) = rate_sweeps(trials_frame([*swept_rows(), lucky]))
    assert found.rates[0].config["lr"] == 0.01
    assert found.rates[0].validation.num_seeds == 2


def test_a_seed_that_confirmation_and_sweep_trained_counts_once():
    twice = [swept_row(rate, seed, stage="confirm") for rate in (-4.0, 0.0) for seed in CE]
    (found,) = rate_sweeps(trials_frame([*swept_rows(), *twice]))
    assert found == rate_sweeps(trials_frame(swept_rows()))[0]


def test_levels_without_a_sweep_have_none_and_the_order_is_that_of_the_run():
    confirmed = swept_rows(stage="confirm", level="clean")
    both = trials_frame([*confirmed, *swept_rows(), *swept_rows(level="symmetric:0.2")])
    found = rate_sweeps(both, ("symmetric:0.2", "symmetric:0.4", "clean"))
    assert [sweep.noise_level for sweep in found] == ["symmetric:0.2", "symmetric:0.4"]
    assert rate_sweeps(trials_frame(confirmed)) == ()


def test_without_a_test_set_validation_is_all_there_is():
    untested = swept_rows(test_accuracy_at_best=None)
    (found,) = rate_sweeps(trials_frame(untested))
    assert all(rate.test is None and rate.difference is None for rate in found.rates)


def test_a_seed_that_failed_is_left_out():
    failed = [
        {**one, "status": "failed", "best_val_accuracy": None} if one["seed"] == 2 else one for one in swept_rows()
    ]
    (found,) = rate_sweeps(trials_frame(failed))
    assert {rate.validation.num_seeds for rate in found.rates} == {1}
