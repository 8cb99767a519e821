"""The confirmation after a search: fresh seeds, no stopping, resumable, extendable."""

import io
import json

import pandas as pd
import pytest
from rich.console import Console

from nls_tune import run_search
from nls_tune.analysis.analysis import analyze
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs import load_run
from nls_tune.runs.reading import read_epochs, read_trials
from nls_tune.session.confirming import missing_trials

#: Small splits, and no arm of positive rates: each configuration is trained up to six times.
SETTINGS = {
    "noise": "symmetric:0.4,clean", "num_trials": 3, "epochs": 6, "train_size": 400, "val_fraction": 0.1,
    "noise_draws": True, "overrides": ("arms.positive=0",),
}  # fmt: skip

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def run(session, tmp_path_factory):
    out = tmp_path_factory.mktemp("confirm") / "run"
    console = Console(record=True, width=100, quiet=False, file=(out.parent / "screen.txt").open("w"))
    result = run_search("twonorm", **SETTINGS, confirm_seeds=2, out=out, console=console)
    return result, console.export_text()


def test_selected_configurations_and_default_ce_run_with_fresh_seeds(run):
    result, _ = run
    trials = read_trials(result.run)
    search, confirm = trials[trials.stage == "search"], trials[trials.stage == "confirm"]
    assert set(search.seed) == {0}
    assert set(confirm.seed) == {1, 2}
    assert not (confirm.status == "stopped").any()
    assert (confirm.epochs == 6)[confirm.status == "completed"].all()
    for level, rows in confirm.groupby("noise_level"):
        rates = set(rows.smooth_rate)
        selected = {s.config["smooth_rate"] for s in result.levels if s.noise_level == level for s in s.arms.values()}
        assert rates == selected | {0.0}
        assert ((rows.smooth_rate == 0) & (rows.lr == 0.003)).sum() == 2  # CE with the defaults
    assert trials.trial_id.is_unique


def test_the_configurations_share_the_warm_up_of_each_seed(run):
    result, screen = run
    trials = read_trials(result.run)
    for _, rows in trials.groupby(["stage", "noise_level", "seed"]):
        if not set(rows["status"]) <= {"completed", "diverged"}:
            continue  # what was stopped within its warm-up has trained a part of it
        assert (rows["warmup_epochs"] - rows["epochs_reused"]).sum() == rows["warmup_epochs"].max()
    assert trials.loc[trials["stage"] == "confirm", "epochs_reused"].sum() > 0
    assert f"{trials['epochs_reused'].sum()} of them reused warm-ups" in screen
    assert not (result.run / "warmups").exists()


def test_drawn_noise_is_drawn_anew_for_every_seed_and_clean_labels_are_not(run):
    result, screen = run
    confirm = read_trials(result.run).query("stage == 'confirm'")
    at = dict(iter(confirm.groupby("noise_level")))
    assert (at["symmetric:0.4"].noise_seed == at["symmetric:0.4"].seed).all()
    assert (at["clean"].noise_seed == 0).all()
    assert at["symmetric:0.4"].groupby("noise_seed").noise_rate.nunique().eq(1).all()
    assert at["symmetric:0.4"].noise_rate.nunique() > 1
    assert "Note: the labels of clean are not drawn" in screen
    configurations = at["symmetric:0.4"].groupby(["smooth_rate", "warmup_epochs", "lr"])
    assert configurations.noise_seed.nunique().eq(2).all()


def test_confirmation_is_printed_and_stored(run):
    result, screen = run
    assert "Confirmation with 2 fresh seeds" in screen
    assert "best rate to CE" in screen
    assert [c.noise_level for c in result.confirmation] == ["symmetric:0.4", "clean"]
    stored = json.loads((result.run / "run.json").read_text())
    assert [v["noise_level"] for v in stored["verdicts"]] == ["symmetric:0.4", "clean"]
    assert all(v["use"] is None or v["use"]["num_seeds"] == 2 for v in stored["verdicts"])


@pytest.fixture(scope="module")
def continued(run):
    """The rows of the finished run, and what one more call with another seed and all labels leaves."""
    result, _ = run
    before = read_trials(result.run).set_index("trial_id")
    console = Console(record=True, width=120, file=io.StringIO())
    more = {"confirm_seeds": 3, "confirm_on": "all", "sweep": 3, "sweep_trials": 2}
    again = run_search("twonorm", **SETTINGS, **more, out=result.run, console=console)
    return before, again, read_trials(result.run).set_index("trial_id"), console.export_text()


