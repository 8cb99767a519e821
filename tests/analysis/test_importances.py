from __future__ import annotations

import math
import warnings

import numpy as np
import optuna
import pandas as pd
import pytest
from trial_rows import trial_row, trials_frame

from nls_tune.analysis import importances as module
from nls_tune.analysis.importances import MIN_TRIALS, importances


def table(num, *, level="symmetric:0.4", seed=0, **columns):
    """Completed trials whose accuracy depends strongly on the learning rate, weakly on the rate, not on the warm-up."""
    rng = np.random.default_rng(seed)
    frame = pd.concat([trials_frame([trial_row(noise_level=level)])] * num, ignore_index=True)
    frame["smooth_rate"] = 1 - np.exp(rng.uniform(-1, 2, num))
    frame["lr"] = 10 ** rng.uniform(-5, -1, num)
    frame["warmup_epochs"] = rng.integers(0, 6, num)
    log_lr = np.log10(frame["lr"])
    frame["best_val_accuracy"] = 0.9 - 0.05 * (log_lr + 2) ** 2 + 0.02 * np.log(1 - frame["smooth_rate"])
    return frame.assign(**columns)


def by_hand(frame, evaluator):
    """The importances of a study that is made step by step, with ask and tell."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logs = np.log(1 - frame["smooth_rate"])
    distributions = {
        "smooth_rate": optuna.distributions.FloatDistribution(logs.min(), logs.max()),
        "warmup_epochs": optuna.distributions.IntDistribution(0, int(frame["warmup_epochs"].max())),
        "lr": optuna.distributions.FloatDistribution(frame["lr"].min(), frame["lr"].max(), log=True),
    }
    study = optuna.create_study(direction="maximize")
    for row in frame.to_dict("records"):
        study.enqueue_trial(
            {**{name: row[name] for name in distributions}, "smooth_rate": math.log(1 - row["smooth_rate"])}
        )
        study.tell(study.ask(distributions), row["best_val_accuracy"])
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def test_they_are_optunas_of_a_study_made_by_hand():
    frame = table(60)
    (found,) = importances(frame)
    assert (found.noise_level, found.num_trials, found.reason) == ("symmetric:0.4", 60, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ped = by_hand(frame, optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.1))
        forest = optuna.importance.FanovaImportanceEvaluator(n_trees=24, max_depth=5, seed=0)
        fanova = by_hand(frame, forest)
    assert {one.setting: one.ped_anova for one in found.importances} == pytest.approx(ped)
    assert {one.setting: one.fanova for one in found.importances} == pytest.approx(fanova)
    assert [one.setting for one in found.importances] == sorted(ped, key=ped.get, reverse=True)
    assert found.importances[0].setting == "lr"
    for shares in (ped, fanova):
        assert sum(shares.values()) == pytest.approx(1)


def test_other_settings_count_where_they_differ_whatever_their_type():
    optimizer = np.where(np.arange(40) % 2, "sgd", "adamw")
    frame = table(40, config_optimizer=optimizer, config_batch_size=np.arange(40) % 3 + 1)
    frame["best_val_accuracy"] += np.where(optimizer == "sgd", 0.5, 0.0)
    (found,) = importances(frame)
    settings = {one.setting: one for one in found.importances}
    assert set(settings) == {"smooth_rate", "warmup_epochs", "lr", "optimizer", "batch_size"}
    assert settings["optimizer"].fanova == max(one.fanova for one in found.importances) > 0.5


@pytest.mark.parametrize(
    ("frame", "num", "reason"),
    [
        (table(MIN_TRIALS - 1), 9, "9 completed trials; importances need at least 10"),
        (table(20, status="stopped"), 0, "0 completed trials; importances need at least 10"),
        (table(20, best_val_accuracy=math.nan), 0, "0 completed trials; importances need at least 10"),
        (table(20, lr=0.01, warmup_epochs=2), 20, "only smooth_rate differs between the trials"),
        (table(20, lr=0.01, warmup_epochs=2, smooth_rate=0.0), 20, "no setting differs between the trials"),
        (table(20, best_val_accuracy=0.5), 20, "all trials have the same validation accuracy"),
    ],
)
def test_why_there_are_none(frame, num, reason):
    (found,) = importances(frame)
    assert (found.num_trials, found.importances) == (num, ())
    assert found.reason.startswith(reason)


def test_a_rate_of_1_and_collapsed_trials_are_no_trouble_and_confirmation_trials_take_no_part():
    frame = table(30)
    frame.loc[0, "smooth_rate"] = 1.0
    frame.loc[1, "best_val_accuracy"] = 0.0
    (found,) = importances(frame)
    assert found.reason is None
    assert all(math.isfinite(one.ped_anova) and math.isfinite(one.fanova) for one in found.importances)
    assert importances(table(30, stage="confirm")) == ()


def test_of_many_trials_a_sample_is_taken_always_the_same(monkeypatch, capfd, recwarn):
    monkeypatch.setattr(module, "MAX_TRIALS", 80)
    monkeypatch.setattr(module, "LEAST_TRIALS_PER_LEVEL", 30)
    frame = pd.concat([table(200, level=level, seed=i) for i, level in enumerate(("b", "a"))], ignore_index=True)
    found = importances(frame, ["a", "nowhere", "b"])
    assert [(one.noise_level, one.num_trials) for one in found] == [("a", 40), ("b", 40)]
    assert importances(frame, ["a", "b"]) == found
    assert capfd.readouterr() == ("", "")
    assert not [w for w in recwarn if "optuna" in str(w.filename)]
