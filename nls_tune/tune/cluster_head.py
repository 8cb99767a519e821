"""Watches the head of a cluster during a search: without it no node takes a trial, and Ray may wait for ever."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

#: A server drops a connection that says nothing; Ray's does so after two minutes.
_CONNECTION_SECONDS = 60
#: A head that keeps its state elsewhere (in Redis) may come back; Ray's own processes give up after 60 s.
_GRACE_SECONDS = 10.0


@contextmanager
def watched_cluster(died: Callable[[str], None]) -> Iterator[None]:
    """Call ``died`` from another thread if the head of the cluster ends meanwhile, or is started anew.

    Nothing is watched where this process has started Ray itself.
    """
    import ray

    node: Any = ray._private.worker._global_node
    if node is None or node.all_processes:
        yield
        return
    end, over = socket.socketpair()
    watch = _Watch(node.gcs_address, node.cluster_id.hex(), end, died)
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.close()
        thread.join(_GRACE_SECONDS)
        end.close()


class _Watch:
    """Holds a connection to the head, which the system ends when the head ends, however that happens."""

    def __init__(self, address: str, cluster_id: str, end: socket.socket, died: Callable[[str], None]) -> None:
        self._address, self._cluster_id, self._end, self._died = address, cluster_id, end, died

    def run(self) -> None:
        """Watch until the other end of ``end`` is closed, or the head is gone."""
        while not self._is_over(0):
            if self._loses_head() and not self._is_over(0) and not self._comes_back():
                return

    def _loses_head(self) -> bool:
        """Return whether the head ends within some time."""
        try:
            with self._connected() as connection:
                deadline = time.monotonic() + _CONNECTION_SECONDS
                while (left := deadline - time.monotonic()) > 0:
                    ready, _, _ = select.select([connection, self._end], [], [], left)
                    if self._end in ready:
                        return False
                    if ready and not connection.recv(4096):
                        return True
            return False
        except OSError:
            return True

    def _comes_back(self) -> bool:
        """Wait for the head; say that it is gone if another one is there or none comes in time."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while not self._is_over(1):
            found = self._found_cluster()
            if found == self._cluster_id:
                return True
            if found is not None:
                self._died(f"the head of the cluster at {self._address} was started anew")
                return False
            if time.monotonic() > deadline:
                self._died(f"the head of the cluster at {self._address} has ended")
                return False
        return False

    def _found_cluster(self) -> str | None:
        """Return the id of the cluster that answers now; None if none does."""
        from ray._raylet import GcsClient

        with suppress(Exception):  # of whatever kind: nothing answers there yet
            self._connected().close()
            client: Any = GcsClient(address=self._address)
            return str(client.cluster_id.hex())
        return None

    def _connected(self) -> socket.socket:
        host, _, port = self._address.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=5)

    def _is_over(self, seconds: float) -> bool:
        return bool(select.select([self._end], [], [], seconds)[0])
