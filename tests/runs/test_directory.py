import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_runs import read_raw, write_raw
from trial_rows import trial_row

from nls_tune.errors import InputError
from nls_tune.files import write_atomically
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.parts import DEFAULT_KEY, SEAL_KEY, VERSION_KEY, read_parts
from nls_tune.runs.reading import read_epochs, read_trials
from nls_tune.runs.run_json import RunJson
from nls_tune.runs.schemas import epoch_schema, settings_of, trial_schema, unpack_correct
from nls_tune.spaces.settings import TrainingSettings

TRIAL_COLUMNS, EPOCH_COLUMNS = trial_schema().names, epoch_schema().names
NULLABLE = [field.name for field in trial_schema() if field.nullable]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    return directory


def epoch_row(**changes: Any) -> dict[str, Any]:
    row = {
        "run_id": "r", "trial_id": "t", "noise_level": "clean", "arm": "ce", "smooth_rate": 0.0, "node": "n",
        "device": "d", "epoch": 1, "phase": "gls", "lr": 0.1, "train_loss": 0.7, "train_accuracy": 0.5,
        "val_loss": 0.6, "val_accuracy": 0.5, "test_accuracy": None, "diverged": False, "seconds": 0.1,
        "peak_memory_bytes": 2**40, "average_val_accuracies": [0.5, 0.25], "val_balanced_accuracy": 0.375,
        "val_macro_f1": 0.25, "test_balanced_accuracy": None, "test_macro_f1": None,
        "average_val_balanced_accuracies": [0.5, 0.125], "average_val_macro_f1s": [0.375, 0.25],
    }  # fmt: skip
    return {**row, **changes}


# Rows


def full_row(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    settings = {"smooth_rate": -2.5, "milestones": (3, 5), "schedule": "step", "seed": 2**62}
    changes = {"error": "a 'quoted' error", "estimated_noise_rate": 0.38, "slot": 1, **changes}
    return trial_row(settings, val_correct=rng.random(21) < 0.5, test_correct=rng.random(16) < 0.5, **changes)


def empty_row() -> dict[str, Any]:
    return trial_row(**dict.fromkeys(NULLABLE), status="failed", epochs=0, minute=1, stage="confirm")


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value is None or (np.isscalar(value) and pd.isna(value)) else value


def test_rows_survive_writing_and_reading_by_pandas_and_duckdb(run):
    rows = [full_row(), empty_row()]
    for row in rows:
        run.write_trial(row)
    for frame in (read_trials(run.path), pd.read_parquet(run.trials).sort_values("started_at")):
        assert list(frame.columns) == TRIAL_COLUMNS
        assert [{k: plain(v) for k, v in found.items()} for found in frame.to_dict("records")] == rows
    query = f"SELECT * EXCLUDE (started_at, finished_at) FROM '{run.trials}/*.parquet' ORDER BY started_at"
    found = duckdb.sql(query).fetchall()
    names = [n for n in TRIAL_COLUMNS if not n.endswith("ed_at")]
    back = [dict(zip(names, values, strict=True)) for values in found]
    assert back == [{n: row[n] for n in names} for row in rows]
    assert [settings_of(row) for row in back] == [settings_of(row) for row in rows]


def test_trials_come_in_the_order_in_which_they_started_with_one_bit_per_sample(run):
    correct = np.random.default_rng(1).random(21) < 0.5
    for lr, minute in ((0.1, 3), (0.2, 1), (0.3, 2)):
        run.write_trial(trial_row({"lr": lr}, minute=minute, val_correct=correct))
    trials = read_trials(run.path)
    assert trials["lr"].tolist() == [0.2, 0.3, 0.1]
    assert (unpack_correct(trials["val_correct_at_best"][0], 21) == correct).all()


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (trial_row(colour="red"), "colour"),
        ({name: value for name, value in trial_row().items() if name != "lr"}, "lr"),
        (trial_row(lr=None), "lr"),
        (trial_row(started_at=None), "started_at"),
    ],
)
def test_a_row_with_other_columns_or_a_null_where_none_may_be_is_refused(run, row, named):
    with pytest.raises((ValueError, pa.ArrowException), match=named):
        run.write_trial(row)
    assert read_trials(run.path).empty


