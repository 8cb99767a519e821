"""What a sweep trains: every rate with the settings of the best trial near it, and nothing twice."""

import pandas as pd
import pytest
from trial_rows import trial_row, trials_frame

from nls_tune.errors import InputError
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs.schemas import config_columns
from nls_tune.session.confirming import missing_trials
from nls_tune.session.sweeping import missing_settings, missing_sweep, sweep_configurations

LEVEL = "symmetric:0.4"
#: Rate, learning rate and validation accuracy of the search's trials.
TRIALS = [(-7.0, 0.001, 0.6), (-6.0, 0.002, 0.7), (-5.0, 0.003, 0.65), (0.0, 0.01, 0.8), (0.0, 0.02, 0.75),
          (0.0, 0.03, 0.7), (0.5, 0.04, 0.6), (0.6, 0.005, 0.9), (0.7, 0.006, 0.5)]  # fmt: skip


def plan_of(**settings):
    given = {
        "dataset": "twonorm",
        "noise": (LEVEL,),
        "preset": "cpu",
        "epochs": 6,
        "train_size": 500,
        "confirm_seeds": 2,
        "sweep": 5,
    }
    return make_plan(check_search_settings(**{**given, **settings}), 0, progress=False)


def searched(plan, trials=TRIALS, level=LEVEL) -> pd.DataFrame:
    rows = []
    for minute, (rate, lr, value) in enumerate(trials):
        settings = plan.training_settings(plan.space.default(smooth_rate=rate, lr=lr))
        rows.append(trial_row(noise_level=level, arm=settings.arm, minute=minute, best_val_accuracy=value,
                              **config_columns(settings)))  # fmt: skip
    return trials_frame(rows)


def ended(specs, **columns) -> pd.DataFrame:
    rows = [
        trial_row(
            noise_level=LEVEL, stage=spec.stage, arm=spec.settings.arm, minute=99, **config_columns(spec.settings)
        )
        | {"trial_id": spec.trial_id, "noise_seed": spec.noise_seed}
        for spec in specs
    ]
    return trials_frame(rows).assign(**columns)


def test_every_rate_has_the_settings_of_the_best_trial_near_it_if_none_are_to_be_tried():
    plan = plan_of(sweep_trials=0)
    assert missing_settings(plan, LevelData(plan), searched(plan)) == []
    found = sweep_configurations(plan, searched(plan))[LEVEL]
    assert [config["smooth_rate"] for config in found] == list(plan.sweep_rates)
    assert [config["lr"] for config in found] == [0.002, 0.002, 0.01, 0.005, 0.005]


def test_every_rate_is_tried_with_as_many_settings_and_the_best_is_trained_with_fresh_seeds():
    plan = plan_of(sweep_trials=3)
    data, trials = LevelData(plan), searched(plan)
    ce = plan.training_settings(plan.space.default(smooth_rate=0.0, lr=0.01))
    trials.loc[trials["lr"] == 0.01, "trial_id"] = data.trial(LEVEL, ce).trial_id
    specs = missing_settings(plan, data, trials)
    assert {(spec.stage, spec.settings.seed, spec.noise_seed) for spec in specs} == {("sweep_search", 0, None)}
    rates = [spec.settings.smooth_rate for spec in specs]
    # The settings of the best trial near each rate come first; those of CE are a trial of the search.
    assert rates == [rate for rate in plan.sweep_rates if rate] + 2 * list(plan.sweep_rates)
    assert [spec.settings.lr for spec in specs[:4]] == [0.002, 0.002, 0.005, 0.005]
    assert len({(spec.settings.lr, spec.settings.warmup_epochs) for spec in specs[4:]}) == 2

    found = pd.concat([trials, ended(specs, best_val_accuracy=[*[0.5] * 9, *[0.9, 0.9, 0.7, 0.9, 0.9]])])
    assert missing_settings(plan, data, found) == []
    configs = sweep_configurations(plan, found)[LEVEL]
    best = [0.01 if config["smooth_rate"] == 0 else specs[-1].settings.lr for config in configs]
    assert [config["lr"] for config in configs] == best  # a trial of another rate counts for none


