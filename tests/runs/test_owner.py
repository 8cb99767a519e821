"""Who holds a run, where the locks of a file system do nothing."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from nls_tune.errors import InputError
from nls_tune.runs import directory, owner
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.owner import living_owner, owned


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    """A run on a file system that accepts every lock."""
    monkeypatch.setattr(directory, "FileLock", lambda path: ExitStack())
    monkeypatch.setattr(ExitStack, "acquire", lambda self, timeout: None, raising=False)
    monkeypatch.setattr(ExitStack, "release", lambda self: None, raising=False)
    found = RunDirectory(tmp_path / "run")
    found.create()
    return found


def test_a_second_process_is_refused_without_locks(run):
    with (
        run.lock(),
        pytest.raises(InputError, match=rf"another search \(process {os.getpid()} on .*\) is writing to"),
        run.lock(),
    ):
        pytest.fail("held twice")
    with run.lock():
        pass
    assert not list(run.path.glob(".owner*"))


def test_a_reader_sees_that_the_run_is_held(run):
    (run.path / ".lock").touch()
    assert not run.is_held()
    with run.lock():
        assert run.is_held()
    assert not run.is_held()


def test_one_that_was_killed_holds_nothing(run):
    code = (
        "import sys, os, pathlib; from nls_tune.runs.owner import owned\n"
        "with owned(pathlib.Path(sys.argv[1])): os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=False)
    assert (run.path / ".owner").exists()
    assert living_owner(run.path) is None
    with run.lock():
        assert json.loads((run.path / ".owner").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(("age", "alive"), [(5, True), (60, True), (1000, False)])
def test_on_another_machine_its_last_sign_of_life_counts(run, age, alive):
    file = run.path / ".owner"
    file.write_text(json.dumps({"host": "elsewhere", "boot": "b", "container": "c", "pid": 1, "started": "2"}))
    os.utime(file, (time.time() - age, time.time() - age))
    found = living_owner(run.path)
    assert (found is not None) == alive
    if found:
        assert found.startswith("process 1 on elsewhere, heard of ")


def test_it_gives_signs_of_life(run, monkeypatch):
    monkeypatch.setattr(owner, "_BEAT", 0.02)
    with owned(run.path):
        file = run.path / ".owner"
        os.utime(file, (0, 0))
        deadline = time.monotonic() + 20
        while file.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert file.stat().st_mtime > 0


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x"}', "[" * 100_000])
def test_a_file_that_says_nothing_holds_nothing_for_long(run, text):
    file = run.path / ".owner"
    file.write_text(text)
    os.utime(file, (0, 0))
    assert living_owner(run.path) is None
