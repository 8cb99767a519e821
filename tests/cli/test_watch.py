"""Watching a run from outside: what is shown, what is read, and how it ends."""

import io
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
from fake_runs import read_raw, write_fake_run, write_raw
from filelock import FileLock
from rich.console import Console

from nls_tune.cli import watch as watch_module
from nls_tune.cli.exit import run_app
from nls_tune.cli.main import app
from nls_tune.runs import watched as watched_module
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.parts import read_parts
from nls_tune.runs.reading import read_epochs, read_trials, runs_again
from nls_tune.runs.schemas import trial_schema
from nls_tune.runs.watched import WatchedRun

LEVELS = ("symmetric:0.2", "symmetric:0.4")
STAGE = {"name": "search", "started_at": "2020-01-01T00:00:00+00:00", "trials": dict.fromkeys(LEVELS, 12), "epochs": 20}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of 12 trials a level and one more that has epochs and no row."""
    return write_fake_run(tmp_path_factory.mktemp("fake") / "run", levels=LEVELS, trials=12, unfinished=1)


@pytest.fixture
def going_on(finished, tmp_path) -> Iterator[Path]:
    """The same, going on: this process holds it."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    change_json(run, status="running")
    with FileLock(run / ".lock"):
        yield run


def change_json(run: Path, stage: dict | None = None, **changes) -> None:
    content = read_raw(run)
    session = content["sessions"][-1]
    session["started_at"] = "2020-01-01T00:00:00+00:00"  # before the files of the test, whatever the clock says
    session["stage"] = {**STAGE, "time_budget": None, **(stage or {})}
    write_raw(run, **{**content, **changes})


def begin_another_session(run: Path) -> None:
    content = read_raw(run)
    content["sessions"].append({**content["sessions"][-1], "started_at": "2100-01-01T00:00:00+00:00"})
    write_raw(run, **content)


def replace_file(path: Path, content: bytes) -> None:
    path.with_name(".temporary").write_bytes(content)
    path.with_name(".temporary").replace(path)


def rows_of(run: Path) -> list[dict]:
    """The rows of ``trials/`` as they were written, in the order in which the trials started."""
    return read_parts(run / "trials", trial_schema()).table.sort_by("started_at").to_pylist()


def files(run: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(run)): (p.stat().st_mtime_ns, p.stat().st_size) for p in run.rglob("*")}


def test_the_counts_and_bests_are_those_of_the_rows(finished, capsys):
    before = files(finished)
    assert run_app(app, ["watch", str(finished)]) == 0
    assert files(finished) == before
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{finished}: finished"
    assert printed[-1] == "The run has ended."
    trials, epochs = read_trials(finished), read_epochs(finished)
    for level in LEVELS:
        rows = trials[trials["noise_level"] == level]
        done = rows[rows["status"] == "completed"]
        bests = [f"{100 * done.loc[done['arm'] == a, 'best_val_accuracy'].max():.1f}" for a in ("ce", "positive")]
        line = next(line for line in printed if line.startswith(level)).split()
        counts = rows["status"].value_counts()
        assert line[1:6] == ["12/12", "0", str(counts.get("stopped", 0)), str(counts.get("diverged", 0)), "0"]
        assert [line[6], line[8]] == bests
        best = done.loc[done["best_val_accuracy"].idxmax()]
        curve = epochs.loc[epochs["trial_id"] == best["trial_id"], "val_accuracy"]
        ends = f" {100 * curve.min():.1f} % to {100 * curve.max():.1f} %"
        assert sum(line.startswith(level) and line.endswith(ends) for line in printed) == 1


def test_trials_without_a_row_run_in_their_slots_until_it_comes(going_on):
    watched = WatchedRun(going_on)
    assert watched.status == "running"
    with_epochs, with_row = ({p.stem for p in (going_on / x).glob("*.parquet")} for x in ("epochs", "trials"))
    running = watched.progress.running
    assert set(running) == with_epochs - with_row
    assert {trial.slot for trial in running.values()} == {0, 1}
    epochs = read_epochs(going_on)
    for name, trial in running.items():
        curve = epochs[epochs["trial_id"] == name]
        assert (trial.noise_level, trial.epoch, trial.epochs) == (curve["noise_level"].iloc[0], len(curve), 20)
        assert list(trial.accuracies) == curve["val_accuracy"].tolist()
    # The one in slot 0 ends; the other one stays where it is, and another takes its place.
    first, second = sorted(running, key=lambda name: running[name].slot)
    run = RunDirectory(going_on)
    run.write_trial({**rows_of(going_on)[0], "trial_id": first, "error": None, "status": "stopped"})
    shutil.copy(going_on / "epochs" / f"{first}.parquet", going_on / "epochs" / "other.parquet")
    watched.refresh()
    assert [row["trial_id"] for row in watched.new_rows] == [first]
    # The rows of other.parquet are those of another trial.
    assert {name: trial.slot for name, trial in watched.progress.running.items()} == {second: 1}
    run.write_epochs([{**r, "trial_id": "third"} for r in epochs[epochs["trial_id"] == first].to_dict("records")])
    watched.refresh()
    assert {name: trial.slot for name, trial in watched.progress.running.items()} == {second: 1, "third": 0}


