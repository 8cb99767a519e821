"""Whether the head of a cluster is missed; the head is played by a server of one connection after the other."""

import contextlib
import socket
import threading
from types import SimpleNamespace

import pytest
import ray
from commands import wait_until

from nls_tune.tune import cluster_head

pytestmark = pytest.mark.slow


class PlayedHead:
    """A head that accepts connections until it ends."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._server.accept()[0]
                connection.send(b"settings")
                self._connections.append(connection)

    def drop(self) -> None:
        """End all connections."""
        wait_until(lambda: self._connections, "somebody is connected")
        while self._connections:
            self._connections.pop().close()

    def end(self) -> None:
        wait_until(lambda: self._connections, "somebody is connected")
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.drop()


@pytest.fixture
def head(monkeypatch):
    head = PlayedHead()
    node = SimpleNamespace(all_processes={}, gcs_address=head.address, cluster_id=b"\x01")
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    monkeypatch.setattr(cluster_head, "_GRACE_SECONDS", 1.0)
    monkeypatch.setattr(cluster_head, "_STUCK_SECONDS", 0.2)
    head.cluster_id = b"\x01"
    client = lambda address: SimpleNamespace(cluster_id=head.cluster_id)  # noqa: E731
    monkeypatch.setattr("ray._raylet.GcsClient", client)
    return head


class Told:
    def __init__(self) -> None:
        self.died, self.hangs = [], []
        self.has_died, self.has_hung = threading.Event(), threading.Event()

    def watching(self):
        return cluster_head.watched_cluster(
            lambda what: (self.died.append(what), self.has_died.set()),
            lambda what: (self.hangs.append(what), self.has_hung.set()),
        )


def test_a_head_that_ends_is_missed_and_so_is_a_search_that_hangs(head):
    told = Told()
    with told.watching():
        head.end()
        assert told.has_hung.wait(30)
    assert told.died == told.hangs == [f"The head of the cluster at {head.address} has ended"]


def test_a_head_that_was_started_anew_is_another_one(head):
    told = Told()
    with told.watching():
        head.cluster_id = b"\x02"
        head.drop()
        assert told.has_died.wait(30)
    assert told.died == [f"The head of the cluster at {head.address} was started anew"]


def test_a_head_that_comes_back_with_its_state_is_the_same(head):
    told = Told()
    with told.watching():
        head.drop()
        assert not told.has_died.wait(3)
    assert (told.died, told.hangs) == ([], [])


def test_a_private_ray_and_a_session_that_ends_are_not_watched(head, monkeypatch):
    told = Told()
    with told.watching():
        pass
    monkeypatch.setattr(ray._private.worker._global_node, "all_processes", {"gcs_server": []})
    with told.watching():
        pass
    assert told.died == []
