"""Watches the head of a cluster during a search: without it no node takes a trial, and Ray may wait for ever."""

from __future__ import annotations

import importlib
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nls_tune.tune.starting import end_processes

if TYPE_CHECKING:
    from nls_tune.tune.recorder import Recorder
    from nls_tune.tune.work import Work

#: A server drops a connection that says nothing; Ray's does so after two minutes.
_CONNECTION_SECONDS = 60
#: A head that keeps its state elsewhere (in Redis) may come back; Ray's own processes give up after 60 s.
_GRACE_SECONDS = 10.0
#: Time for the main thread to leave Ray.
_STUCK_SECONDS = 5.0


@contextmanager
def watched_cluster(died: Callable[[str], None], hangs: Callable[[str], None]) -> Iterator[None]:
    """Call ``died`` from another thread if the head of the cluster ends meanwhile, or is started anew.

    ``hangs`` is called if the block does not end after that: Ray may wait in its own code for a head that is gone, and
    kill this process a minute later. Nothing is watched where this process has started Ray itself.
    """
    import ray

    node: Any = ray._private.worker._global_node
    if node is None or node.all_processes:
        yield
        return
    end, over = socket.socketpair()
    watch = _Watch(node.gcs_address, node.cluster_id.hex(), end)

    def run() -> None:
        if (what := watch.wait_for_loss()) is not None:
            died(what)
            if not watch.is_over(_STUCK_SECONDS):
                hangs(what)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.close()
        thread.join(_GRACE_SECONDS)
        end.close()


def end_at_once(recorder: Recorder, work: Work, what: str) -> None:
    """Write what a search has done, and end its process: its main thread waits in Ray and can do nothing."""
    recorder.note_end()
    recorder.interrupt()
    content = work.run.read_json()
    content.status = "interrupted"
    if content.sessions:
        content.sessions[-1].finished_at = datetime.now(UTC)
    work.run.write_json(content)
    if work.mirror is not None:
        work.mirror.close()
    sys.stdout.flush()
    print(
        f"Warning: {what}\n"
        "Interrupted; trials that ended are kept, and those that ran go on from their last checkpoint. "
        f"To go on: the same command with --out {work.run.path}, when Ray runs again",
        flush=True,
    )
    end_processes()
    os._exit(130)


class _Watch:
    """Holds a connection to the head, which the system ends when the head ends, however that happens."""

    def __init__(self, address: str, cluster_id: str, end: socket.socket) -> None:
        self._address, self._cluster_id, self._end = address, cluster_id, end

    def wait_for_loss(self) -> str | None:
        """Return what has become of the head; None when the other end of ``end`` is closed."""
        while not self.is_over(0):
            if self._loses_head() and not self.is_over(0) and (lost := self._stays_away()):
                return lost
        return None

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

    def _stays_away(self) -> str | None:
        """Wait for the head to come back; return what has become of it if another one is there, or none in time."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while not self.is_over(1):
            found = self._found_cluster()
            if found == self._cluster_id:
                return None
            if found is not None:
                return f"The head of the cluster at {self._address} was started anew"
            if time.monotonic() > deadline:
                return f"The head of the cluster at {self._address} has ended"
        return None

    def _found_cluster(self) -> str | None:
        """Return the id of the cluster that answers now; None if none does."""
        raylet: Any = importlib.import_module("ray._raylet")
        with suppress(Exception):  # of whatever kind: nothing answers there yet
            self._connected().close()
            return str(raylet.GcsClient(address=self._address).cluster_id.hex())
        return None

    def _connected(self) -> socket.socket:
        host, _, port = self._address.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=5)

    def is_over(self, seconds: float) -> bool:
        """Return whether nobody is to watch any more, now or within some seconds."""
        return bool(select.select([self._end], [], [], seconds)[0])
