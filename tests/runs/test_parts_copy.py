import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_runs import write_fake_run

from nls_tune.analysis.run_overviews import run_overviews
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs import load_run, parts_copy
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.parts import read_parts
from nls_tune.runs.parts_copy import COPY, SETTLED_NS, make_copy, read_folder
from nls_tune.runs.reading import load_trials, read_epochs, read_trials
from nls_tune.runs.schemas import epoch_schema, trial_schema
from nls_tune.session import session


def settle(run):
    """Make all parts older than what counts as just written."""
    for folder in (run.trials, run.epochs):
        for part in folder.glob("*.parquet"):
            then = part.stat().st_mtime_ns - 2 * SETTLED_NS
            os.utime(part, ns=(then, then))


@pytest.fixture(scope="module", autouse=True)
def _few_parts_are_many() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_copy, "LEAST_PARTS", 12)
        yield


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    path = tmp_path_factory.mktemp("copied") / "run"
    run = RunDirectory(write_fake_run(path, trials=6, epochs=4, num_val=40, num_test=40))
    settle(run)
    run.copy_parts()
    return run


@pytest.fixture
def run(copied, tmp_path):
    shutil.copytree(copied.path, tmp_path / "run")  # with the times of the files
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def opened(monkeypatch):
    """The names of the parts that are opened one by one."""
    names = []

    def counted(folder, schema, some=None):
        names.extend(sorted(path.name for path in folder.glob("*.parquet")) if some is None else some)
        return read_parts(folder, schema, some)

    monkeypatch.setattr(parts_copy, "read_parts", counted)
    return names


def same(run, schema=None):
    """Whether the copy and the parts give the same, the parts read without it."""
    for folder, whole in ((run.trials, trial_schema()), (run.epochs, epoch_schema())):
        found, expected = read_folder(folder, schema or whole), read_parts(folder, schema or whole)
        assert found.table.equals(expected.table, check_metadata=True)
        assert found.unread == expected.unread
        assert found.num_rows == expected.num_rows
        assert list(found.num_rows) == list(expected.num_rows)
    return True


def test_what_is_copied_is_read_without_a_part_and_by_nobody_else(run, opened):
    assert len(read_trials(run.path)) == 12
    assert len(load_run(run.path).epochs) == len(read_epochs(run.path)) > 12
    assert opened == []
    assert same(run)
    for folder in ("trials", "epochs"):  # readers that do not know of the copy have each row once
        frame = pd.read_parquet(run.path / folder)
        assert len(frame) == len(frame.drop_duplicates(["trial_id"] + ["epoch"] * (folder == "epochs")))


def test_parts_that_came_changed_or_went_count_as_they_are_now(run, opened):
    first, second, third, *_ = sorted(part for part in run.trials.glob("*.parquet") if part.stem != "empty")
    (row,) = pq.read_table(first, partitioning=None).to_pylist()
    run.write_trial({**row, "status": "failed", "error": "changed"})
    run.write_trial({**row, "trial_id": "0" * 16})
    second.unlink()
    third.write_bytes(third.read_bytes()[:-50])
    found = load_run(run.path)
    assert sorted(opened) == ["0" * 16 + ".parquet", first.name, third.name]
    assert found.trials.set_index("trial_id")["error"][first.stem] == "changed"
    assert {"0" * 16, first.stem} < set(found.trials["trial_id"])
    assert not {second.stem, third.stem} & set(found.trials["trial_id"])
    assert len(found.trials) == 12 - 1
    assert len(found.problems) == 1
    assert third.name in found.problems[0]
    assert same(run)
    settle(run)
    run.copy_parts()  # from the earlier copy and the parts that it lacks
    opened.clear()
    assert same(run)
    assert opened == [third.name]


def test_a_part_replaced_by_one_of_the_same_size_and_time_counts_only_if_it_was_settled(run):
    part = next(part for part in run.trials.glob("*.parquet") if part.stem != "empty")
    (row,) = pq.read_table(part, partitioning=None).to_pylist()
    run.write_trial(row)  # a moment ago: the next one might have the same time
    run.copy_parts()
    before = part.stat()
    run.write_trial({**row, "seed": row["seed"] + 1})
    assert part.stat().st_size == before.st_size
    os.utime(part, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert read_trials(run.path).set_index("trial_id")["seed"][part.stem] == row["seed"] + 1
    assert same(run)


@pytest.mark.parametrize("damage", ["torn", "other", "older", "folder"])
def test_a_copy_that_cannot_be_used_is_none(run, opened, damage):
    copy = run.trials / COPY
    content, table = copy.read_bytes(), pq.ParquetFile(copy).read()
    copy.unlink()
    if damage == "torn":
        copy.write_bytes(content[: len(content) // 2])
    elif damage == "other":
        pq.write_table(pa.table({"a": [1]}), copy)
    elif damage == "older":
        older = {**table.schema.metadata, b"nls_tune.schema_version": b"0"}
        pq.write_table(table.replace_schema_metadata(older), copy)
    else:
        copy.mkdir()
    assert same(run)
    assert len(opened) == 13
    run.copy_parts()
    opened.clear()
    assert same(run)
    assert bool(opened) == (damage == "folder")


def test_few_parts_are_not_copied(tmp_path):
    run = RunDirectory(write_fake_run(tmp_path / "run", trials=3, epochs=4, num_val=8, num_test=8))
    settle(run)
    run.copy_parts()
    assert not list(run.path.rglob(COPY))
    assert make_copy(run.trials, trial_schema()) is None


def test_the_list_of_runs_reads_no_epochs(run):
    (before,) = run_overviews(run.path)
    whole, found = load_run(run.path), load_trials(run.path)
    assert found.epochs.empty
    assert list(found.epochs.columns) == list(whole.epochs.columns)
    pd.testing.assert_frame_equal(found.trials, whole.trials)
    shutil.rmtree(run.epochs)
    assert run_overviews(run.path) == (before,)


@pytest.mark.parametrize(
    ("ended_by", "confirmed", "is_copied"),
    [("trials", "finished", True), ("time_budget", "finished", True), ("trials", "interrupted", False),
     ("interrupted", "finished", False)],
)  # fmt: skip
def test_a_session_copies_what_has_finished_and_nothing_on_the_way(run, monkeypatch, ended_by, confirmed, is_copied):
    for folder in (run.trials, run.epochs):
        (folder / COPY).unlink()
    monkeypatch.setattr("nls_tune.session.searching.execute", lambda *arguments: ended_by)
    monkeypatch.setattr("nls_tune.session.confirming.confirm", lambda *arguments, **options: confirmed)
    settings = check_search_settings(dataset="twonorm", out=run.path, num_trials=4, train_size=500)
    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "is_complete", lambda self: False)
        patch.setattr("nls_tune.tune.starting.ray_session", lambda address: nullcontext({"CPU": 1.0}))
        run.run_json.unlink()
        assert session.run_settings(settings, None).status == ("finished" if is_copied else "interrupted")
    assert [(folder / COPY).exists() for folder in (run.trials, run.epochs)] == [is_copied] * 2