def test_epochs_come_trial_by_trial(run):
    run.write_epochs([epoch_row(trial_id="b", epoch=e, test_accuracy=0.5) for e in (1, 2)])
    not_finite = {"train_loss": float("inf"), "val_loss": float("nan")}
    run.write_epochs([epoch_row(trial_id="a", epoch=e, diverged=e == 2, **not_finite) for e in (1, 2)])
    frame = read_epochs(run.path)
    assert list(frame.columns) == EPOCH_COLUMNS
    assert list(zip(frame["trial_id"], frame["epoch"], strict=True)) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert frame["test_accuracy"].isna().tolist() == [True, True, False, False]
    assert frame["diverged"].dtype == bool
    assert frame.iloc[0]["peak_memory_bytes"] == 2**40
    assert frame.iloc[0]["train_loss"] == np.inf
    assert np.isnan(frame.iloc[0]["val_loss"])


def test_rows_of_a_trial_are_replaced_whole(run):
    for status in ("interrupted", "completed"):
        run.write_trial(trial_row(status=status))
    assert read_trials(run.path)["status"].tolist() == ["completed"]
    run.write_epochs([epoch_row(epoch=1), epoch_row(epoch=2)])
    run.write_epochs([epoch_row(epoch=1)])
    assert len(read_epochs(run.path)) == 1


# The folder


def test_a_run_is_readable_before_its_first_trial_with_the_types_of_later(run):
    for frame, columns in (
        (read_trials(run.path), TRIAL_COLUMNS),
        (pd.read_parquet(run.trials), TRIAL_COLUMNS),
        (read_epochs(run.path), EPOCH_COLUMNS),
        (pd.read_parquet(run.epochs), EPOCH_COLUMNS),
    ):
        assert frame.empty
        assert list(frame.columns) == columns
    before = read_trials(run.path).dtypes
    run.write_trial(full_row())
    after = read_trials(run.path).dtypes
    assert before["lr"] == after["lr"] == np.float64
    assert before["started_at"] == after["started_at"]
    assert str(after["started_at"].tz) == "UTC"
    run.write_json(RunJson(schema_version=1, status="finished"))
    RunDirectory(run.path).create()  # keeps what is there
    assert len(read_trials(run.path)) == 1


@pytest.mark.parametrize("existing", ["nothing", "empty", "begun", "killed"])
def test_a_run_may_begin_in_an_empty_or_a_begun_folder(tmp_path, existing):
    directory = RunDirectory(tmp_path / "a" / "b")
    if existing == "empty":
        directory.path.mkdir(parents=True)
    if existing in ("begun", "killed"):
        directory.create()
        with directory.lock():
            pass
    if existing == "killed":
        # The process was killed while it wrote run.json for the first time.
        (directory.path / ".run.json.123.tmp").write_bytes(b"{")
    RunDirectory(directory.path).create()
    assert read_trials(directory.path).empty


def test_a_place_that_cannot_be_a_run_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("x")
    for place in ("file", "file/run", "foreign"):
        with pytest.raises(InputError, match=r"--out must be .*give another place") as caught:
            RunDirectory(tmp_path / place).create()
        assert place in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert [p.name for p in (tmp_path / "foreign").iterdir()] == ["thesis.tex"]


def test_paths_are_absolute_and_know_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert RunDirectory("runs/x").path == tmp_path / "runs" / "x"
    assert RunDirectory("~/x").path == tmp_path / "home" / "x"


def test_a_run_is_held_by_one_search_until_that_ends_whether_it_failed_or_not(run):
    other = RunDirectory(run.path)
    with run.lock(), pytest.raises(InputError, match=f"another search is writing to {run.path}"), other.lock():
        pass
    with pytest.raises(KeyError), other.lock():
        raise KeyError
    with run.lock():
        pass


@pytest.mark.filterwarnings("error")  # users would read them above the one line
def test_a_run_is_held_by_its_lock_file_where_the_system_has_no_locks(run, monkeypatch):
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(errno.ENOSYS, "Function not implemented")))
    other = RunDirectory(run.path)
    assert not other.is_held()
    with run.lock():
        assert other.is_held()
        with pytest.raises(InputError, match="if no search runs, remove ") as caught, other.lock():
            pass
    assert str(caught.value).endswith(str(run.path / ".lock"))
    assert not other.is_held()
    # Left behind by a process that was killed on another machine.
    (run.path / ".lock").write_text("999999\nanother\n")
    with pytest.raises(InputError, match="if no search runs, remove "), other.lock():
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_run_is_held_by_who_says_so_where_the_file_system_has_no_locks(run, monkeypatch, number):
    """NFS without its lock service, and some file systems in user space."""
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(number, os.strerror(number))))
    other = RunDirectory(run.path)
    with run.lock():
        assert other.is_held()
        with pytest.raises(InputError, match=rf"another search \(process {os.getpid()} on "), other.lock():
            pass
    assert not other.is_held()
    with other.lock():
        pass


