"""Trials that fail, diverge or lose their worker are rows; the search goes on."""

from __future__ import annotations

import os
import signal

import pytest
from commands import SEARCH, command_of, descendants, run_search, started, wait_until

from nls_tune import read_epochs, read_trials
from nls_tune.plan import make_plan
from nls_tune.search_settings import check_search_settings

pytestmark = pytest.mark.timeout(180)
LEVEL = "symmetric:0.4"
COMMON = ("--noise", LEVEL, "--train-size", "500", "--preset", "cpu", "--confirm-seeds", "0", "--out", "run")


def sabotage(folder, smooth_rate: float, epochs: int) -> str:
    """Put a file where a trial's folder must be made, so that this trial fails; return its name."""
    settings = check_search_settings(noise=(LEVEL,), train_size=500, preset="cpu", epochs=epochs, confirm_seeds=0)
    plan = make_plan(settings, 0, progress=False)
    trial_id = plan.trial_id(LEVEL, plan.training_settings(plan.space.default(smooth_rate=smooth_rate)), "search")
    place = folder / "run" / "checkpoints" / trial_id
    place.parent.mkdir(parents=True)
    place.write_text("not a folder")
    return trial_id


def test_a_trial_that_fails_is_a_row_and_the_others_go_on(tmp_path):
    failing = sabotage(tmp_path, 0.1, epochs=6)
    done = run_search(*COMMON, "--epochs", "6", "--num-trials", "4", folder=tmp_path, seconds=120)
    assert (done.code, done.err) == (0, "")
    rows = read_trials(tmp_path / "run").set_index("trial_id")
    assert len(rows) == 4
    assert rows.loc[failing, "status"] == "failed"
    assert "FileExistsError" in rows.loc[failing, "error"]
    assert "\n" not in rows.loc[failing, "error"]
    others = rows.drop(index=failing)
    assert set(others["status"]) <= {"completed", "stopped"}
    assert others["error"].isna().all()
    (line,) = [line for line in done.out.splitlines() if ": failed" in line]
    assert "r=0.1" in line
    assert "FileExistsError" in line
    assert "Traceback" not in done.out
    assert "1 trial failed" in done.out
    assert f"\n{LEVEL}: use " in done.out


def test_when_every_trial_fails_the_run_has_failed(tmp_path):
    sabotage(tmp_path, 0.0, epochs=6)
    done = run_search(*COMMON, "--epochs", "6", "--num-trials", "1", folder=tmp_path, seconds=120)
    assert done.code == 1
    assert done.err.startswith("error: every trial failed")
    assert done.err.count("\n") == 1
    assert "FileExistsError" in done.err
    assert "Traceback" not in done.out + done.err


def test_when_every_trial_diverges_that_is_said_and_is_no_error(tmp_path):
    arguments = ("--epochs", "4", "--num-trials", "4", "--set", "lr=1e30", "--set", "warmup_lr=1e30")
    done = run_search(*COMMON, *arguments, folder=tmp_path, seconds=120)
    assert (done.code, done.err) == (0, "")
    rows = read_trials(tmp_path / "run")
    assert rows["status"].tolist() == ["diverged"] * 4
    assert rows["best_epoch"].isna().all()
    assert rows["error"].isna().all()
    assert read_epochs(tmp_path / "run")["diverged"].any()
    assert f"{LEVEL}: no trial was completed (4 diverged), so nothing can be recommended." in done.out
    assert "nan" not in done.out.lower()


def test_a_trial_whose_worker_is_killed_goes_on(tmp_path):
    arguments = ("--epochs", "120", "--num-trials", "4", "--scheduler", "none")
    epochs = tmp_path / "run" / "epochs"
    with started(*SEARCH, *COMMON, *arguments, folder=tmp_path) as program:
        wait_until(lambda: len(list(epochs.glob("[!e]*.parquet"))) >= 1, "a trial is running")
        workers = [pid for pid in descendants(program.process.pid) if "ray::" in command_of(pid)]
        workers = [pid for pid in workers if "Trainable" in command_of(pid)]
        assert workers
        os.kill(workers[0], signal.SIGKILL)
        done = program.wait(120)
    assert (done.code, done.err) == (0, "")
    rows = read_trials(tmp_path / "run")
    assert rows["status"].tolist() == ["completed"] * 4
    found = read_epochs(tmp_path / "run")
    assert found.groupby("trial_id")["epoch"].apply(list).tolist() == [list(range(1, 121))] * 4
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
