"""Runs behind a URL: read through a copy, and taken over by a search; what leads elsewhere is left alone."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_runs import write_fake_run

from nls_tune.errors import InputError
from nls_tune.runs import load_run, load_runs
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.owner import owned
from nls_tune.runs.reading import load_trials, read_epochs, read_trials
from nls_tune.runs.run_json import RunSession
from nls_tune.runs.storage import copies
from nls_tune.runs.storage.copies import copy_of_runs, local_copy, take_over
from nls_tune.runs.storage.files import local_files
from nls_tune.runs.storage.mirror import Mirror
from nls_tune.runs.storage.store import Store

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("written") / "run", trials=3, levels=("symmetric:0.4",))


@pytest.fixture
def run(written, tmp_path) -> RunDirectory:
    return RunDirectory(shutil.copytree(written, tmp_path / "here" / "run"))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(f"file://{tmp_path}/there/run")


def mirror(run: RunDirectory, store: Store) -> None:
    one = Mirror(run.path, store, print)
    one.start()
    assert one.close() == []


def with_sessions(run: RunDirectory, *numbers: int) -> None:
    content = run.read_json()
    content.sessions = [RunSession(started_at=BEGIN + timedelta(days=number)) for number in numbers]
    run.write_json(content)


def checkpoint(folder: Path, name: str, state: bytes = b"state") -> Path:
    place = folder / "checkpoints" / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "trial.json").write_text("{}")
    (place / "state.pt").write_bytes(state)
    return place


def test_a_run_is_read_from_its_url_as_from_its_folder(run, store):
    mirror(run, store)
    there, here = load_run(store.url), load_run(run.path)
    assert (there.name, there.status, there.problems, there.place) == ("run", "finished", (), store.shown)
    assert there.trials.equals(here.trials)
    assert there.epochs.equals(here.epochs)
    assert read_trials(store.url).equals(here.trials)
    assert read_epochs(store.url).equals(here.epochs)
    assert [one.place for one in load_runs([store.url, run.path])] == [store.shown, str(run.path)]
    with pytest.raises(InputError, match="is given twice"):
        load_runs([store.url, store.url])


def test_only_what_is_needed_and_has_changed_is_downloaded(run, store, monkeypatch):
    mirror(run, store)
    checkpoint(Path(store.url.removeprefix("file://")), "abc")
    monkeypatch.setattr(copies, "download", recorded := Recorded(copies.download))
    for path in Path(store.url.removeprefix("file://")).rglob("*.*"):
        settle(path)
    load_trials(store.url)
    assert {Path(name).parts[0] for name in recorded.names} == {"run.json", "trials"}
    recorded.names.clear()
    load_run(store.url)
    assert {Path(name).parts[0] for name in recorded.names} == {"epochs"}
    recorded.names.clear()
    store.remove(min(name for name in store.files() if name.startswith("trials/")))
    assert len(load_trials(store.url).trials) == 2
    assert recorded.names == []


class Recorded:
    """Notes what is downloaded."""

    def __init__(self, download):
        self._download, self.names = download, []

    def __call__(self, store, folder, files, **options):
        self.names += files
        self._download(store, folder, files, **options)


def settle(path: Path) -> None:
    os.utime(path, (BEGIN.timestamp(), BEGIN.timestamp()))


def test_who_holds_it_says_whether_it_goes_on(run, store):
    content = run.read_json()
    content.status = "running"
    run.write_json(content)
    mirror(run, store)
    with owned(store):
        assert load_run(store.url).status == "running"
    assert load_run(store.url).status == "crashed"


def test_there_is_no_run(store):
    with pytest.raises(InputError, match=r"there/run is not a run: it has no run\.json"):
        load_run(store.url)


def test_all_runs_below_a_url(run, store, tmp_path):
    mirror(run, store)
    shutil.copytree(tmp_path / "there" / "run", tmp_path / "there" / "deep" / "other")
    folder = copy_of_runs(f"file://{tmp_path}/there")
    assert sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("run.json")) == ["deep/other", "run"]
    assert not [*folder.rglob("epochs/*.parquet")]
    shutil.rmtree(tmp_path / "there" / "deep")
    assert len([*copy_of_runs(f"file://{tmp_path}/there").rglob("run.json")]) == 1


def test_a_half_file_is_named_and_counts_for_nothing(run, store):
    mirror(run, store)
    name = min(name for name in store.files() if name.startswith("trials/"))
    content = store.read(name)
    store.write(name, content[: len(content) // 2])
    (problem,) = load_run(store.url).problems
    assert name in problem
    # Nor does it replace a good one where a search goes on.
    with_sessions(run, 1)
    there = run.read_json()
    there.sessions.append(RunSession(started_at=BEGIN + timedelta(days=2)))
    store.write("run.json", there.text().encode())
    take_over(store, run, states=True)
    assert (run.path / name).read_bytes() == content
    assert load_run(run.path).problems == ()


@pytest.mark.parametrize("name", ["../../x", "trials/../../x.parquet", "/etc/x", "trials/..", "a/../run.json"])
def test_names_that_lead_elsewhere_are_left_alone(run, store, monkeypatch, tmp_path, name):
    mirror(run, store)
    files = store.files()
    evil = dict.fromkeys((name, f"{name}/run.json"), files["run.json"])
    monkeypatch.setattr(Store, "files", lambda self: {**files, **evil})
    monkeypatch.setattr(Store, "read", lambda self, name, read=Store.read: read(self, name) if name in files else b"x")
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    load_run(store.url)
    copy_of_runs(store.url)
    fresh = RunDirectory(tmp_path / "fresh")
    fresh.create()
    take_over(store, fresh, states=True)
    after = {path for path in tmp_path.rglob("*") if not {"cache", "fresh"} & {*path.parts}}
    assert after == before
    assert {*local_files(fresh.path)} == {*local_files(run.path)}
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.name in ("x", "x.parquet")]


class TestTakingOver:
    def test_an_empty_folder_gets_everything(self, run, store, tmp_path):
        checkpoint(run.path, "abc")
        mirror(run, store)
        fresh = RunDirectory(tmp_path / "fresh")
        fresh.create()
        known = take_over(store, fresh, states=True)
        assert {*local_files(fresh.path)} == {*local_files(run.path)} == known
        assert load_run(fresh.path).trials.equals(load_run(run.path).trials)
        assert (fresh.checkpoints / "abc" / "state.pt").read_bytes() == b"state"

    def test_an_empty_storage_takes_nothing_away(self, run, store):
        checkpoint(run.path, "abc")
        before = local_files(run.path)
        assert take_over(store, run, states=True) == set()
        assert local_files(run.path) == before

    def test_a_storage_that_is_ahead_replaces_what_is_here(self, run, store):
        with_sessions(run, 1, 2)
        checkpoint(run.path, "new", b"newer")
        mirror(run, store)
        with_sessions(run, 1)
        checkpoint(run.path, "new", b"older")
        checkpoint(run.path, "gone")
        take_over(store, run, states=True)
        assert len(run.read_json().sessions) == 2
        assert [path.name for path in run.checkpoints.iterdir()] == ["new"]
        assert (run.checkpoints / "new" / "state.pt").read_bytes() == b"newer"

    def test_a_folder_that_is_ahead_takes_only_what_it_lacks(self, run, store):
        with_sessions(run, 1)
        checkpoint(run.path, "abc", b"older")
        mirror(run, store)
        with_sessions(run, 1, 2)
        checkpoint(run.path, "abc", b"newer")
        lost = sorted(run.trials.glob("[!e]*.parquet"))[0]
        lost.unlink()
        assert take_over(store, run, states=True) == {f"trials/{lost.name}"}
        assert len(run.read_json().sessions) == 2
        assert (run.checkpoints / "abc" / "state.pt").read_bytes() == b"newer"

    def test_other_runs_and_runs_that_went_two_ways_are_refused(self, run, store, tmp_path):
        with_sessions(run, 1, 2)
        mirror(run, store)
        with_sessions(run, 1, 3)
        with pytest.raises(InputError, match="have both gone on without the other; give an empty --out"):
            take_over(store, run, states=True)
        other = RunDirectory(write_fake_run(tmp_path / "other", trials=3, seed=7))
        with pytest.raises(InputError, match=r"holds another run \(twonorm-fake-0\) than .*other \(twonorm-fake-7\)"):
            take_over(store, other, states=True)

    def test_on_a_cluster_states_are_behind_the_url_alone(self, run, store, tmp_path):
        checkpoint(run.path, "abc")
        take_over(store, run, states=False)
        assert store.read("checkpoints/abc/state.pt") == b"state"
        assert [path.name for path in (run.checkpoints / "abc").iterdir()] == ["trial.json"]
        mirror(run, store)
        fresh = RunDirectory(tmp_path / "fresh")
        fresh.create()
        take_over(store, fresh, states=False)
        assert [path.name for path in (fresh.checkpoints / "abc").iterdir()] == ["trial.json"]
        take_over(store, run, states=True)  # on one machine again
        assert (run.checkpoints / "abc" / "state.pt").read_bytes() == b"state"

    def test_a_run_json_that_is_not_one_is_refused(self, run, store):
        store.write("run.json", json.dumps({"schema_version": 1}).encode())
        with pytest.raises(InputError, match=r"there/run/run\.json cannot be read"):
            take_over(store, run, states=True)


def test_a_path_stays_a_path(tmp_path):
    assert local_copy(tmp_path) == tmp_path
    assert local_copy("a/b", "trials") == Path("a/b")