def test_a_lock_that_fails_otherwise_is_an_error(run, monkeypatch):
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error"), run.lock():
        pass


# The next session


def test_what_killed_processes_left_is_removed_and_what_living_ones_write_stays(run):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        (run.checkpoints / "abc").mkdir()
        for folder in (run.path, run.trials, run.epochs, run.checkpoints / "abc"):
            for process in (2**22 + 1, os.getpid(), living.pid):
                (folder / f".x.parquet.{process}.tmp").write_bytes(b"half of")
            (folder / ".mine.tmp").write_bytes(b"")
        assert run.tidy() == []
        kept = {f".x.parquet.{living.pid}.tmp", ".mine.tmp"}
        for folder in (run.trials, run.epochs, run.checkpoints / "abc"):
            assert {path.name for path in folder.iterdir()} - {"empty.parquet"} == kept
        living.communicate(b"\n")


def test_damaged_parts_are_set_aside_and_named_and_pandas_reads_the_rest(run):
    rows = [trial_row({"lr": lr}) for lr in (0.1, 0.2, 0.3)]
    for row in rows:
        run.write_trial(row)
    run.write_epochs([epoch_row()])
    torn, changed, whole = (run.trials / f"{row['trial_id']}.parquet" for row in rows)
    torn.write_bytes(torn.read_bytes()[:-100])
    changed.write_bytes(changed.read_bytes().replace(b"completed", b"comple?ed"))
    settings = settings_of(rows[1])
    (run.epochs / "t.parquet").write_bytes(b"")
    (run.trials / "empty.parquet").write_bytes(b"")
    lines = run.tidy()
    assert sorted(lines[:2]) == sorted(
        f"trials/{part.name} is not what was written and is set aside as .{part.name}.damaged: "
        "its trial is trained again, or another one if its settings cannot be read"
        for part in (torn, changed)
    )
    assert [line.split(" is set aside")[0] for line in lines[2:]] == ["epochs/t.parquet is not what was written and"]
    assert (
        pd.read_parquet(run.trials)["trial_id"].tolist() == read_trials(run.path)["trial_id"].tolist() == [whole.stem]
    )
    assert pd.read_parquet(run.epochs).empty
    begun = [TrialCheckpoint(folder).read_trial() for folder in run.checkpoints.iterdir()]
    assert [(trial.trial_id, trial.settings) for trial in begun if trial] == [(changed.stem, settings)]
    run.write_trial(rows[0])
    assert run.tidy() == []
    assert len(read_trials(run.path)) == 2


# What readers do with what they find


def test_temporary_files_are_not_read(run):
    run.write_trial(trial_row())
    for folder in (run.trials, run.epochs):
        (folder / ".0123.parquet.99.tmp").write_bytes(b"half of")
        (folder / ".hidden.parquet").write_bytes(b"half of")
    assert len(read_trials(run.path)) == len(pd.read_parquet(run.trials)) == 1
    assert read_epochs(run.path).empty


def torn(keep: int):
    return lambda part: part.write_bytes(part.read_bytes()[:keep])


def rewritten(change):
    """Change a part as another program would, which writes no checksum."""

    def rewrite(part):
        table = change(pq.read_table(part, partitioning=None))
        metadata = {k: v for k, v in (table.schema.metadata or {}).items() if k != SEAL_KEY}
        pq.write_table(table.replace_schema_metadata(metadata), part)

    return rewrite


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        *((torn(keep), "cannot be read as Parquet") for keep in (0, 3, 200)),
        (torn(-5), "is not what was written"),
        (rewritten(lambda t: t.replace_schema_metadata({"nls_tune.schema_version": "99"})),
         "schema version 99, this nls_tune reads 1"),
        (rewritten(lambda t: pa.table({"a": [1]})), "schema version 0"),
        (rewritten(lambda t: t.drop_columns(["val_loss"])), "lacks the column val_loss"),
        (rewritten(lambda t: t.set_column(t.schema.get_field_index("lr"), "lr", pa.array(["fast"]))), "fast"),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_used_is_named_once_and_left_out(run, spoil, said, caplog):
    run.write_epochs([epoch_row(trial_id="good")])
    run.write_epochs([epoch_row()])
    spoil(run.epochs / "t.parquet")
    for _ in range(2):
        assert read_epochs(run.path)["trial_id"].tolist() == ["good"]
    (line,) = caplog.messages
    assert said in line
    assert line.startswith(f"{run.path}: epochs/t.parquet ")
    assert len(line.splitlines()) == 1


