"""Searches that are killed again and again, with each kind of sampler. Minutes long: ``pytest -m soak``."""

import random
import shutil

import pandas as pd
import pytest
from commands import SEARCH, run_search, started, wait_until

from nls_tune import read_epochs, read_trials
from nls_tune.allocation.allocator import Allocator
from nls_tune.plan.level import GroupKey
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs.directory import RunDirectory
from nls_tune.session.searching import adopt_results, make_progress

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
KILLS = 3
GRID = """
space:
  smooth_rate: {type: choice, values: [0.2, 0.0, -0.5, -2.0], default: 0.0}
  warmup_epochs: {type: choice, values: [2, 6], default: 2}
  lr: {type: choice, values: [0.001, 0.01], default: 0.001}
fixed: {model: mlp, warmup_lr: 0.01, batch_size: 100}
budget: {trials: 16, epochs: 100, grace_epochs: 10}
"""
SETTINGS = {
    "dataset": "twonorm",
    "noise": ("symmetric:0.2", "symmetric:0.4"),
    "train_size": 1000,
    "preset": "cpu",
    "confirm_seeds": 0,
}


def arguments_of(sampler: str, folder) -> tuple[list[str], dict]:
    settings = {**SETTINGS, "sampler": sampler}
    if sampler == "grid":
        (folder / "grid.yaml").write_text(GRID)
        settings["space"] = str(folder / "grid.yaml")
    else:
        settings |= {"epochs": 100, "num_trials": 8}
    arguments = ["--out", "run"]
    for name, value in settings.items():
        arguments += [f"--{name.replace('_', '-')}", ",".join(value) if isinstance(value, tuple) else str(value)]
    return arguments, settings


def rebuilt(settings: dict, path) -> dict[GroupKey, list]:
    """The studies and rungs that a session would begin with."""
    plan = make_plan(check_search_settings(**settings, out=path), 0, progress=False)
    allocator = Allocator(plan.groups(), plan.rungs(), seed=0, sampler=plan.settings.sampler)
    adopt_results(plan, LevelData(plan), RunDirectory(path), allocator, make_progress(plan, 2))
    found = {}
    for group in plan.groups():
        state = allocator._groups[group.key]
        trials = [(t.state.name, t.value, sorted(t.params.items())) for t in state.study.trials]
        found[group.key] = [*trials, sorted((level, sorted(values)) for level, values in state.rungs._values.items())]
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_no_trial_is_lost_or_run_twice(tmp_path, sampler):
    arguments, settings = arguments_of(sampler, tmp_path)
    path, rng = tmp_path / "run", random.Random(sampler)
    seen: dict[str, pd.Series] = {}
    for _ in range(KILLS):
        before = len(seen)
        with started(*SEARCH, *arguments, folder=tmp_path) as program:
            goal = before + rng.randint(1, 3)
            wait_until(
                lambda goal=goal: len(list(path.glob("trials/[!e]*.parquet"))) >= goal, f"{goal} trials ended", 200
            )
            program.kill()
        for row in read_trials(path).to_dict("records"):
            earlier = seen.setdefault(row["trial_id"], row)
            assert earlier["finished_at"] == row["finished_at"], "a finished trial was run again"
    at_rest = rebuilt(settings, path)
    assert rebuilt(settings, path) == at_rest

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(path, elsewhere / "run")
    for folder in (tmp_path, elsewhere):
        done = run_search(*arguments, folder=folder, seconds=400)
        assert (done.code, done.err) == (0, "")
        trials = read_trials(folder / "run").set_index("trial_id")
        assert len(trials) == (32 if sampler == "grid" else 16)
        assert set(trials["status"]) <= {"completed", "stopped", "diverged"}
        for name, row in seen.items():
            assert trials.loc[name, "finished_at"] == row["finished_at"]
            assert trials.loc[name, "best_val_accuracy"] == row["best_val_accuracy"] or row["best_epoch"] is None
        lengths = read_epochs(folder / "run").groupby("trial_id").size()
        assert (lengths.reindex(trials.index) == trials["epochs"]).all()
        # The studies hold what the rows say: every trial once, with its outcome.
        for (level, arm), content in rebuilt(settings, folder / "run").items():
            mine = trials[(trials["noise_level"] == level) & (trials["arm"] == arm)]
            states = pd.Series([trial[0] for trial in content[:-1]]).value_counts().to_dict()
            expected = mine["status"].map({"completed": "COMPLETE", "stopped": "PRUNED", "diverged": "COMPLETE"})
            assert states == expected.value_counts().to_dict()
