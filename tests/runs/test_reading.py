import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_runs import read_raw, write_fake_run, write_raw

from nls_tune.errors import InputError
from nls_tune.runs import load_run, load_runs
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_epochs, read_trials
from nls_tune.runs.schemas import epoch_schema, trial_schema


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("made") / "run", trials=8, unfinished=1, confirm_seeds=1)


@pytest.fixture
def run(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def set_json(run: Path, **changes) -> None:
    write_raw(run, **{**read_raw(run), **changes})


def part(run: Path, folder: str, index: int = 0) -> Path:
    return sorted(path for path in (run / folder).iterdir() if path.name != "empty.parquet")[index]


def test_a_whole_run_is_read_as_the_strict_readers_read_it(run):
    found = load_run(run)
    pd.testing.assert_frame_equal(found.trials, read_trials(run))
    pd.testing.assert_frame_equal(found.epochs, read_epochs(run))
    assert (found.path, found.name, found.status, found.problems) == (run, "run", "finished", ())
    assert found.content == RunDirectory(run).read_json()
    assert found.levels == ("symmetric:0.2", "symmetric:0.4")
    assert found.content.defaults == {"smooth_rate": -1.0, "warmup_epochs": 2, "lr": 0.003}


def test_a_part_that_cannot_be_used_is_one_problem_and_the_rest_is_read(run):
    whole = load_run(run)
    torn, lacking = (part(run, "trials", i) for i in range(2))
    torn.write_bytes(torn.read_bytes()[:-10])
    pq.write_table(pq.read_table(lacking).drop_columns(["lr"]), lacking)
    (run / "epochs" / "notes.parquet").write_bytes(b"no\nParquet")
    (run / "epochs" / "folder.parquet").mkdir()
    (run / "trials" / ".new.parquet").write_bytes(b"half of a fi")
    (run / "trials" / "readme.txt").write_text("not ours")
    found = load_run(run)
    assert set(whole.trials["trial_id"]) - set(found.trials["trial_id"]) == {torn.stem, lacking.stem}
    pd.testing.assert_frame_equal(found.epochs, whole.epochs)
    kinds = [
        ("cannot be read as Parquet", "restore it, or resume the run"),
        ("lacks the column lr", "it was not written by nls_tune"),
    ]
    for path, (kind, remedy), line in zip((torn, lacking), kinds, found.problems[:2], strict=True):
        assert line.startswith(f"trials/{path.name} {kind}")
        assert line.endswith(f": the row of trial {path.stem} is missing; {remedy}")
    assert [line.split()[0] for line in found.problems[2:]] == ["epochs/folder.parquet", "epochs/notes.parquet"]
    assert all(len(line.splitlines()) == 1 for line in found.problems)
    pd.testing.assert_frame_equal(read_trials(run), found.trials)


def test_rows_that_cannot_be_are_left_out_and_named(run):
    changes = {
        "arm": "<b>best</b>", "status": "won", "smooth_rate": np.nan, "lr": 0.0, "warmup_epochs": 20, "seed": -1,
        "last_test_accuracy": 1.5, "val_correct_at_best": b"\xff",
    }  # fmt: skip
    whole, names = load_run(run), []
    for index, (name, value) in enumerate(changes.items()):
        path = part(run, "trials", index)
        row = {**pq.read_table(path).to_pylist()[0], name: value}
        pq.write_table(pa.Table.from_pylist([row], schema=trial_schema()), path)
        names.append(f"row of trial {row['trial_id']} whose {name} cannot be")
    found = load_run(run)
    assert len(found.trials) == len(read_trials(run)) == len(whole.trials) - len(names)
    assert all(any(name in line for line in found.problems) for name in names)
    assert len(found.problems) == len(names)


def test_a_copy_of_a_part_counts_once_and_other_writers_columns_and_order_do_not_matter(run):
    whole = load_run(run)
    path = part(run, "trials", 1)
    table = pq.read_table(path)
    pq.write_table(table.select(table.column_names[::-1]).append_column("mine", pa.array([1])), path)
    assert load_run(run).problems == ()
    for folder in ("trials", "epochs"):
        path = part(run, folder)
        shutil.copy(path, path.with_name(f"{path.stem} (1).parquet"))
    found = load_run(run)
    pd.testing.assert_frame_equal(found.trials, whole.trials)
    pd.testing.assert_frame_equal(found.epochs, whole.epochs)
    length = len(pq.read_table(part(run, "epochs")))
    assert [line.split(",")[0] for line in found.problems] == [
        "trials/ has 1 rows twice",
        f"epochs/ has {length} rows twice",
    ]


def test_a_part_that_vanishes_while_it_is_read_was_removed(run, monkeypatch):
    gone, back = part(run, "trials", 0), part(run, "trials", 1)
    reads, looked = Path.read_bytes, []

    def read_bytes(path: Path) -> bytes:
        looked.append(path)
        if path == gone or (path == back and looked.count(back) == 1):
            raise FileNotFoundError(2, "No such file", str(path))
        return reads(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    found = load_run(run)
    assert found.problems == ()
    assert gone.stem not in set(found.trials["trial_id"])
    assert back.stem in set(found.trials["trial_id"])


@pytest.mark.parametrize("folder", ["trials", "epochs"])
def test_a_missing_folder_of_parts_is_a_problem(run, folder):
    shutil.rmtree(run / folder)
    found = load_run(run)
    assert [line.split(" (")[0] for line in found.problems] == [f"{folder}/ cannot be read"]
    frame, schema = (found.trials, trial_schema()) if folder == "trials" else (found.epochs, epoch_schema())
    assert frame.empty
    assert frame.columns.tolist() == schema.names


def test_a_run_that_died_before_its_first_trial_has_frames_without_rows(tmp_path):
    found = load_run(write_fake_run(tmp_path / "run", trials=0, status="running"))
    assert (found.status, found.problems, found.levels) == ("crashed", (), ("symmetric:0.2", "symmetric:0.4"))
    for frame, schema in ((found.trials, trial_schema()), (found.epochs, epoch_schema())):
        assert (frame.columns.tolist(), len(frame)) == (schema.names, 0)


# Status


@pytest.mark.parametrize("status", ["finished", "interrupted", "failed"])
def test_run_json_says_how_a_run_ended(run, status):
    set_json(run, status=status)
    with RunDirectory(run).lock():  # a finished run is asked to print its table again
        assert load_run(run).status == status


def test_a_run_goes_on_while_a_process_holds_it(run):
    set_json(run, status="running")
    assert load_run(run).status == "crashed"  # no lock file at all
    program = (
        "import sys, filelock\nwith filelock.FileLock(sys.argv[1]):\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        assert load_run(run).status == "running"
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
        with pytest.raises(InputError, match="another search"), RunDirectory(run).lock():
            pass
        holder.kill()
    assert load_run(run).status == "crashed"


def test_a_run_that_ends_between_two_looks_did_not_crash(run, monkeypatch):
    set_json(run, status="running")

    def ends(self: RunDirectory) -> bool:
        set_json(run, status="finished")
        return False

    monkeypatch.setattr(RunDirectory, "is_held", ends)
    assert load_run(run).status == "finished"


def test_a_search_does_not_mind_readers_that_look_at_its_lock(run):
    import fcntl
    import threading

    with RunDirectory(run).lock():
        pass
    with (run / ".lock").open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        assert not RunDirectory(run).is_held()  # another reader is no search
        left = []
        threading.Timer(0.1, lambda: left.append(fcntl.flock(reader, fcntl.LOCK_UN))).start()
        with RunDirectory(run).lock():
            assert left


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_that_cannot_be_written_is_read(run):
    set_json(run, status="running")
    (run / ".lock").touch()
    for path in (run / ".lock", run):
        path.chmod(0o555)
    assert load_run(run).status == "crashed"


# What is no run


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.write_text("x"), Path.mkdir], ids=["missing", "a file", "empty"]
)
def test_what_is_no_run_is_refused_in_one_line(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(InputError, match=r"x is not a run: it has no run\.json") as caught:
        load_run(tmp_path / "x")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"schema_version": 1, "sta',
        b"[]",
        b"\xff",
        b"[" * 200_000,
        b'{"schema_version": "1", "status": "finished"}',
        b'{"schema_version": null, "status": "finished"}',
        b'{"schema_version": 1}',
        b'{"schema_version": 1, "status": "won"}',
        b'{"schema_version": 1, "status": "finished", "plan": 3}',
        b'{"schema_version": 1, "status": "finished", "plan": [{"noise_level": "clean", "trials": {"ce": "x"}}]}',
        b'{"schema_version": 1, "status": "finished", "sessions": ["x"]}',
        b'{"schema_version": 1, "status": "finished", "identity": {"space": {"space": {"lr": 1}}}}',
    ],
    ids=range(13),
)
def test_a_run_json_that_makes_no_sense_is_refused_in_one_line(run, content):
    (run / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=r"run\.json cannot be read .*restore it or give another run") as caught:
        load_run(run)
    assert len(str(caught.value).splitlines()) == 1


