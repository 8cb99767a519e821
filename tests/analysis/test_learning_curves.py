from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_runs import write_fake_run
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.learning_curves import MAX_OTHERS, learning_curves
from nls_tune.analysis.selection import select
from nls_tune.metrics import best_epoch
from nls_tune.runs import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load_run(write_fake_run(tmp_path_factory.mktemp("lc") / "run", trials=40, confirm_seeds=2))


def curves_of(run, **options):
    return learning_curves(run.trials, run.epochs, run.levels, defaults=run.content.defaults, **options)


def test_a_curve_is_the_epochs_of_its_trial(run):
    for level in curves_of(run):
        for curve in level.curves:
            rows = run.epochs[run.epochs["trial_id"] == curve.trial_id].sort_values("epoch")
            row = run.trials.set_index("trial_id").loc[curve.trial_id]
            assert row["stage"] == "search"
            assert row["noise_level"] == level.noise_level
            for name in ("arm", "smooth_rate", "warmup_epochs", "lr", "status", "best_epoch"):
                assert getattr(curve, name) == row[name]
            assert curve.epochs == tuple(range(1, row["epochs"] + 1))
            for name in ("train_accuracy", "val_accuracy", "test_accuracy"):
                assert getattr(curve, name) == tuple(rows[name])


def test_roles_selected_by_arm_then_default_ce_then_the_best_of_the_others(run):
    search = run.trials[run.trials["stage"] == "search"]
    for level in curves_of(run):
        rows = search[search["noise_level"] == level.noise_level]
        selected = [select(rows[rows["arm"] == arm])["trial_id"] for arm in ("ce", "positive", "negative")]
        default = rows.query("arm == 'ce' and lr == 0.003 and warmup_epochs == 2")["trial_id"].tolist()
        left = rows[~rows["trial_id"].isin([*selected, *default])].sort_values("best_val_accuracy", ascending=False)
        shown = {
            role: [c.trial_id for c in level.curves if c.role == role] for role in ("selected", "default_ce", "other")
        }
        assert [c.trial_id for c in level.curves] == [*shown["selected"], *shown["default_ce"], *shown["other"]]
        assert shown["selected"] == selected
        assert shown["default_ce"] == [name for name in default if name not in selected]
        accuracies = rows.set_index("trial_id")["best_val_accuracy"]
        assert accuracies[shown["other"]].tolist() == left["best_val_accuracy"][:MAX_OTHERS].tolist()
        assert level.num_trials == len(rows)
    few = curves_of(run, max_others=0)
    assert all(curve.role != "other" for level in few for curve in level.curves)
    assert [level.num_trials for level in few] == [40, 40]
    without_defaults = learning_curves(run.trials, run.epochs, run.levels)
    assert {curve.role for level in without_defaults for curve in level.curves} == {"selected", "other"}


def test_the_default_ce_has_all_defaults_lists_and_choices_among_them():
    rows = [trial_row({"lr": lr, "warmup_epochs": w, "smooth_rate": 0.0}, best_val_accuracy=a)
            for lr, w, a in ((0.1, 2, 0.9), (0.2, 2, 0.5), (0.2, 3, 0.5))]  # fmt: skip
    trials = trials_frame(rows)
    epochs = epochs_of(trials)
    defaults = {"smooth_rate": -1.0, "lr": 0.2, "warmup_epochs": 2, "milestones": [], "model": "mlp", "unheard_of": 1}
    roles = {c.trial_id: c.role for c in learning_curves(trials, epochs, defaults=defaults)[0].curves}
    assert [roles[row["trial_id"]] for row in rows] == ["selected", "default_ce", "other"]
    for other in ({"milestones": [3]}, {"model": "cnn9"}):
        (level,) = learning_curves(trials, epochs, defaults={**defaults, **other})
        assert {curve.role for curve in level.curves} == {"selected", "other"}


def epochs_of(trials: pd.DataFrame, length: int = 3) -> pd.DataFrame:
    """Some epochs of each trial, backwards."""
    rows = [
        {**{name: row[name] for name in ("trial_id", "noise_level", "arm", "smooth_rate", "lr")}, "epoch": epoch,
         "phase": "warmup" if epoch <= row["warmup_epochs"] else "gls", "diverged": False, "train_accuracy": 0.5,
         "val_accuracy": [0.5, 0.4, 0.6][epoch - 1], "test_accuracy": None}
        for row in trials.to_dict("records") for epoch in range(length, 0, -1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_trial_without_a_row_runs_and_its_epochs_say_what_it_is(tmp_path):
    run = load_run(write_fake_run(tmp_path / "run", trials=12, unfinished=4, status="running"))
    levels = learning_curves(run.trials, run.epochs, run.levels, max_others=100)
    running = [curve for level in levels for curve in level.curves if curve.status is None]
    assert [level.num_trials for level in levels] == [16, 16]
    assert len(running) == 8
    for curve in running:
        rows = run.epochs[run.epochs["trial_id"] == curve.trial_id]
        warmup = rows[rows["phase"] == "warmup"]
        assert (curve.arm, curve.smooth_rate, curve.role) == (rows["arm"].iloc[0], rows["smooth_rate"].iloc[0], "other")
        assert curve.warmup_epochs == len(warmup)
        assert curve.lr == rows.loc[rows["phase"] == "gls", "lr"].iloc[0]
        healthy = rows.loc[~rows["diverged"], "val_accuracy"].tolist()
        expected = best_epoch(healthy, 1 if curve.arm == "ce" else len(warmup) + 1)
        assert curve.best_epoch == expected.epoch
    # Nothing is selected before the first trial has ended.
    levels = learning_curves(run.trials.iloc[:0], run.epochs, run.levels)
    assert [level.num_trials for level in levels] == [16, 16]
    assert {(curve.role, curve.status) for level in levels for curve in level.curves} == {("other", None)}


def test_a_trial_in_its_warmup_has_no_epoch_that_counts():
    trials = trials_frame([trial_row({"smooth_rate": -1.0, "warmup_epochs": 5})])
    (level,) = learning_curves(trials.iloc[:0], epochs_of(trials))
    (curve,) = level.curves
    assert (curve.best_epoch, curve.warmup_epochs, curve.epochs) == (None, 3, (1, 2, 3))
    assert (curve.val_accuracy, curve.test_accuracy) == ((0.5, 0.4, 0.6), (None,) * 3)


def test_what_runs_beside_a_confirmation_is_not_taken_for_the_search(run):
    (unknown,) = run.trials.query("stage == 'search'")["trial_id"].iloc[:1]
    for trials in (run.trials, run.trials[run.trials["trial_id"] != unknown]):
        levels = learning_curves(trials, run.epochs, run.levels, max_others=100)
        shown = {curve.trial_id for level in levels for curve in level.curves}
        assert shown == set(trials.loc[trials["stage"] == "search", "trial_id"])


def test_runs_without_epochs_or_without_a_good_trial(tmp_path, run):
    assert learning_curves(run.trials, run.epochs.iloc[:0], run.levels) == ()
    assert learning_curves(trials_frame([]), run.epochs.iloc[:0]) == ()
    bad = load_run(write_fake_run(tmp_path / "run", all_diverged=True, num_test=0))
    levels = curves_of(bad)
    assert [len(level.curves) for level in levels] == [
        MAX_OTHERS + sum(c.role == "default_ce" for c in level.curves) for level in levels
    ]
    for curve in (curve for level in levels for curve in level.curves):
        assert (curve.status, curve.best_epoch) == ("diverged", None)
        assert set(curve.test_accuracy) == {None}
        assert np.isfinite(curve.val_accuracy).all()
