"""Who holds a run, said by a file: a second search is refused also where the locks of a file system do nothing.

Some shared file systems accept every lock, or only know those of one machine. So the holder writes who it is and
touches this file now and then. On its own machine it is asked for directly; from others its last sign of life counts,
by the clock of the file system.
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
from typing import Any

from nls_tune.files import write_atomically

_FILE = ".owner"
#: Seconds between two signs of life, and after which none means that the holder is gone.
_BEAT, _DEAD = 15.0, 90.0


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Say in a folder that this process holds it, until the block ends."""
    file, mine = folder / _FILE, {**_this_place(), "pid": os.getpid(), "started": _started(os.getpid())}
    write_atomically(file, json.dumps(mine).encode())
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_BEAT):
            with suppress(OSError):
                os.utime(file)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if _read(file) == mine:
            file.unlink(missing_ok=True)


def living_owner(folder: Path) -> str | None:
    """Return who holds a folder, in words; None if nobody does, or the process that did is gone."""
    file = folder / _FILE
    owner = _read(file)
    if not owner:
        return None
    words = f"process {owner.get('pid')} on {owner.get('host')}"
    if all(owner.get(name) == value for name, value in _this_place().items()):
        return words if owner.get("started") == _started(owner.get("pid")) is not None else None
    try:
        age = _now(folder) - file.stat().st_mtime
    except OSError:
        return None
    return f"{words}, heard of {max(0.0, age):.0f} s ago" if age < _DEAD else None


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


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