def test_a_run_json_with_nothing_but_its_status_is_enough_and_a_newer_one_is_refused(run):
    write_raw(run)
    found = load_run(run)
    assert set(found.levels) == {"symmetric:0.2", "symmetric:0.4"}
    assert found.content.defaults == {}
    set_json(run, schema_version=2)
    with pytest.raises(InputError, match=r"schema version 2.*update nls_tune"):
        load_run(run)


# Several runs


def test_runs_of_one_name_are_told_apart_by_their_parents_and_each_is_given_once(made, tmp_path, monkeypatch):
    places = [tmp_path / place for place in ("a/same", "b/same", "b/x/same", "c/other", "b/link")]
    for place in places[:-1]:
        shutil.copytree(made, place)
    places[-1].symlink_to(shutil.copytree(made, tmp_path / "target"))
    found = load_runs(places)
    assert [run.name for run in found] == ["a/same", "b/same", "x/same", "other", "link"]
    assert [run.path for run in found] == places
    monkeypatch.chdir(tmp_path / "a" / "same")
    assert [run.name for run in load_runs([".", "../../c/other"])] == ["same", "other"]
    assert load_runs([]) == ()
    (tmp_path / "link").symlink_to(made)
    for again in (made, made / ".." / made.name, tmp_path / "link"):
        with pytest.raises(InputError, match="given twice"):
            load_runs([made, again])
