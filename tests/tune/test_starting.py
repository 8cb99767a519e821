"""How Ray is started for a search; Ray itself is played here."""

import logging
import os
import signal
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import ray_constants

from nls_tune import InputError
from nls_tune.tune import starting
from nls_tune.tune.starting import ray_folder, ray_session

pytestmark = pytest.mark.slow
SLOW = Exception("The current node timed out during startup. This could happen because some of the raylet failed.")


class Played:
    """A Ray that fails as often as it is told to, and notes what it sees when it starts."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.tries = 0
        self.seen: dict[str, Any] = {}
        self.running = False

    def init(self, **arguments: Any) -> None:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        self.running = True
        token = os.environ.get("RAY_AUTH_TOKEN_PATH")
        self.seen = {
            **arguments,
            "clusters": ray_constants.ENABLE_RAY_CLUSTER,
            "token": Path(token).read_text() if token else None,
            "mode": stat.S_IMODE(Path(token).stat().st_mode) if token else None,
            "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            "environment": dict(os.environ),
        }
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray sets one of its own


@pytest.fixture
def played(monkeypatch) -> Played:
    found = Played()
    monkeypatch.setattr(ray, "is_initialized", lambda: found.running)
    monkeypatch.setattr(ray, "init", found.init)
    monkeypatch.setattr(ray, "shutdown", lambda: setattr(found, "running", False))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_a_private_ray_listens_here_only_has_a_token_of_its_own_and_touches_no_home(played, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    tmp_path.chmod(0o500)
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    for mode in (None, "token"):  # as a Ray that ended in this process has left it
        if mode is not None:
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
            before["RAY_AUTH_MODE"] = mode
        with ray_session(None):
            seen = played.seen
            assert signal.getsignal(signal.SIGTERM) == handler
        assert os.environ.get("RAY_AUTH_MODE") == mode
    assert (seen["clusters"], seen["include_dashboard"], len(seen["token"]), seen["mode"]) == (False, False, 64, 0o600)
    assert ray_constants.ENABLE_RAY_CLUSTER
    left = {name: value for name, value in os.environ.items() if before.get(name) != value}
    assert set(left) <= set(starting._ALWAYS)  # which are for the whole process
    assert list(tmp_path.iterdir()) == []


def test_a_token_of_the_users_is_used(played, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    with ray_session(None):
        assert played.seen["token"] is None
        assert played.seen["environment"]["RAY_AUTH_TOKEN"] == "a" * 64


def test_its_processes_do_not_heed_signals_to_the_whole_job_and_this_one_does(played):
    with ray_session(None):
        assert {signal.SIGTERM, signal.SIGHUP} <= played.seen["blocked"]
        assert not {signal.SIGTERM, signal.SIGHUP} & signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_slow_start_is_tried_again(played):
    played.errors = [SLOW, SLOW]
    with ray_session(None):
        assert played.tries == 3


@pytest.mark.parametrize(
    ("errors", "tries", "words"),
    [
        ([SLOW] * 3, 3, ("timed out during startup", "the machine may be busy: give the same command again")),
        ([RuntimeError("a\nb")] * 3, 3, ("this machine: a b; its messages are in ", "session_latest/logs")),
        ([OSError(28, "No space left on device")], 1, ("No space left on device",)),
    ],
)
def test_a_start_that_fails_is_one_line_with_cause_and_way_out(played, errors, tries, words):
    played.errors = errors
    with pytest.raises(RuntimeError, match="Ray does not start") as raised, ray_session(None):
        pytest.fail("started")
    said = str(raised.value)
    assert played.tries == tries
    assert "\n" not in said
    for part in words:
        assert part in said
    assert logging.getLogger("ray").level != logging.CRITICAL


class TestFolder:
    def test_what_the_user_names_is_taken(self, monkeypatch, tmp_path):
        place = f"/tmp/nls-{os.getpid()}"
        Path(place).mkdir()
        try:
            monkeypatch.setenv("RAY_TMPDIR", place)
            assert ray_folder() == Path(place) / "ray"
        finally:
            Path(place).rmdir()

    @pytest.mark.parametrize("name", ["x" * 60, "\udcff"])
    def test_one_whose_sockets_would_have_too_long_paths_or_no_text_is_not(self, monkeypatch, tmp_path, name):
        place = tmp_path / name
        place.mkdir()
        monkeypatch.setenv("RAY_TMPDIR", str(place))
        assert ray_folder() == Path("/tmp/ray")

    def test_where_none_will_do_it_is_said(self, monkeypatch):
        monkeypatch.setattr(starting.os, "access", lambda *arguments: False)
        monkeypatch.setenv("RAY_TMPDIR", "/somewhere")
        with pytest.raises(
            RuntimeError, match=r"a path of at most \d+ bytes in UTF-8; '/somewhere' is none: set RAY_TMPDIR"
        ):
            ray_folder()


def test_a_current_folder_that_is_no_text_is_refused(played, monkeypatch, tmp_path):
    place = tmp_path / "\udcff"
    place.mkdir()
    monkeypatch.chdir(place)
    with pytest.raises(InputError, match=r"the current folder must be a path in UTF-8.*give another place"):
        ray_session(None).__enter__()
    assert played.tries == 0


@pytest.mark.parametrize("leaves", [True, False])
def test_a_search_that_cannot_leave_a_dead_ray_is_told_apart(monkeypatch, leaves):
    process = subprocess.Popen(["sleep", "100"])
    monkeypatch.setattr(starting, "head_processes", lambda: {"gcs_server": process.pid})
    monkeypatch.setattr(starting, "_STUCK_SECONDS", 5.0 if leaves else 0.1)
    died, hangs = threading.Event(), threading.Event()
    with starting.watched_head(lambda what: died.set(), lambda what: hangs.set()):
        process.kill()
        process.wait()
        assert died.wait(30)
        if not leaves:
            assert hangs.wait(30)
    assert hangs.is_set() is not leaves
