"""Who holds a run, said by a file: a second search is refused also where the locks of a file system do nothing.

Some shared file systems accept every lock, or only know those of one machine. So the holder writes who it is and
touches this file now and then. On its own machine it is asked for directly; from others its last sign of life counts,
by the clock of the file system. Behind a URL there are no locks at all, and the file is the only one that says it.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from nls_tune.files import write_atomically

#: The name of the file.
OWNER = ".owner"
#: Seconds between two signs of life, and after which none means that the holder is gone.
_BEAT, _DEAD = 15.0, 90.0


class Place(Protocol):
    """The place where the file is: a folder, or what is behind a URL. What goes wrong there is an OSError."""

    def read(self, name: str) -> bytes:
        """Return the content of a file."""

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file."""

    def touch(self, name: str) -> None:
        """Give a file the present time."""

    def age(self, name: str) -> float:
        """Return the seconds since a file was written, by the clock of the place."""

    def remove(self, name: str) -> None:
        """Remove a file."""


@contextmanager
def owned(where: Path | Place) -> Iterator[None]:
    """Say in a folder or behind a URL that this process holds it, until the block ends."""
    place, mine = _place(where), {**_this_place(), "pid": os.getpid(), "started": _started(os.getpid())}
    place.write(OWNER, json.dumps(mine).encode())
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_BEAT):
            with suppress(OSError):
                place.touch(OWNER)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if _read(place) == mine:
            with suppress(OSError):
                place.remove(OWNER)


def living_owner(where: Path | Place) -> str | None:
    """Return who holds a folder or URL, in words; None if nobody does, or the process that did is gone."""
    place = _place(where)
    owner = _read(place)
    if not owner:
        return None
    words = f"process {owner.get('pid')} on {owner.get('host')}"
    if all(owner.get(name) == value for name, value in _this_place().items()):
        return words if owner.get("started") == _started(owner.get("pid")) is not None else None
    try:
        age = place.age(OWNER)
    except OSError:
        return None
    return f"{words}, heard of {max(0.0, age):.0f} s ago" if age < _DEAD else None


class _Folder:
    """A folder as a ``Place``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        write_atomically(self._path / name, content)

    def touch(self, name: str) -> None:
        os.utime(self._path / name)

    def age(self, name: str) -> float:
        return _now(self._path) - (self._path / name).stat().st_mtime

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


def _place(where: Path | Place) -> Place:
    return _Folder(where) if isinstance(where, Path) else where


def _this_place() -> dict[str, str | None]:
    """What agrees for processes that can see each other: machine, its start, and the container."""
    boot = container = None
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        container = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no path
    return {"host": platform.node(), "boot": boot, "container": container}


def _started(pid: Any) -> str | None:
    """Return when a process was started, in the kernel's words; None if there is none: numbers are used again."""
    try:
        return (
            Path(f"/proc/{int(pid)}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
    except (OSError, ValueError, TypeError, IndexError):
        return None


def _now(folder: Path) -> float:
    """Return the time by the clock of a folder's file system; where nothing can be written, by this machine's."""
    probe = folder / f".now.{os.getpid()}"
    try:
        probe.write_bytes(b"")
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _read(place: Place) -> dict[str, Any]:
    try:
        found = json.loads(place.read(OWNER))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
