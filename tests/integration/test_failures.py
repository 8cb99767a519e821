"""Trials that fail or lose their worker are rows; the search goes on."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import SEARCH, Done, command_of, descendants, started, wait_until
from sabotage import sabotage

from nls_tune import read_epochs, read_trials

pytestmark = pytest.mark.timeout(180)
LEVEL = "symmetric:0.4"
EPOCHS = 80
COMMON = (
    "--dataset", "twonorm", "--noise", LEVEL, "--train-size", "500", "--preset", "cpu", "--confirm-seeds", "0",
    "--out", "run",
)  # fmt: skip


@dataclass(frozen=True)
class Troubled:
    """A search in which one trial failed and the worker of another was killed."""

    done: Done
    run: Path
    failing: str


@pytest.fixture(scope="module")
def troubled(tmp_path_factory) -> Troubled:
    folder = tmp_path_factory.mktemp("troubled")
    failing = sabotage(folder / "run", smooth_rate=0.1, noise=(LEVEL,), train_size=500, preset="cpu", epochs=EPOCHS)
    arguments = ("--epochs", str(EPOCHS), "--num-trials", "4", "--scheduler", "none")
    epochs = folder / "run" / "epochs"
    with started(*SEARCH, *COMMON, *arguments, folder=folder) as program:
        wait_until(lambda: len(list(epochs.glob("[!e]*.parquet"))) >= 1, "a trial is running")
        commands = {pid: command_of(pid) for pid in descendants(program.process.pid)}
        workers = [pid for pid, command in commands.items() if "ray::" in command and "Trainable" in command]
        assert workers
        os.kill(workers[0], signal.SIGKILL)
        done = program.wait(120)
    return Troubled(done, folder / "run", failing)


def test_the_search_goes_on_and_a_trial_that_fails_is_a_row_with_its_error_in_one_line(troubled):
    assert (troubled.done.code, troubled.done.err) == (0, "")
    assert f"\n{LEVEL}: use " in troubled.done.out
    assert "Traceback" not in troubled.done.out
    rows = read_trials(troubled.run).set_index("trial_id")
    assert rows.loc[troubled.failing, "status"] == "failed"
    assert "FileExistsError" in rows.loc[troubled.failing, "error"]
    assert "\n" not in rows.loc[troubled.failing, "error"]
    (line,) = [line for line in troubled.done.out.splitlines() if ": failed" in line]
    assert "r=0.1" in line
    assert "FileExistsError" in line
    assert "1 trial failed" in troubled.done.out


def test_a_trial_whose_worker_is_killed_goes_on_and_has_every_epoch_once(troubled):
    rows = read_trials(troubled.run).set_index("trial_id")
    assert len(rows) == 4
    others = rows.drop(index=troubled.failing)
    assert set(others["status"]) <= {"completed", "diverged"}  # so many epochs may be too many for r*
    assert others["error"].isna().all()
    epochs_of = read_epochs(troubled.run).groupby("trial_id")["epoch"].apply(list)
    for trial_id, row in others.iterrows():
        assert epochs_of[trial_id] == list(range(1, row["epochs"] + 1))
    left = [place.name for place in (troubled.run / "checkpoints").iterdir()]
    assert left == [troubled.failing]  # which is the file that made it fail