def test_columns_that_came_later_are_filled_with_their_defaults(run):
    run.write_trial(full_row())
    run.write_trial(empty_row())
    later = {f"config_{name}": default for name, default in TrainingSettings.later_defaults().items()}
    later["config_average_spans"] = []
    later |= dict.fromkeys(n for n in TRIAL_COLUMNS if n.startswith(("readout", "plain_", "average_", "mirrored_")))
    rewritten(lambda t: t.drop_columns(["slot", *later]))(run.trials / f"{full_row()['trial_id']}.parquet")
    trials = read_trials(run.path)
    assert list(trials.columns) == TRIAL_COLUMNS
    assert trials["slot"].isna().all()
    row = {name: plain(value) for name, value in trials.iloc[0].items() if name not in ("started_at", "finished_at")}
    expected = {name: plain(full_row()[name]) for name in row} | {"slot": None} | later
    assert row == expected


def test_epochs_of_an_early_version_have_neither_averages_nor_metrics_besides_accuracy(run):
    run.write_epochs([epoch_row()])
    later = EPOCH_COLUMNS[EPOCH_COLUMNS.index("average_val_accuracies") :]
    rewritten(lambda t: t.drop_columns(later))(run.epochs / "t.parquet")
    epochs = read_epochs(run.path)
    assert list(epochs.columns) == EPOCH_COLUMNS
    for name in later:
        (found,) = epochs[name]
        assert list(found) == [] if name.startswith("average") else np.isnan(found)


@pytest.mark.parametrize(
    ("kind", "default"), [(pa.float64(), 0.5), (pa.string(), "zeros"), (pa.bool_(), False), (pa.list_(pa.int64()), [2])]
)
def test_a_later_column_of_any_type_is_filled(tmp_path, kind, default):
    field = pa.field("later", kind, nullable=False, metadata={DEFAULT_KEY: json.dumps(default)})
    schema = pa.schema([field, pa.field("last", pa.int64())], metadata={VERSION_KEY: b"0"})
    for name in ("a", "b"):  # of the same schema, which is remembered
        pq.write_table(pa.table({"last": [7, 8]}), tmp_path / f"{name}.parquet")
    assert read_parts(tmp_path, schema).table.to_pylist() == [{"later": default, "last": n} for n in (7, 8, 7, 8)]


@pytest.mark.parametrize("read", [read_trials, read_epochs])
def test_a_folder_that_is_no_run_is_named(tmp_path, read):
    with pytest.raises(InputError, match=f"{tmp_path / 'none'} is not a run"):
        read(tmp_path / "none")


# run.json


def test_run_json_survives_writing_and_reading(run):
    content = RunJson.model_validate(
        {"schema_version": 1, "status": "finished", "run_id": "Größe", "nested": {"a": [1, None, 0.1]}}
    )
    run.write_json(content)
    assert run.read_json() == content
    run.write_json(run.read_json())
    assert run.read_json() == content
    stored = json.loads(run.run_json.read_text(encoding="utf-8"))
    assert (stored["run_id"], stored["nested"]) == ("Größe", {"a": [1, None, 0.1]})  # what is not known is kept


def test_a_run_json_that_was_changed_is_refused_unless_its_seal_is_removed(run):
    run.write_json(RunJson.model_validate({"schema_version": 1, "status": "finished", "run_id": "first"}))
    text = run.run_json.read_text(encoding="utf-8").replace('"first"', '"worst"')
    run.run_json.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r'its checksum differs.*remove its entry "seal"'):
        run.read_json()
    write_raw(run.path, **read_raw(run.path))
    assert run.read_json().run_id == "worst"


@pytest.mark.parametrize("section", ["sessions", "plan", "identity", "verdicts"])
def test_a_null_section_is_one_line(run, section):
    write_raw(run.path, **{section: None})
    with pytest.raises(InputError, match=rf"run.json cannot be read \({section}: .*restore it"):
        run.read_json()


# Writing


def test_a_file_is_replaced_whole_and_a_write_that_fails_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    for content in (b"old and long", b"new"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"newer")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
