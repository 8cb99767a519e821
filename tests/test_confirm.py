"""What the confirmation trains, and on which labels, without starting Ray."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from trial_rows import trial_row, trials_frame

from nls_tune.confirm import missing_trials
from nls_tune.errors import InputError
from nls_tune.plan import SearchPlan, make_plan
from nls_tune.results import config_columns
from nls_tune.search_settings import check_search_settings

LEVELS = ("symmetric:0.4", "clean")


def plan_of(**settings) -> SearchPlan:
    given = {"noise": LEVELS, "preset": "cpu", "epochs": 6, "train_size": 500, "confirm_seeds": 2, **settings}
    return make_plan(check_search_settings(**given), 0, progress=False)


def searched(plan: SearchPlan) -> pd.DataFrame:
    """A search in which each level completed its CE and one negative rate."""
    rows = []
    for minute, (level, rate) in enumerate((level, rate) for level in LEVELS for rate in (0.0, -1.0)):
        settings = plan.training_settings(plan.space.default(smooth_rate=rate, lr=0.02))
        row = trial_row(noise_level=level, arm=settings.arm, minute=minute, **config_columns(settings))
        rows.append(row)
    return trials_frame(rows)


@pytest.fixture(scope="module")
def drawn() -> SearchPlan:
    return plan_of(noise_draws=True, seed=5, noise_seed=20)


def test_each_seed_has_one_draw_and_all_configurations_share_it(drawn):
    missing = missing_trials(drawn, searched(drawn))
    assert len({config["trial_id"] for config in missing}) == len(missing) == 2 * 2 * 3
    for config in missing:
        seed = config["settings"]["seed"]
        fixed = config["noise_level"] == "clean"
        assert config["noise_seed"] == (None if fixed else {6: 21, 7: 22}[seed])
        assert (config["data"] == "clean") == fixed


def test_a_draw_has_other_wrong_labels_of_the_same_samples(drawn):
    search, first = drawn.dataset("symmetric:0.4"), drawn.dataset("symmetric:0.4", 21)
    assert (search.noise_seed, first.noise_seed) == (20, 21)
    assert np.shares_memory(search.inputs, first.inputs)
    assert (search.num_train, search.num_val) == (first.num_train, first.num_val)
    assert 0.4 < (search.noisy_labels != first.noisy_labels).mean() < 0.56  # 2 * 0.4 * 0.6 differ
    assert drawn.dataset("symmetric:0.4", 21) is first
    assert drawn.dataset("symmetric:0.4", 20) is search


def test_without_draws_the_data_are_those_of_the_search():
    plan = plan_of()
    for config in missing_trials(plan, searched(plan)):
        assert (config["noise_seed"], config["data"]) == (None, config["noise_level"])
    assert plan.notes == ()


def test_the_trials_of_a_draw_have_names_of_their_own(drawn):
    names = [
        {c["trial_id"] for c in missing_trials(plan, searched(plan)) if c["noise_level"] == level}
        for plan in (drawn, plan_of(seed=5, noise_seed=20))
        for level in LEVELS
    ]
    assert not names[0] & names[2]
    assert names[1] == names[3]


def test_it_says_which_labels_are_not_drawn(drawn):
    assert drawn.notes == ("the labels of clean are not drawn: the confirmation keeps them for all seeds",)
    assert drawn.identity()["settings"]["noise_draws"] is True
    assert "noise_draws" not in plan_of().identity()["settings"]


def test_draws_without_a_confirmation_are_refused():
    with pytest.raises(InputError, match="--noise-draws needs a confirmation"):
        plan_of(noise_draws=True, confirm_seeds=0)
