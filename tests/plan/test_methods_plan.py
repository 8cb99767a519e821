"""Plans that compare methods: budgets, the matrix of corrected losses, and what is refused."""

import numpy as np
import pytest
from estimates import estimate_of
from test_plan import DIGITS, identity_of, plan_of

from nls_tune.errors import InputError
from nls_tune.plan.level_data import LevelData
from nls_tune.runs.trial_spec import DataName


def compare(methods, **settings):
    return plan_of(**{**DIGITS, "methods": methods, "num_trials": 12, **settings})


def test_methods_share_the_trials_and_each_arm_is_a_group():
    plan = compare("ce,gls,gce")
    assert plan.levels[0].quotas == {"ce": 4, "positive": 3, "negative": 1, "gce": 4}
    assert {str(group.key): group.num_trials for group in plan.groups()} == {
        f"symmetric:0.4/{arm}": count for arm, count in plan.levels[0].quotas.items()
    }
    assert all(plan.training_settings(group.start[0]).arm == group.key.arm for group in plan.groups())
    assert plan.shares_warmups
    assert plan.notes == ()


def test_trials_that_do_not_go_round_are_named():
    plan = compare("ce,gls,gce", num_trials=14)
    assert plan.num_trials == 12
    assert "2 of 14 trials are left out, so that all methods get as many" in plan.notes[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": "ce,gce,elr", "num_trials": 2}, "at least 3, got 2"),
        ({"methods": "ce,gcee"}, "--methods: unknown loss 'gcee'"),
        ({"methods": "ce,ce"}, "--methods: each method must be named once"),
        ({"methods": "ce,no_such_module:Loss"}, "cannot be imported"),
        ({"methods": "ce,forward", "estimate_noise": False}, "leave --no-estimate-noise out"),
        ({"methods": "ce,forward", "overrides": ("batch_size=32", "transition=matrix:none.csv")}, "none.csv"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        compare(**settings)


def test_the_space_holds_the_methods_and_a_run_without_them_is_as_before():
    before = identity_of(plan_of(**DIGITS))
    assert "methods" not in before["settings"]
    found = identity_of(compare("ce,gce"))["space"]
    assert set(found["space"]) == {"smooth_rate", "warmup_epochs", "lr", "gce_q"}


def matrix_of(plan):
    return LevelData(plan).load(DataName("symmetric:0.4")).transition


def test_the_matrix_is_the_estimate_once_that_is_made():
    plan = compare("ce,forward")
    assert plan.levels[0].needs_estimate
    assert matrix_of(plan) is None
    estimate = estimate_of("symmetric:0.4", dataset="digits", num_classes=10)
    assert matrix_of(plan.with_estimate(estimate)).tolist() == [list(row) for row in estimate.matrix]


def test_the_true_matrix_is_given_on_request_and_that_is_said():
    plan = compare("ce,forward", overrides=("batch_size=32", "transition=true_noise"))
    assert not plan.levels[0].needs_estimate
    matrix = matrix_of(plan)
    assert matrix.shape == (10, 10)
    assert np.allclose(np.diag(matrix), 0.6, atol=0.2)
    assert any("true matrix" in note for note in plan.notes)


def test_a_matrix_from_a_file_is_a_part_of_what_a_run_is(tmp_path):
    given = tmp_path / "matrix.csv"
    np.savetxt(given, 0.6 * np.eye(10) + 0.04, delimiter=",")
    settings = {"overrides": ("batch_size=32", f"transition=matrix:{given}")}
    plan = compare("ce,forward,backward", **settings)
    assert matrix_of(plan)[0].tolist() == pytest.approx([0.64] + [0.04] * 9)
    first = identity_of(plan)["settings"]["transition_sha256"]
    np.savetxt(given, 0.5 * np.eye(10) + 0.05, delimiter=",")
    assert identity_of(compare("ce,forward,backward", **settings))["settings"]["transition_sha256"] != first


def test_without_such_a_loss_no_matrix_is_needed():
    assert not compare("ce,gce").levels[0].needs_estimate
    assert matrix_of(compare("ce,gce")) is None
