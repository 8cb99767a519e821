"""A search that was interrupted or killed goes on with the same command, here or where its folder was moved to."""

import dataclasses
import itertools
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

pytestmark = pytest.mark.timeout(400)
EPOCHS = 160
#: Six trials that ASHA does not stop; two run at a time, each for some seconds.
ARGUMENTS = (
    "--dataset", "twonorm",
    "--noise", "symmetric:0.4", "--epochs", str(EPOCHS), "--num-trials", "6", "--train-size", "500",
    "--scheduler", "none", "--confirm-seeds", "0", "--preset", "cpu", "--out", "run",
)  # fmt: skip
#: How trials end that nothing stops: with so many epochs the most negative rates may diverge.
ENDED = {"completed", "diverged"}
#: A time that no epoch takes: it marks those that were not trained again.
MARK = 12345.0


def num_rows(path: Path) -> int:
    return len(list((path / "trials").glob("[!e]*.parquet")))


def num_ended(path: Path) -> int:
    return len(ended_of(rows(path)))


def mark_saved(path: Path) -> dict[str, int]:
    """Mark the first epoch of every saved state; return how many epochs each has.

    A trial that only waits for a warm-up has none.
    """
    found = {}
    for file in (path / "checkpoints").glob("*/state.pt"):
        state = torch.load(file, weights_only=True)
        found[file.parent.name] = len(state["history"])
        state["history"][0]["seconds"] = MARK
        torch.save(state, file)
    return found


def running(path: Path, since: float = 0.0) -> set[str]:
    """Trials that have just reported epochs, for the first time in some seconds, and have no row yet.

    Only what was reported after ``since`` counts, a time: a killed program may have reported in its last moment.

    One that reported before may be about to end: two that start together end together.
    """
    fresh = set()
    for part in (path / "epochs").glob("[!e]*.parquet"):
        reported = part.stat().st_mtime
        recently = reported > max(since, time.time() - 0.5)
        if recently and not (path / "trials" / part.name).exists():
            fresh.add(part.stem)
    return fresh


def rows(path: Path) -> pd.DataFrame:
    return read_trials(path).set_index("trial_id")


@dataclass(frozen=True)
class Resumed:
    """A search that Ctrl-C ended while another command wanted its folder; moved and killed; ended by SIGTERM; resumed.

    The last three went on with the same command, where the folder is now.
    """

    old: Path
    run: Path
    second: Done
    interrupted: Done
    after_ctrl_c: pd.DataFrame
    epochs_saved: dict[str, int]
    after_kill: pd.DataFrame
    terminated: Done
    after_sigterm: pd.DataFrame
    status_then: str
    finished: Done


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> Resumed:
    folder, other = tmp_path_factory.mktemp("interrupted"), tmp_path_factory.mktemp("elsewhere")
    old, path = folder / "run", other / "run"
    with started(*SEARCH, *ARGUMENTS, folder=folder) as program:
        # While Ray starts: afterwards the trials might all have ended before the other command has.
        wait_until(lambda: (old / "run.json").exists(), "the search has its folder")
        second = run_search(*ARGUMENTS, folder=folder)
        wait_until(lambda: num_rows(old) >= 1 and running(old), "a trial has ended and another one is running", 100)
        program.press_ctrl_c()
        time.sleep(0.2)
        program.press_ctrl_c()  # what the first one saves is saved; the table is left out
        interrupted = program.wait()
    after_ctrl_c, epochs_saved = rows(old), mark_saved(old)
    shutil.move(old, path)
    ended, begun = (after_ctrl_c["status"] != "interrupted").sum(), time.time()
    with started(*SEARCH, *ARGUMENTS, folder=other) as program:
        wait_until(lambda: num_ended(path) > ended and running(path, begun), "one more has ended and another runs", 100)
        program.kill()
    after_kill, begun = rows(path), time.time()
    with started(*SEARCH, *ARGUMENTS, folder=other) as program:
        wait_until(lambda: running(path, begun), "a trial runs", 100)
        program.process.terminate()
        terminated = program.wait()
    after_sigterm, status = rows(path), json.loads((path / "run.json").read_text())["status"]
    finished = run_search(*ARGUMENTS, folder=other, seconds=120)
    return Resumed(
        old, path, second, interrupted, after_ctrl_c, epochs_saved, after_kill, terminated, after_sigterm, status,
        finished,
    )  # fmt: skip