def test_more_seeds_are_added_and_nothing_runs_twice(continued):
    before, _, after, _ = continued
    confirm = after[after.stage == "confirm"]
    assert set(confirm.seed) == {1, 2, 3}
    assert (confirm.groupby("seed").size() == confirm.groupby("seed").size().iloc[0]).all()
    pd.testing.assert_frame_equal(after.loc[before.index], before, check_dtype=False)


def test_a_finished_run_goes_on_with_a_sweep_over_rates(continued):
    _, again, trials, screen = continued
    assert screen.index("Settings for each rate of the sweep") < screen.index("Sweep over rates with 3 fresh seeds")
    tried = trials[trials.stage == "sweep_search"]
    assert set(tried.seed) == {0}
    assert all(2 <= len(rows) <= 6 for _, rows in tried.groupby("noise_level"))
    assert {(-8.0, 2), (-2.0, 2)} <= {
        (rate, len(rows)) for _, level in tried.groupby("noise_level") for rate, rows in level.groupby("smooth_rate")
    }
    fresh = trials[trials.stage.isin(["sweep", "confirm"])]
    for level, rows in fresh.groupby("noise_level"):
        seeds = rows.groupby("smooth_rate").seed.agg(set)
        assert {-8.0, -2.0, 0.0} <= set(seeds.index), level
        assert all(found == {1, 2, 3} for found in seeds)
    swept = trials[trials.stage == "sweep"]
    assert len(swept) <= 2 * 3 * 3
    assert not (swept.status == "stopped").any()
    drawn = swept[swept.noise_level == "symmetric:0.4"]
    assert (drawn.noise_seed == drawn.seed).all()
    (sweep, *_) = analyze([load_run(again.run)]).runs[0].rate_sweeps
    assert sweep.rates[-1].smooth_rate == 0


def test_a_finished_run_goes_on_with_all_labels(continued):
    before, again, trials, screen = continued
    assert again.status == "finished"
    rows, split = trials[trials.stage == "confirm_all"], trials[trials.stage == "confirm"]
    # Rates, warm-ups and learning rates tell the configurations apart.
    key = ["noise_level", "smooth_rate", "warmup_epochs", "lr"]
    kept = split.groupby(key).filter(lambda group: (group.status == "completed").any())
    assert len(rows) == len(kept) > 0
    medians = kept.groupby(key).best_epoch.median().apply(lambda epoch: int(epoch + 0.5))
    assert (rows.status == "completed").all()
    assert (rows.groupby(key).epochs.nunique() == 1).all()
    pd.testing.assert_series_equal(rows.groupby(key).epochs.first(), medians, check_names=False, check_dtype=False)
    assert set(zip(rows.noise_level, rows.seed, rows.noise_seed, strict=True)) == {
        *(("symmetric:0.4", seed, seed) for seed in (1, 2, 3)),
        *(("clean", seed, 0) for seed in (1, 2, 3)),
    }
    assert rows.best_val_accuracy.isna().all()
    assert rows.last_test_accuracy.between(0.5, 1).all()
    epochs = read_epochs(again.run)
    assert epochs[epochs.trial_id.isin(rows.index)].val_accuracy.isna().all()
    assert epochs[epochs.trial_id.isin(before.index)].val_accuracy.notna().all()
    assert all(c.on_all_labels.test.num_seeds == 3 for level in again.confirmation for c in level.configurations)
    assert "Confirmation on all labels" in screen
    assert not list((again.run / "checkpoints").iterdir())
    assert not (again.run / "warmups").exists()


def test_a_cut_confirmation_lists_what_is_missing(run):
    result, _ = run
    settings = {**SETTINGS, "noise": tuple(SETTINGS["noise"].split(","))}
    plan = make_plan(check_search_settings(dataset="twonorm", **settings, confirm_seeds=2), 0)
    trials = read_trials(result.run)
    data = LevelData(plan)
    assert missing_trials(plan, data, trials) == []
    confirm = trials[(trials.stage == "confirm") & (trials.seed <= 2)]
    lost, cut = confirm.trial_id.iloc[0], confirm.trial_id.iloc[1]
    trials = trials[trials.trial_id != lost]
    trials.loc[trials.trial_id == cut, "status"] = "interrupted"
    assert {spec.trial_id for spec in missing_trials(plan, data, trials)} == {lost, cut}
