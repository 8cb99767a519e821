"""A search whose processes get signals, as batch systems, terminals and other people send them."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import SEARCH, Program, command_of, descendants, is_alive, run_search, started, wait_until

from nls_tune import read_epochs, read_trials
from nls_tune.runs.directory import RunDirectory

pytestmark = pytest.mark.timeout(600)
LEVEL = "symmetric:0.4"
COMMON = (
    "--dataset", "twonorm", "--noise", LEVEL, "--preset", "cpu", "--confirm-seeds", "0", "--scheduler", "none",
    "--out", "run",
)  # fmt: skip
#: Trials that go on until something ends them.
LONG = (*COMMON, "--train-size", "2000", "--epochs", "20000", "--num-trials", "4")
SHORT = (*COMMON, "--train-size", "500", "--epochs", "300", "--num-trials", "4")
START = 200.0


def wait_for_epochs(run: Path, number: int = 1) -> None:
    wait_until(lambda: len(list(run.glob("epochs/[!e]*.parquet"))) >= number, "trials are running", START)


def named(pids: dict[int, str], name: str) -> list[int]:
    return [pid for pid, command in pids.items() if name in command]


@pytest.fixture
def search(tmp_path) -> Iterator[tuple[Program, dict[int, str], Path]]:
    """A search whose trials run, and its processes."""
    with started(*SEARCH, *LONG, folder=tmp_path) as program:
        wait_for_epochs(tmp_path / "run")
        yield program, {pid: command_of(pid) for pid in descendants(program.process.pid)}, tmp_path / "run"


def check_saved(program: Program, processes: dict[int, str], run: Path, *, without_ray: bool = False) -> str:
    """The search ends in order: rows of the trials that ran, the way to go on, and no process is left."""
    done = program.wait(START)
    assert (done.code, done.err) == (130, "")
    ways = [f"To go on: python -m nls_tune.search {' '.join(LONG)}"]
    # Ray may wait for itself, deaf to all signals: then the search is ended from beside it.
    ways += [f"To go on: the same command with --out {run}, when Ray runs again"] * without_ray
    assert done.out.rstrip().splitlines()[-1].endswith(tuple(ways))
    rows = read_trials(run)
    assert len(rows) >= 1
    assert set(rows["status"]) == {"interrupted"}
    lengths = read_epochs(run).groupby("trial_id").size()
    assert all(lengths.get(row["trial_id"], 0) == row["epochs"] for row in rows.to_dict("records"))
    assert RunDirectory(run).read_json().status == "interrupted"
    wait_until(lambda: not any(is_alive(pid) for pid in processes), "no process is left", 20)
    return done.out


def test_sigterm_to_every_process_of_the_job(search):
    program, processes, run = search
    for pid in (*processes, program.process.pid):
        os.kill(pid, signal.SIGTERM)
    check_saved(program, processes, run)
    rows = read_trials(run)
    # Nothing falls back to a checkpoint by time, of which there is none yet: the trials have saved their states.
    saved = {folder.name for folder in (run / "checkpoints").iterdir() if (folder / "state.pt").exists()}
    assert set(rows.loc[rows["epochs"] > 1, "trial_id"]) <= saved


@pytest.fixture
def hears_sighup() -> Iterator[None]:
    """Below nohup the signal is ignored, also by the programs that are started here."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_sighup(hears_sighup, search):
    program, processes, run = search
    os.kill(program.process.pid, signal.SIGHUP)
    check_saved(program, processes, run)


@pytest.mark.parametrize("name", ["raylet/raylet", "gcs_server"])
def test_a_killed_process_of_ray_itself(search, name):
    program, processes, run = search
    os.kill(named(processes, name)[0], signal.SIGKILL)
    out = check_saved(program, processes, run, without_ray=True)
    (warning,) = [line for line in out.splitlines() if line.startswith("Warning: ")]
    assert "on this machine has ended" in warning
    assert "raylet)" not in out  # Ray's own pages


def test_what_a_killed_search_leaves_ends_soon(search):
    program, processes, _ = search
    program.process.kill()
    program.process.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in processes), "no process is left", 20)


def test_a_hung_worker_is_ended_and_its_trial_goes_on(tmp_path):
    arguments = (*SHORT[:-4], "--epochs", "600", "--num-trials", "2", "--trial-timeout", "40s")
    with started(*SEARCH, *arguments, folder=tmp_path) as program:
        wait_for_epochs(tmp_path / "run")
        training: list[int] = []

        def is_training() -> bool:  # and not only starting
            processes = {pid: command_of(pid) for pid in descendants(program.process.pid)}
            training[:] = named(processes, "Trainable.train")
            return bool(training)

        wait_until(is_training, "a worker trains")
        os.kill(training[0], signal.SIGSTOP)
        done = program.wait(500)
    assert (done.code, done.err) == (0, "")
    assert "it has reported nothing for 40 s" in done.out
    check_finished(tmp_path / "run", 2)


def test_a_home_that_cannot_be_written(tmp_path):
    done = run_search(*SHORT, folder=tmp_path, env={"HOME": "/proc/1/nowhere"}, seconds=400)
    assert (done.code, done.err) == (0, "")
    check_finished(tmp_path / "run", 4)


def check_finished(run: Path, trials: int) -> None:
    rows = read_trials(run)
    assert len(rows) == trials
    assert rows["trial_id"].is_unique
    assert set(rows["status"]) <= {"completed", "diverged"}
    epochs = read_epochs(run).groupby("trial_id")["epoch"].apply(list)
    for row in rows.to_dict("records"):
        assert epochs[row["trial_id"]] == list(range(1, row["epochs"] + 1))
    assert RunDirectory(run).read_json().status == "finished"


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_workers_killed_at_random(tmp_path):
    """Nothing is settled by a kill: every trial ends as the training has it, and the search by itself."""
    rng, killed, arguments = random.Random(0), 0, list(SHORT)
    arguments[arguments.index("--num-trials") + 1] = "60"
    with started(*SEARCH, *arguments, folder=tmp_path) as program:
        wait_for_epochs(tmp_path / "run")
        while program.running and killed < 20:
            processes = {pid: command_of(pid) for pid in descendants(program.process.pid)}
            if workers := named(processes, "ray::"):
                workers = [pid for pid in workers if "Agent" not in processes[pid]]
                os.kill(rng.choice(workers), signal.SIGKILL)
                killed += 1
            time.sleep(rng.uniform(3, 10))
        done = program.wait(3000)
    assert (done.code, done.err) == (0, "")
    assert killed >= 10
    check_finished(tmp_path / "run", 60)