def ended_of(trials: pd.DataFrame) -> pd.DataFrame:
    return trials[trials["status"] != "interrupted"]


class TestCtrlC:
    def test_it_ends_with_130_and_says_how_to_go_on(self, resumed):
        done = resumed.interrupted
        assert (done.code, done.err) == (130, "")
        command = f"python -m nls_tune.search {shlex.join(ARGUMENTS)}"
        assert done.out.splitlines()[-1].endswith(f"To go on: {command}")
        assert "Traceback" not in done.out
        assert done.out.count("Results: ") == 1  # before the trials; the table would end with it as well

    def test_what_was_running_has_a_row_that_says_so_and_its_state_was_saved(self, resumed):
        between = resumed.after_ctrl_c
        running = set(between.index[between["status"] == "interrupted"])
        assert set(between["status"]) <= ENDED | {"interrupted"}
        assert 1 <= len(running) <= 2
        assert resumed.epochs_saved
        assert set(resumed.epochs_saved) <= running
        assert all(0 < epochs < EPOCHS for epochs in resumed.epochs_saved.values())

    def test_a_second_process_is_refused(self, resumed):
        assert resumed.second.has_failed_in_one_line(), resumed.second
        assert "another search is writing to" in resumed.second.err
        assert str(resumed.old) in resumed.second.err


class TestKilledAndTerminated:
    def test_it_goes_on_where_it_is_now_and_what_had_ended_is_not_run_again(self, resumed):
        assert f"Results: {resumed.run}" in resumed.terminated.out
        assert not resumed.old.exists()
        tables = (resumed.after_ctrl_c, resumed.after_kill, resumed.after_sigterm, rows(resumed.run))
        for before, after in itertools.pairwise(tables):
            adopted = ended_of(before)
            assert not adopted.empty
            # A column of whole numbers becomes one of floats where a value is missing.
            pd.testing.assert_frame_equal(after.loc[adopted.index], adopted, check_dtype=False)

    def test_a_batch_system_s_sigterm_ends_it_in_order_with_the_table(self, resumed):
        done = resumed.terminated
        assert (done.code, done.err) == (130, "")
        assert "--out run" in done.out
        assert done.out.count("Results: ") == 2  # after one interruption there is time for the table
        assert resumed.status_then == "interrupted"
        assert "interrupted" in set(resumed.after_sigterm["status"])


class TestFinished:
    def test_every_trial_is_there_once_and_complete(self, resumed):
        assert (resumed.finished.code, resumed.finished.err) == (0, "")
        content = json.loads((resumed.run / "run.json").read_text())
        assert content["status"] == "finished"
        assert len(content["sessions"]) == 4
        assert list((resumed.run / "checkpoints").iterdir()) == []
        trials = rows(resumed.run)
        assert len(trials) == trials.index.nunique() == 6
        assert set(trials["status"]) <= ENDED
        assert trials.groupby("arm").size().to_dict() == {"ce": 2, "negative": 3, "positive": 1}

    def test_only_what_was_missing_was_run(self, resumed):
        lines = re.findall(r"^\[(\d)/6\]", resumed.finished.out, re.MULTILINE)
        assert [int(number) for number in lines] == list(range(len(ended_of(resumed.after_sigterm)) + 1, 7))

    def test_interrupted_trials_went_on_from_their_checkpoints(self, resumed):
        epochs = read_epochs(resumed.run)
        marked = set(epochs.loc[epochs["seconds"] == MARK, "trial_id"])
        assert marked == set(resumed.epochs_saved)

    def test_the_numbers_are_those_of_a_training_that_nothing_stops(self, resumed):
        trials, epochs = read_trials(resumed.run), read_epochs(resumed.run)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as the trials had
        try:
            for trial_id in resumed.epochs_saved:
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
