"""A search that was interrupted or killed goes on with the same command, here or where its folder was moved to."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import SEARCH, Done, command_of, descendants, run_search, started, wait_until

from nls_tune import Training, load_dataset, read_epochs, read_trials
from nls_tune.runs.schemas import settings_of

pytestmark = pytest.mark.timeout(240)
EPOCHS = 200
#: Five trials that ASHA does not stop; two run at a time, each for some seconds.
ARGUMENTS = (
    "--noise", "symmetric:0.4", "--epochs", str(EPOCHS), "--num-trials", "5", "--train-size", "500",
    "--scheduler", "none", "--confirm-seeds", "0", "--preset", "cpu", "--out", "run",
)  # fmt: skip
#: How trials end that nothing stops: with so many epochs the most negative rates may diverge.
ENDED = {"completed", "diverged"}
#: A time that no epoch takes: it marks those that were not trained again.
MARK = 12345.0


def num_rows(path: Path) -> int:
    return len(list((path / "trials").glob("[!e]*.parquet")))


def half_done(path: Path) -> list[Path]:
    """Checkpoints that hold a state; a trial that only waits for a warm-up has none."""
    return [folder for folder in (path / "checkpoints").iterdir() if (folder / "state.pt").exists()]


def running(path: Path) -> set[str]:
    """Trials that have just reported epochs, for the first time in some seconds, and have no row yet.

    One that reported before may be about to end: two that start together end together.
    """
    fresh = set()
    for part in (path / "epochs").glob("[!e]*.parquet"):
        if time.time() - part.stat().st_mtime < 0.5 and not (path / "trials" / part.name).exists():
            fresh.add(part.stem)
    return fresh


def rows(path: Path) -> pd.DataFrame:
    return read_trials(path).set_index("trial_id")


@dataclass(frozen=True)
class Interrupted:
    """A search that was interrupted with Ctrl-C, twice, while another command wanted the same folder, then resumed."""

    run: Path
    second: Done
    interrupted: Done
    rows_between: pd.DataFrame
    epochs_saved: dict[str, int]
    resumed: Done


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> Interrupted:
    folder = tmp_path_factory.mktemp("interrupted")
    path = folder / "run"
    with started(*SEARCH, *ARGUMENTS, folder=folder) as program:
        # While Ray starts: afterwards the trials might all have ended before the other command has.
        wait_until(lambda: (path / "run.json").exists(), "the search has its folder")
        second = run_search(*ARGUMENTS, folder=folder)
        wait_until(lambda: num_rows(path) >= 1 and running(path), "a trial has ended and another one is running", 100)
        program.press_ctrl_c()
        time.sleep(0.2)
        program.press_ctrl_c()  # what the first one saves is saved; the table is left out
        done = program.wait()
    between = rows(path)
    epochs_saved = {}
    for checkpoint in half_done(path):
        file = checkpoint / "state.pt"
        state = torch.load(file, weights_only=True)
        epochs_saved[checkpoint.name] = len(state["history"])
        state["history"][0]["seconds"] = MARK
        torch.save(state, file)
    resumed = run_search(*ARGUMENTS, folder=folder, seconds=120)
    return Interrupted(path, second, done, between, epochs_saved, resumed)


class TestCtrlC:
    def test_it_ends_with_130_and_says_how_to_go_on(self, interrupted):
        done = interrupted.interrupted
        assert (done.code, done.err) == (130, "")
        command = f"python -m nls_tune.search {shlex.join(ARGUMENTS)}"
        assert done.out.splitlines()[-1].endswith(f"To go on: {command}")
        assert "Traceback" not in done.out
        assert done.out.count("Results: ") == 1  # before the trials; the table would end with it as well
        sessions = json.loads((interrupted.run / "run.json").read_text())["sessions"]
        assert len(sessions) == 2
        assert all(session["finished_at"] for session in sessions)

    def test_what_was_running_has_a_row_that_says_so_and_its_state_was_saved(self, interrupted):
        between = interrupted.rows_between
        running = set(between.index[between["status"] == "interrupted"])
        assert set(between["status"]) <= ENDED | {"interrupted"}
        assert 1 <= len(running) <= 2
        assert interrupted.epochs_saved
        assert set(interrupted.epochs_saved) <= running
        assert all(0 < epochs < EPOCHS for epochs in interrupted.epochs_saved.values())

    def test_a_second_process_is_refused(self, interrupted):
        assert interrupted.second.has_failed_in_one_line(), interrupted.second
        assert "another search is writing to" in interrupted.second.err
        assert str(interrupted.run) in interrupted.second.err


class TestResumed:
    def test_it_finishes_and_every_trial_is_there_once_and_complete(self, interrupted):
        assert (interrupted.resumed.code, interrupted.resumed.err) == (0, "")
        assert json.loads((interrupted.run / "run.json").read_text())["status"] == "finished"
        assert list((interrupted.run / "checkpoints").iterdir()) == []
        trials = rows(interrupted.run)
        assert len(trials) == trials.index.nunique() == 5
        assert set(trials["status"]) <= ENDED
        assert trials.groupby("arm").size().to_dict() == {"ce": 1, "negative": 3, "positive": 1}

    def test_only_what_was_missing_was_run_and_adopted_rows_are_untouched(self, interrupted):
        before = interrupted.rows_between
        adopted = before[before["status"] != "interrupted"]
        assert not adopted.empty
        lines = re.findall(r"^\[(\d)/5\]", interrupted.resumed.out, re.MULTILINE)
        assert [int(number) for number in lines] == list(range(len(adopted) + 1, 6))
        # A column of whole numbers becomes one of floats where a value is missing.
        pd.testing.assert_frame_equal(rows(interrupted.run).loc[adopted.index], adopted, check_dtype=False)

    def test_interrupted_trials_went_on_from_their_checkpoints(self, interrupted):
        epochs = read_epochs(interrupted.run)
        marked = set(epochs.loc[epochs["seconds"] == MARK, "trial_id"])
        assert marked == set(interrupted.epochs_saved)

    def test_the_numbers_are_those_of_a_training_that_nothing_stops(self, interrupted):
        trials, epochs = read_trials(interrupted.run), read_epochs(interrupted.run)
        assert interrupted.epochs_saved
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as the trials had
        try:
            for trial_id in interrupted.epochs_saved:
                row = trials[trials["trial_id"] == trial_id].iloc[0]
                dataset = load_dataset("twonorm", "symmetric:0.4", train_size=500)
                training = Training(dataset, settings_of(row))
                while not training.finished:
                    training.run_epoch()
                found = epochs[epochs["trial_id"] == trial_id]
                expected = pd.DataFrame([dataclasses.asdict(metrics) for metrics in training.history])
                for name in ("train_loss", "val_loss", "val_accuracy", "test_accuracy"):
                    # Bit by bit; the last loss of one that diverged is no number, and equal all the same.
                    np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        finally:
            torch.set_num_threads(threads)


@dataclass(frozen=True)
class Moved:
    """A search that was killed, moved, went on where it is now, was ended with SIGTERM and went on again."""

    old: Path
    run: Path
    killed: pd.DataFrame
    terminated: Done
    rows_between: pd.DataFrame
    status_between: str
    resumed: Done


@pytest.fixture(scope="module")
def moved(tmp_path_factory) -> Moved:
    folder, other = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("elsewhere")
    old, path = folder / "run", other / "run"
    with started(*SEARCH, *ARGUMENTS, folder=folder) as program:
        wait_until(lambda: num_rows(old) >= 1 and running(old), "a trial has ended and another runs", 100)
        program.kill()
    killed = rows(old)
    shutil.move(old, path)
    with started(*SEARCH, *ARGUMENTS, folder=other) as program:
        # What was half done has reported epochs and has no row: one more that ended tells that trials run.
        wait_until(lambda: num_rows(path) > len(killed) and running(path), "one more has ended and another runs")
        program.process.terminate()
        terminated = program.wait()
    between, status = rows(path), json.loads((path / "run.json").read_text())["status"]
    resumed = run_search(*ARGUMENTS, folder=other, seconds=120)
    return Moved(old, path, killed, terminated, between, status, resumed)


class TestKilledAndMoved:
    def test_it_goes_on_where_it_is_now_and_what_had_ended_is_not_run_again(self, moved):
        assert f"Results: {moved.run}" in moved.terminated.out
        assert not moved.old.exists()
        assert moved.rows_between.loc[moved.killed.index, "finished_at"].equals(moved.killed["finished_at"])
        trials = rows(moved.run)
        assert len(trials) == 5
        assert set(trials["status"]) <= ENDED

    def test_what_both_searches_ran_is_the_same(self, moved, interrupted):
        """One was interrupted, the other killed and moved: trials of one name have the same numbers."""
        first, second = rows(interrupted.run), rows(moved.run)
        both = sorted(set(first.index) & set(second.index))
        assert len(both) >= 3  # the start points at least
        for name in ("best_val_accuracy", "best_epoch", "last_test_accuracy", "val_correct_at_best"):
            pd.testing.assert_series_equal(first.loc[both, name], second.loc[both, name], check_dtype=False)

    def test_a_batch_system_s_sigterm_ends_it_in_order_with_the_table(self, moved):
        done = moved.terminated
        assert (done.code, done.err) == (130, "")
        assert "--out run" in done.out
        assert done.out.count("Results: ") == 2  # after one interruption there is time for the table
        assert moved.status_between == "interrupted"
        assert "interrupted" in set(moved.rows_between["status"])

    def test_only_what_was_missing_was_run_then(self, moved):
        assert (moved.resumed.code, moved.resumed.err) == (0, "")
        lines = re.findall(r"^\[(\d)/5\]", moved.resumed.out, re.MULTILINE)
        assert len(lines) == 5 - (moved.rows_between["status"] != "interrupted").sum()


def test_ctrl_c_while_ray_starts_is_an_interruption_too(tmp_path):
    with started(*SEARCH, *ARGUMENTS, folder=tmp_path) as program:
        wait_until(
            lambda: any("gcs_server" in command_of(pid) for pid in descendants(program.process.pid)),
            "Ray is starting",
        )
        program.press_ctrl_c()
        done = program.wait()
    assert done.code == 130
    assert "Traceback" not in done.out + done.err
    assert "--out run" in done.out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