def test_a_rate_that_completed_none_of_its_settings_has_those_of_the_best_trial_near_it():
    plan = plan_of(sweep_trials=2)
    trials = searched(plan)
    specs = missing_settings(plan, LevelData(plan), trials)
    found = pd.concat([trials, ended(specs, status="diverged", best_val_accuracy=[1.0] * len(specs))])
    assert missing_settings(plan, LevelData(plan), found) == []
    assert [config["lr"] for config in sweep_configurations(plan, found)[LEVEL]] == [0.002, 0.002, 0.01, 0.005, 0.005]


def test_trials_that_stopped_and_other_losses_give_no_settings():
    plan = plan_of(sweep_trials=0)
    trials = searched(plan)
    trials.loc[trials["lr"] == 0.005, "status"] = "stopped"
    assert sweep_configurations(plan, trials)[LEVEL][-1]["lr"] == 0.01
    trials.loc[:, "status"] = "diverged"
    assert sweep_configurations(plan, trials)[LEVEL] == []
    assert missing_sweep(plan, LevelData(plan), trials) == []


def test_every_rate_has_every_fresh_seed_and_what_is_there_is_not_trained_again():
    plan = plan_of(noise_draws=True)
    data, trials = LevelData(plan), searched(plan)
    specs = missing_sweep(plan, data, trials)
    assert [spec.settings.seed for spec in specs] == [1] * 5 + [2] * 5
    assert [spec.noise_seed for spec in specs] == [1] * 5 + [2] * 5
    assert {spec.stage for spec in specs} == {"sweep"}
    confirmed = [spec for spec in missing_trials(plan, data, trials) if spec.settings.smooth_rate == 0]
    assert confirmed[0].settings.lr == 0.01  # CE, as in the sweep
    left = missing_sweep(plan, data, pd.concat([trials, ended([confirmed[0], specs[0]])], ignore_index=True))
    gone = {spec.trial_id for spec in specs} - {spec.trial_id for spec in left}
    assert len(left) == len(specs) - 2
    assert {spec.settings.smooth_rate for spec in specs if spec.trial_id in gone} == {0.0, -8.0}


def test_without_a_sweep_nothing_is_missing():
    plan = plan_of(sweep=None)
    assert missing_sweep(plan, LevelData(plan), searched(plan)) == []
    assert missing_settings(plan, LevelData(plan), searched(plan)) == []
    assert (plan.sweep_rates, plan.num_sweep_trials) == ((), 0)
    assert plan_of().num_sweep_trials == 5 * (6 + 2)
    assert plan_of(sweep_trials=0).num_sweep_trials == 10


def test_a_sweep_needs_fresh_seeds_and_rates():
    with pytest.raises(InputError, match="--sweep needs a confirmation"):
        plan_of(confirm_seeds=0)
    with pytest.raises(InputError, match=r"--sweep needs three rates or more, the arms ce, gce"):
        plan_of(methods=("ce", "gce"))


def test_the_time_left_of_each_stage_counts_those_that_follow():
    plan = plan_of(num_trials=6, confirm_on="all")
    confirmed = 2 * 4  # seeds, and the arms with CE at its defaults
    stages = {"search": 6, "confirm": confirmed, "confirm_all": confirmed, "sweep_search": 5 * 6, "sweep": 5 * 2}
    assert plan.trials_of_stages == stages
    assert plan.epochs_after("search") == 6 * (2 * confirmed + 30 + 10)
    assert plan.epochs_after("sweep_search") == 6 * 10
    assert plan.epochs_after("sweep") == 0


def test_where_the_rate_alone_is_searched_there_is_nothing_to_choose():
    fixed = ("lr=0.003", "warmup_epochs=2")
    plan = plan_of(overrides=fixed)
    assert (plan.sweep_settings, plan.num_sweep_trials) == ((), 10)
    assert missing_settings(plan, LevelData(plan), searched(plan_of())) == []
