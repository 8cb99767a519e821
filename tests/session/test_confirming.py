"""What the confirmation trains, and on which labels, without starting Ray."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from trial_rows import trial_row, trials_frame

from nls_tune.errors import InputError
from nls_tune.plan.plan import SearchPlan, make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs.schemas import config_columns
from nls_tune.session.confirming import missing_on_all_labels, missing_trials, stop_epoch
from nls_tune.spaces.settings import TrainingSettings

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


@pytest.mark.parametrize(("best", "end"), [([7], 7), ([9, 1, 4], 4), ([4, 5], 5), ([3, 5], 4), ([1, 2, 3, 40], 3)])
def test_the_median_best_epoch_is_rounded_half_up(best, end):
    assert stop_epoch(best) == end


def confirmed(plan: SearchPlan, ends: dict[tuple[str, float, float], list[tuple[str, int | None]]]) -> pd.DataFrame:
    """A search and its confirmation on the split; by level, rate and learning rate: status and best epoch by seed."""
    trials = searched(plan)
    rows = []
    for config in missing_trials(plan, trials):
        settings = TrainingSettings(**config["settings"])
        level, seed = config["noise_level"], config["noise_seed"] or 0
        status, best = ends[level, settings.smooth_rate, settings.lr][settings.seed - plan.settings.seed - 1]
        row = trial_row(noise_level=level, stage="confirm", arm=settings.arm, minute=99, **config_columns(settings))
        rows.append({**row, "trial_id": config["trial_id"], "noise_seed": seed, "status": status, "best_epoch": best})
    return pd.concat([trials, trials_frame(rows)], ignore_index=True)


ENDS = {
    (level, rate, lr): [("completed", 5), ("completed", 6)]
    for level in LEVELS
    for rate, lr in ((0.0, 0.02), (-1.0, 0.02), (0.0, 0.003))
} | {
    ("clean", 0.0, 0.02): [("completed", 2), ("diverged", 5)],  # 3.5, and the diverged one counts
    ("clean", -1.0, 0.02): [("diverged", 3), ("failed", None)],  # none completed
    ("clean", 0.0, 0.003): [("completed", 1), ("failed", 6)],  # what failed does not count, and its seed is trained
}


def test_on_all_labels_each_configuration_ends_after_its_median_best_epoch():
    plan = plan_of(noise_draws=True, seed=5, noise_seed=20, confirm_on="all")
    trials = confirmed(plan, ENDS)
    assert missing_trials(plan, trials) == []
    found = missing_on_all_labels(plan, trials)
    ends = {
        (c["noise_level"], c["settings"]["smooth_rate"], c["settings"]["lr"], c["settings"]["seed"]): c["stop_at"]
        for c in found
    }
    expected = {("symmetric:0.4", r, lr): 6 for r, lr in ((0.0, 0.02), (-1.0, 0.02), (0.0, 0.003))}
    expected |= {("clean", 0.0, 0.02): 4, ("clean", 0.0, 0.003): 1}
    assert ends == {(*key, seed): end for key, end in expected.items() for seed in (6, 7)}
    assert {c["settings"]["epochs"] for c in found} == {6}  # the schedule is that of the split
    assert {c["stage"] for c in found} == {"confirm_all"}
    assert {c["data"] for c in found} == {
        "clean all",
        "symmetric:0.4 noise_seed=21 all",
        "symmetric:0.4 noise_seed=22 all",
    }
    assert not {c["trial_id"] for c in found} & set(trials["trial_id"])


def test_only_what_has_no_row_on_all_labels_is_missing():
    plan = plan_of(confirm_on="all")
    trials = confirmed(plan, ENDS)
    first, second, *rest = [c["trial_id"] for c in missing_on_all_labels(plan, trials)]
    rows = [
        {**trial_row(stage="confirm_all", status=status), "trial_id": name}
        for name, status in ((first, "diverged"), (second, "interrupted"))
    ]
    left = missing_on_all_labels(plan, pd.concat([trials, trials_frame(rows)], ignore_index=True))
    assert [c["trial_id"] for c in left] == [second, *rest]
    assert missing_on_all_labels(plan_of(), trials) == []


def test_a_finished_run_may_go_on_with_all_labels():
    assert plan_of(confirm_on="all").identity() == plan_of().identity()
    with pytest.raises(InputError, match="--confirm-on all needs a confirmation, and --confirm-seeds is 0; raise it"):
        plan_of(confirm_on="all", confirm_seeds=0)


def test_the_data_of_a_draw_on_all_labels(drawn):
    split, both = (drawn.dataset("symmetric:0.4", 21, all_labels=flag) for flag in (False, True))
    assert set(both.train_indices) == {*split.train_indices, *split.val_indices}
    assert (both.num_train, both.noise_seed) == (500 + 4000, 21)
    assert both.noisy_labels is split.noisy_labels
    assert drawn.dataset("symmetric:0.4", 21, all_labels=True) is both
    assert drawn.dataset("symmetric:0.4", all_labels=True).fingerprint not in (both.fingerprint, split.fingerprint)
