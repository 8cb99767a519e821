import errno
import hashlib
import multiprocessing
import os
import socket
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from file_server import FileServer
from filelock import FileLock

from nls_tune.datasets import downloads as module
from nls_tune.datasets.downloads import DownloadError, download, locked

CONTENT = bytes(range(256)) * 400
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACKOFF_SECONDS", 0.001)


def left_over(folder: Path) -> list[str]:
    """The names of hidden files but locks."""
    return [file.name for file in folder.glob(".*") if not file.name.endswith(".lock")]


def test_a_file_arrives_whole_in_a_folder_that_did_not_exist(tmp_path):
    path = tmp_path / "deep" / "er" / "file.bin"
    seen = []
    with FileServer(CONTENT).running() as server:
        download(server.url, path, checksum=CHECKSUM, progress=lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert left_over(path.parent) == []
    assert seen[-1] == ("downloading file.bin", len(CONTENT), len(CONTENT))


@pytest.mark.parametrize(
    ("there", "answers", "requests"),
    [
        (CONTENT, {}, []),
        (b"a wrong file is replaced", {}, [None]),
        (None, {"break_after": [5_000, 7_000]}, [None, "bytes=5000-", "bytes=12000-"]),  # goes on where it stopped
        (None, {"break_after": [5_000], "ranges": False}, [None, "bytes=5000-"]),  # starts over
    ],
)
def test_what_is_there_counts(tmp_path, there, answers, requests):
    path = tmp_path / "file.bin"
    if there is not None:
        path.write_bytes(there)
    with FileServer(CONTENT, **answers).running() as server:
        download(server.url, path, checksum=CHECKSUM, progress=False)
    assert path.read_bytes() == CONTENT
    assert server.requests == requests


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(tmp_path):
    path = tmp_path / "file.bin"
    with FileServer(CONTENT, break_after=[1_000] * 5).running() as server:
        with pytest.raises(DownloadError, match="broke off after 5,000 of 102,400 bytes"):
            download(server.url, path, checksum=CHECKSUM, progress=False)
        assert not path.exists()
        download(server.url, path, checksum=CHECKSUM, progress=False)
    assert server.requests[-1] == "bytes=5000-"
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"of another file", b"x" * (len(CONTENT) + 1)])
def test_what_is_left_of_another_file_does_no_harm(tmp_path, left):
    path = tmp_path / "file.bin"
    (tmp_path / ".file.bin.part").write_bytes(left)
    with FileServer(CONTENT).running() as server:
        download(server.url, path, checksum=CHECKSUM, progress=False)
    assert path.read_bytes() == CONTENT


def test_another_file_than_expected_is_removed_and_named(tmp_path):
    path = tmp_path / "file.bin"
    other = CONTENT[:-1] + b"!"
    with FileServer(other).running() as server, pytest.raises(DownloadError) as caught:
        download(server.url, path, checksum=CHECKSUM, progress=False)
    for part in (CHECKSUM, hashlib.sha256(other).hexdigest(), server.url):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not path.exists()
    assert left_over(tmp_path) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (403, 1), (503, 5)])
def test_an_error_of_the_server_is_named(tmp_path, status, attempts):
    with (
        FileServer(b"", status=status).running() as server,
        pytest.raises(DownloadError, match=f"the server answered {status}"),
    ):
        download(server.url, tmp_path / "file.bin", checksum=CHECKSUM, progress=False)
    assert len(server.requests) == attempts


@pytest.mark.parametrize(
    ("listening", "message"), [(False, r"cannot download file\.bin from .*\(.*refused"), (True, r"within 0\.2 s")]
)
def test_a_refused_connection_or_a_server_that_does_not_answer_is_given_up(tmp_path, listening, message):
    with socket.socket() as taken:  # bound, so that nobody else can take the port
        taken.bind(("127.0.0.1", 0))
        if listening:
            taken.listen()
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file.bin"
        with pytest.raises(DownloadError, match=message) as caught:
            download(url, tmp_path / "file.bin", checksum=CHECKSUM, timeout=0.2, progress=False)
        assert "no connection" in str(caught.value)


def test_a_server_that_stops_sending_is_asked_again(tmp_path):
    # The first answer sends 20,000 bytes and stalls for longer than the timeout.
    with (
        FileServer(CONTENT, pause=0.5, break_after=[40_000]).running() as server,
        pytest.raises(DownloadError, match="broke off"),
    ):
        download(server.url, tmp_path / "file.bin", checksum=CHECKSUM, timeout=0.1, progress=False)
    assert server.requests[:2] == [None, "bytes=20000-"]


def test_hanging_name_resolution_counts_as_no_connection(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(1))
    with pytest.raises(DownloadError, match=r"no connection within 0\.1 s"):
        download("http://nowhere.invalid/f", tmp_path / "f", checksum=CHECKSUM, timeout=0.1, progress=False)


@pytest.mark.slow
def test_two_processes_download_once(tmp_path):
    path = tmp_path / "file.bin"
    context = multiprocessing.get_context("spawn")
    with FileServer(CONTENT, pause=1.0).running() as server:
        options = {"checksum": CHECKSUM, "progress": False}
        both = [context.Process(target=download, args=(server.url, path), kwargs=options) for _ in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert server.requests == [None]
    assert path.read_bytes() == CONTENT


def test_who_waits_for_another_process_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_SILENT_SECONDS", 0.05)
    lock = FileLock(tmp_path / ".file.bin.lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.5, lock.release).start()
    with locked(tmp_path / "file.bin"):
        (line,) = caplog.messages
    assert line == f"waiting for another process that is making {tmp_path / 'file.bin'} and holds {lock.lock_file}"


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_lock_that_a_killed_process_left_is_named_where_the_system_has_no_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SILENT_SECONDS", 0.05)
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(errno.ENOSYS, "Function not implemented")))
    path, lock = tmp_path / "file.bin", tmp_path / ".file.bin.lock"
    path.write_bytes(CONTENT)
    lock.write_text("999999\nanother\n")
    threading.Timer(0.5, lock.unlink).start()
    download("http://nowhere", path, checksum=CHECKSUM)  # waited for as long as it may be in use
    lock.write_text("999999\nanother\n")
    os.utime(lock, (time.time() - 5 * 3600,) * 2)
    with pytest.raises(DownloadError, match=rf"{lock} is 5 hours old; if no process is making file\.bin, remove it"):
        download("http://nowhere", path, checksum=CHECKSUM)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/f", "cannot write"),  # the folder is a file
        ("file:///etc/hosts", "needs an http or https address, not 'file:///etc/hosts'"),
    ],
)
def test_what_cannot_be_downloaded_is_said(tmp_path, url, message):
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(DownloadError, match=message):
        download(url, tmp_path / "data" / "f", checksum=CHECKSUM, progress=False)