def test_a_look_reads_what_has_changed_and_nothing_else(going_on, monkeypatch):
    read: list[str] = []

    def counted(folder, schema, names):
        read.extend(f"{folder.name}/{name}" for name in names)
        return read_parts(folder, schema, names)

    monkeypatch.setattr(watched_module, "read_parts", counted)
    watched = WatchedRun(going_on)
    # All rows, the curves of the best of each level, those of the trials that run, and the two parts without rows.
    assert len(read) == len(set(read)) == 24 + 2 + 2 + 2
    read.clear()
    watched.refresh()
    assert read == []
    trials = read_trials(going_on)
    part = going_on / "trials" / f"{trials.loc[trials['status'] == 'stopped', 'trial_id'].iloc[0]}.parquet"
    replace_file(part, part.read_bytes())
    watched.refresh()
    assert read == [f"trials/{part.name}"]
    part.unlink()
    watched.refresh()
    # A trial without a row runs, and its curve is shown.
    assert read[1:] == [f"epochs/{part.name}"]
    assert (watched.progress.num_ended, len(watched.progress.running)) == (23, 3)


def test_a_torn_part_is_left_for_the_next_look(going_on):
    watched = WatchedRun(going_on)
    part = next((going_on / "trials").glob("[!e]*.parquet"))
    whole = part.read_bytes()
    for content in (whole[:-100], b"", whole):
        replace_file(part, content)
        replace_file(part.with_name("torn.parquet"), whole[:100])
        watched.refresh()
        assert watched.progress.num_ended == 24  # what it said before still holds
        assert watched.num_unread == (1 if content == whole else 2)
    (going_on / "run.json").write_text("{")
    watched.refresh()
    assert watched.status == "running"


def test_trials_of_an_earlier_session_do_not_run_and_interrupted_ones_do_not_count_yet(going_on):
    begin_another_session(going_on)
    RunDirectory(going_on).write_trial({**rows_of(going_on)[0], "status": "interrupted", "error": None})
    watched = WatchedRun(going_on)
    assert watched.progress.running == {}
    assert watched.progress.num_ended == 23
    change_json(going_on, status="interrupted")
    watched.refresh()
    assert watched.progress.num_ended == 24
    # One that runs again has a row and goes on.
    change_json(going_on, status="running")
    name = rows_of(going_on)[0]["trial_id"]
    assert name not in WatchedRun(going_on).progress.running
    os.utime(going_on / "epochs" / f"{name}.parquet", ns=(time.time_ns() + 10**9,) * 2)
    assert name in WatchedRun(going_on).progress.running


@pytest.mark.parametrize("earlier", [False, True], ids=["this session", "an earlier one"])
def test_a_trial_that_ran_out_of_memory_has_ended_unless_its_folder_waits_for_fewer_on_the_gpu(going_on, earlier):
    run, rows = RunDirectory(going_on), rows_of(going_on)[:3]
    names = [row["trial_id"] for row in rows]
    for row in rows:
        run.write_trial({**row, "status": "out_of_memory", "error": "x"})
    (run.checkpoints / names[0]).mkdir(parents=True)
    if earlier:
        begin_another_session(going_on)
    watched = WatchedRun(going_on)
    ended = sum(level.ended["out_of_memory"] for level in watched.progress.levels.values())
    assert ended == (~runs_again(run, read_trials(going_on).iloc[:3])).sum() == 2
    assert watched.progress.num_ended == 23
    (run.checkpoints / names[0]).rmdir()  # the second time it had the GPU to itself
    watched.refresh()
    assert watched.progress.num_ended == 24
    assert not {*names} & set(watched.progress.running)


