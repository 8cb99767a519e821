"""The mirror: what is uploaded and in which order, and what happens where the storage is away."""

import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from fake_runs import write_fake_run

from nls_tune.runs.checkpoint import StoredCheckpoint, TrialCheckpoint
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.storage import mirror as mirror_module
from nls_tune.runs.storage.files import local_files
from nls_tune.runs.storage.mirror import Mirror
from nls_tune.runs.storage.store import Store
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.spaces.settings import TrainingSettings


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    for name, seconds in {"_LOOK": 0.02, "_AGAIN": 0.05, "_LAST_TRIES": 0.3}.items():
        monkeypatch.setattr(mirror_module, name, seconds)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("written") / "run", trials=3, levels=("symmetric:0.4",))


@pytest.fixture
def run(written, tmp_path) -> RunDirectory:
    return RunDirectory(shutil.copytree(written, tmp_path / "run"))


class Line(Store):
    """A storage whose line can be cut; it notes what was written."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.is_cut, self.written, self.lock = False, list[str](), threading.Lock()

    def write(self, name, content):
        if self.is_cut:
            raise OSError("AWS Error NETWORK_CONNECTION during PutObject operation")
        with self.lock:
            self.written.append(name)
        super().write(name, content)


@pytest.fixture
def line(tmp_path) -> Line:
    return Line(f"file://{tmp_path}/there")


def wait(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_everything_of_a_run_is_there_and_nothing_else(run, line):
    folder = run.warmups / "key"
    folder.mkdir(parents=True)
    for path in (folder / "epoch-0003.pt", folder / ".lock", run.path / "notes.txt", run.path / "report.html"):
        path.write_text("x")
    (run.trials / ".half.parquet.1.tmp").write_text("x")
    (run.path / "tune").mkdir()
    (run.path / "tune" / "state.json").write_text("x")
    mirror = Mirror(run.path, line, print)
    mirror.start()
    assert mirror.close() == []
    found = {*line.files()}
    assert found == {*local_files(run.path)}
    assert {"run.json", "report.html", "warmups/key/epoch-0003.pt", "trials/empty.parquet"} < found
    assert not any(name in " ".join(found) for name in ("notes", "lock", "half", "tune/"))
    for name in found:
        assert line.read(name) == (run.path / name).read_bytes()


def test_a_storage_can_be_gone_on_from_at_any_moment(run, line):
    TrialCheckpoint(run.checkpoints / "abc").start(TrialSpec("abc", "clean", "search", TrainingSettings()))
    Mirror(run.path, line, print).upload()
    parts = [name.partition("/")[0] for name in line.written]
    assert parts == sorted(parts, key=("epochs", "trials", "run.json", "checkpoints").index)


def test_only_what_changes_is_uploaded_again_and_what_is_known_never(run, line):
    known = {name for name in local_files(run.path) if name.startswith("epochs/")}
    mirror = Mirror(run.path, line, print, known)
    mirror.upload()
    assert {name.partition("/")[0] for name in line.written} == {"trials", "run.json"}
    line.written.clear()
    mirror.upload()
    assert line.written == []
    run.write_json(run.read_json())
    mirror.upload()
    assert line.written == ["run.json"]


def test_a_checkpoint_goes_with_its_folder_also_a_state_that_a_node_wrote(run, line):
    checkpoint = TrialCheckpoint(run.checkpoints / "abc")
    checkpoint.start(TrialSpec("abc", "clean", "search", TrainingSettings()))
    mirror = Mirror(run.path, line, print)
    mirror.upload()
    line.write("checkpoints/abc/state.pt", b"of a node")
    line.write("checkpoints/other/state.pt", b"of a trial that this process does not know")
    mirror.upload()
    assert "checkpoints/abc/state.pt" in line.files()
    checkpoint.remove()
    shutil.rmtree(run.trials)  # whatever happens to the rows here, those there stay
    mirror.upload()
    assert [name for name in line.files() if "checkpoints" in name] == ["checkpoints/other/state.pt"]
    assert [name for name in line.files() if "trials" in name]


def test_a_storage_that_goes_away_is_said_once_and_gets_the_rest_later(run, line):
    said: list[str] = []
    mirror = Mirror(run.path, line, said.append)
    line.is_cut = True
    mirror.start()
    wait(lambda: said)
    run.write_json(run.read_json())
    time.sleep(0.2)
    assert len(said) == 1
    assert "lacks a part of this run (it cannot be reached); the search goes on" in said[0]
    line.is_cut = False
    wait(lambda: "run.json" in line.files())
    assert mirror.close() == []
    assert len(said) == 1
    assert {*line.files()} == {*local_files(run.path)}


def test_what_could_not_be_uploaded_is_named(run, line):
    mirror = Mirror(run.path, line, print)
    mirror.start()
    wait(lambda: len(line.files()) == len(local_files(run.path)))
    line.is_cut = True
    run.write_json(run.read_json())
    assert mirror.close() == ["run.json"]
    assert mirror.reason == "it cannot be reached"


def test_a_file_that_goes_while_it_is_uploaded_is_no_error(run, line, monkeypatch):
    mirror = Mirror(run.path, line, print)
    found = local_files(run.path)
    monkeypatch.setattr(mirror_module, "local_files", lambda folder: found)
    (run.path / next(name for name in found if name.startswith("epochs/"))).unlink()
    mirror.upload()
    assert len(line.files()) == len(found) - 1


class TestStatesOfNodes:
    @pytest.fixture
    def checkpoint(self, line) -> StoredCheckpoint:
        line.write("checkpoints/abc/trial.json", b"{}")
        return StoredCheckpoint(line, "abc")

    def test_the_newest_state_is_there_for_another_node(self, checkpoint, line):
        assert checkpoint.load(torch.device("cpu")) is None
        for epoch in range(5):
            checkpoint.save({"epoch": epoch})
        checkpoint.close()
        assert StoredCheckpoint(line, "abc").load(torch.device("cpu")) == {"epoch": 4}
        assert checkpoint.place == line.shown

    def test_nothing_is_written_once_the_trial_has_ended(self, checkpoint, line):
        line.remove("checkpoints/abc/trial.json")
        checkpoint.save({"epoch": 1})
        checkpoint.close()
        assert line.files() == {}

    def test_one_that_ends_while_its_state_is_uploaded_leaves_nothing(self, checkpoint, line, monkeypatch):
        def write(self, name, content, write=Line.write):
            write(self, name, content)
            self.remove("checkpoints/abc/trial.json")

        monkeypatch.setattr(Line, "write", write)
        checkpoint.save({"epoch": 1})
        checkpoint.close()
        assert line.files() == {}

    def test_an_upload_that_fails_is_said_by_the_next_save(self, checkpoint, line):
        line.is_cut = True
        checkpoint.save({"epoch": 1})
        wait(lambda: checkpoint._error)
        line.is_cut = False
        with pytest.raises(OSError, match="NETWORK_CONNECTION"):
            checkpoint.save({"epoch": 2})
        checkpoint.close()
        assert StoredCheckpoint(line, "abc").load(torch.device("cpu")) == {"epoch": 2}
