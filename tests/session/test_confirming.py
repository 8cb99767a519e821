"""What the confirmation trains, and on which labels, without starting Ray."""

import numpy as np
import pandas as pd
import pytest
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.confirmation import stop_epoch
from nls_tune.errors import InputError
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import SearchPlan, make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs.schemas import config_columns
from nls_tune.runs.trial_spec import DataName
from nls_tune.session.confirming import missing_on_all_labels, missing_trials

LEVELS = ("symmetric:0.4", "clean")


def plan_of(**settings) -> SearchPlan:
    given = {
        "dataset": "twonorm",
        "noise": LEVELS,
        "preset": "cpu",
        "epochs": 6,
        "train_size": 500,
        "confirm_seeds": 2,
        **settings,
    }
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
    missing = missing_trials(drawn, LevelData(drawn), searched(drawn))
    assert len({spec.trial_id for spec in missing}) == len(missing) == 2 * 2 * 3
    for spec in missing:
        drawn_anew = None if spec.noise_level == "clean" else {6: 21, 7: 22}[spec.settings.seed]
        assert spec.data == (spec.noise_level, drawn_anew, False)


def test_a_draw_has_other_wrong_labels_of_the_same_samples(drawn):
    data = LevelData(drawn)
    search, first = data.load(DataName("symmetric:0.4")), data.load(DataName("symmetric:0.4", 21))
    assert (search.noise_seed, first.noise_seed) == (20, 21)
    assert np.shares_memory(search.inputs, first.inputs)
    assert (search.num_train, search.num_val) == (first.num_train, first.num_val)
    assert 0.4 < (search.noisy_labels != first.noisy_labels).mean() < 0.56  # 2 * 0.4 * 0.6 differ
    assert search is drawn.level_plan("symmetric:0.4").dataset
    assert data.load(DataName("symmetric:0.4", 21)) is first
    assert data.load(DataName("symmetric:0.4", 20)) is search


def test_without_draws_the_data_are_those_of_the_search_and_trials_have_other_names(drawn):
    plan = plan_of(seed=5, noise_seed=20)
    undrawn = missing_trials(plan, LevelData(plan), searched(plan))
    assert {spec.data for spec in undrawn} == {(level, None, False) for level in LEVELS}
    with_draws = missing_trials(drawn, LevelData(drawn), searched(drawn))
    for level in LEVELS:
        names, others = ({s.trial_id for s in part if s.noise_level == level} for part in (undrawn, with_draws))
        assert (names == others) if level == "clean" else not names & others
    assert plan.notes == ()
    assert drawn.notes == ("the labels of clean are not drawn: the confirmation keeps them for all seeds",)
    assert drawn.identity().settings["noise_draws"] is True
    assert "noise_draws" not in plan.identity().settings


@pytest.mark.parametrize(("best", "end"), [([7], 7), ([9, 1, 4], 4), ([4, 5], 5), ([3, 5], 4), ([1, 2, 3, 40], 3)])
def test_the_median_best_epoch_is_rounded_half_up(best, end):
    assert stop_epoch(best) == end


def confirmed(plan: SearchPlan, ends: dict[tuple[str, float, float], list[tuple[str, int | None]]]) -> pd.DataFrame:
    """A search and its confirmation on the split; by level, rate and learning rate: status and best epoch by seed."""
    trials = searched(plan)
    rows = []
    for spec in missing_trials(plan, LevelData(plan), trials):
        settings, level, seed = spec.settings, spec.noise_level, spec.noise_seed or 0
        status, best = ends[level, settings.smooth_rate, settings.lr][settings.seed - plan.settings.seed - 1]
        row = trial_row(noise_level=level, stage="confirm", arm=settings.arm, minute=99, **config_columns(settings))
        rows.append({**row, "trial_id": spec.trial_id, "noise_seed": seed, "status": status, "best_epoch": best})
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
    data = LevelData(plan)
    assert missing_trials(plan, data, trials) == []
    found = missing_on_all_labels(plan, data, trials)
    ends = {(s.noise_level, s.settings.smooth_rate, s.settings.lr, s.settings.seed): s.stop_at for s in found}
    assert {s.readout for s in found} == {"plain"}
    expected = {("symmetric:0.4", r, lr): 6 for r, lr in ((0.0, 0.02), (-1.0, 0.02), (0.0, 0.003))}
    expected |= {("clean", 0.0, 0.02): 4, ("clean", 0.0, 0.003): 1}
    assert ends == {(*key, seed): end for key, end in expected.items() for seed in (6, 7)}
    assert {s.settings.epochs for s in found} == {6}  # the schedule is that of the split
    assert {s.stage for s in found} == {"confirm_all"}
    assert {s.data for s in found} == {("clean", None, True), ("symmetric:0.4", 21, True), ("symmetric:0.4", 22, True)}
    assert not {s.trial_id for s in found} & set(trials["trial_id"])


def test_on_all_labels_it_is_tested_with_the_weights_that_most_seeds_were_best_with():
    plan = plan_of(confirm_on="all", confirm_seeds=3)
    trials = confirmed(plan, {key: [("completed", 5)] * 3 for key in ENDS})
    fresh = trials["stage"] == "confirm"
    is_ce = trials["smooth_rate"] == 0
    trials.loc[fresh, "readout"] = "average:0.2"
    trials.loc[fresh & is_ce & (trials["seed"] > plan.confirm_seeds()[0]), "readout"] = "plain"
    found = missing_on_all_labels(plan, LevelData(plan), trials)
    assert {(s.settings.smooth_rate, s.readout) for s in found} == {(0.0, "plain"), (-1.0, "average:0.2")}


def test_only_what_has_no_row_on_all_labels_is_missing():
    plan = plan_of(confirm_on="all")
    trials = confirmed(plan, ENDS)
    data = LevelData(plan)
    first, second, *rest = [s.trial_id for s in missing_on_all_labels(plan, data, trials)]
    rows = [
        {**trial_row(stage="confirm_all", status=status), "trial_id": name}
        for name, status in ((first, "diverged"), (second, "interrupted"))
    ]
    left = missing_on_all_labels(plan, data, pd.concat([trials, trials_frame(rows)], ignore_index=True))
    assert [s.trial_id for s in left] == [second, *rest]
    assert missing_on_all_labels(plan_of(), data, trials) == []


def test_a_finished_run_may_go_on_with_all_labels():
    assert plan_of(confirm_on="all").identity() == plan_of().identity()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"confirm_on": "all"}, "--confirm-on all needs a confirmation, and --confirm-seeds is 0; raise it"),
        ({"noise_draws": True}, "--noise-draws needs a confirmation"),
    ],
)
def test_what_needs_a_confirmation_is_refused_without_one(settings, message):
    with pytest.raises(InputError, match=message):
        plan_of(**settings, confirm_seeds=0)


def test_the_data_of_a_draw_on_all_labels(drawn):
    data = LevelData(drawn)
    split, both = (data.load(DataName("symmetric:0.4", 21, flag)) for flag in (False, True))
    assert set(both.train_indices) == {*split.train_indices, *split.val_indices}
    assert (both.num_train, both.noise_seed) == (500 + 4000, 21)
    assert both.noisy_labels is split.noisy_labels
    assert data.load(DataName("symmetric:0.4", 21, True)) is both
    searched_on_all = data.load(DataName("symmetric:0.4", all_labels=True))
    assert searched_on_all.fingerprint not in (both.fingerprint, split.fingerprint)