def test_a_confirmation_counts_its_own_trials(tmp_path):
    run = write_fake_run(tmp_path / "run", levels=LEVELS, trials=12, confirm_seeds=2)
    change_json(run, {"name": "confirm", "trials": {LEVELS[0]: 8, LEVELS[1]: 9}}, status="running")
    trials = read_trials(run)
    confirmed = (trials["stage"] == "confirm").sum()
    with FileLock(run / ".lock"):
        watched = WatchedRun(run)
        assert (watched.progress.stage, watched.progress.num_total) == ("confirm", 17)
        assert watched.progress.num_ended == confirmed > 0
        # Those of an earlier session are not of this one.
        late = {"name": "confirm", "trials": {LEVELS[0]: 8}, "started_at": "2100-01-01T00:00:00+00:00"}
        change_json(run, late)
        watched.refresh()
        assert watched.progress.num_ended == 0


def test_before_the_first_stage_the_plan_counts_and_then_the_time_budget_counts_down(going_on):
    content = read_raw(going_on)
    del content["sessions"][-1]["stage"]
    write_raw(going_on, **content)
    progress = WatchedRun(going_on).progress
    assert (progress.num_total, progress.epochs, progress.stage) == (24, 20, "search")
    began = pd.Timestamp.now("UTC") - pd.Timedelta(seconds=100)
    change_json(going_on, {"time_budget": 1000.0, "started_at": began.isoformat()})
    watched = WatchedRun(going_on)
    assert watched.progress.budget.left() < 900
    assert watched.elapsed() > 100


def test_what_changes_is_told_line_by_line_until_the_run_ends(finished, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("*.parquet"))
    change_json(run, status="running")
    parts = sorted((finished / "trials").glob("[!e]*.parquet"))[:5]

    def go_on(seconds: float) -> None:
        """A trial ends between two looks."""
        if parts:
            part = parts.pop()
            shutil.copy(part, run / "trials" / part.name)
        else:
            change_json(run, status="finished")

    with FileLock(run / ".lock"):
        monkeypatch.setattr(watch_module.time, "sleep", go_on)
        assert run_app(app, ["watch", str(run), "--interval", "0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("; ")[0].endswith(f"/24] search of {run}")
    told = [line for line in lines if line.startswith("[") and " of " not in line]
    assert len(told) == 5
    for row in read_trials(run).to_dict("records"):
        (line,) = (x for x in told if f"{row['noise_level']} r=" in x and f"lr={row['lr']:.4g}" in x)
        assert f": {row['status']}, {row['epochs']} epochs" in line
    assert f"{run}: finished" in lines


def test_one_look_at_a_run_that_goes_on_and_one_after_it_was_killed(going_on, capsys):
    assert run_app(app, ["watch", str(going_on), "--once"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{going_on}: search goes on\n")
    assert " epoch " in out
    assert " left\n" in out
    (going_on / ".lock").unlink()
    assert run_app(app, ["watch", str(going_on)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{going_on}: crashed"
    assert lines[-1].startswith("No process holds this run any more: it was killed with 2 trials running; ")


def test_runs_without_a_trial(tmp_path, capsys):
    run = write_fake_run(tmp_path / "run", levels=LEVELS, trials=0)
    shutil.rmtree(run / "epochs")
    assert run_app(app, ["watch", str(run)]) == 0
    assert "0 of 0 trials" in capsys.readouterr().out


def test_what_is_refused(finished, tmp_path, capsys):
    assert run_app(app, ["watch", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is not a run: it has no run.json\n"
    for interval in ("0", "nan", "4000"):
        assert run_app(app, ["watch", str(finished), f"--interval={interval}"]) == 2
        assert "--interval must be 0.1 to 3600 seconds" in capsys.readouterr().err


def test_ctrl_c_ends_the_watch_and_not_the_run(going_on, capsys, monkeypatch):
    monkeypatch.setattr(watch_module.time, "sleep", Mock(side_effect=KeyboardInterrupt))
    before = files(going_on)
    assert run_app(app, ["watch", str(going_on)]) == 130
    assert "goes on" in capsys.readouterr().out
    assert files(going_on) == before


def test_a_terminal_is_redrawn_in_place(going_on, monkeypatch):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80, height=12, legacy_windows=False)
    watched, looks = WatchedRun(going_on), []

    def sleep(seconds: float) -> None:
        looks.append(text.getvalue())
        if len(looks) == 3:
            change_json(going_on, status="finished")

    monkeypatch.setattr(watch_module.time, "sleep", sleep)
    watch_module._show(watched, 2.0, console)
    assert watched.status == "finished"
    shown = looks[-1][len(looks[-2]) :]
    assert shown.count("\n") < 11  # of twelve lines one is the cursor's
    assert "\x1b[2J" not in text.getvalue()
    assert "lines left out" in shown
