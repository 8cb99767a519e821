"""The files of a run that are stored, by the names that they have in the run directory and behind a URL alike."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nls_tune.files import seal_holds, write_atomically
from nls_tune.runs.parts import PartState
from nls_tune.runs.storage.store import Store, StoredFile

RUN_JSON = "run.json"
#: Requests at once: a storage takes its time for each, and many at once.
_AT_ONCE = 16
#: A younger file may change once more without a new time: that of S3 has whole seconds.
_SETTLED_SECONDS = 2.0
_SAME_SECONDS = 1e-5
#: Nothing else is taken from a storage: no name there can lead out of the run directory.
_OURS = re.compile(
    r"run\.json|\.owner|report\.html|(trials|epochs)/\w[\w-]*\.parquet|checkpoints/\w[\w-]*/(trial\.json|state\.pt)"
    r"|warmups/\w[\w-]*/(warmup\.json|epoch-\d{4,}\.pt)",
    re.ASCII,
)


def part_of(name: str) -> str:
    """Return the folder of a run that a file lies in, or the file's own name: ``trials``, ``run.json``."""
    return name.partition("/")[0]


def home_of(name: str) -> str | None:
    """Return the folder that goes with its trial or warm-up and holds a file; None for other files."""
    return name.rpartition("/")[0] if name.startswith(("checkpoints/", "warmups/")) else None


def is_ours(name: str) -> bool:
    """Return whether a file belongs to a run."""
    return _OURS.fullmatch(name) is not None


def local_files(folder: Path) -> dict[str, PartState]:
    """Return the files of a run directory by name, in an order in which each row comes with its epochs.

    A trial ends in this order: its epochs are written, then its row, then its checkpoint is removed. So a file that
    another one relies on is looked for after that one.
    """
    found = {}
    for name in _names(folder):
        try:
            status = (folder / name).stat()
        except OSError:
            continue  # gone
        found[name] = PartState(status.st_mtime_ns, status.st_size)
    return found


def _names(folder: Path) -> Iterator[str]:
    for part in ("checkpoints", "warmups"):
        for home in _list(folder / part):
            yield from filter(is_ours, (f"{part}/{home}/{name}" for name in _list(folder / part / home)))
    yield RUN_JSON
    for part in ("trials", "epochs"):
        yield from filter(is_ours, (f"{part}/{name}" for name in _list(folder / part)))
    yield "report.html"


def _list(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return []


def at_once(work: Callable[[str], object], names: Iterable[str]) -> None:
    """Do some work for each name, many at once; after the first error no more is begun, and it is raised."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            list(pool.map(work, names))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def download(store: Store, folder: Path, files: Mapping[str, StoredFile], *, damaged_too: bool = True) -> None:
    """Copy files into a folder, each whole and with the time of the stored one; run.json comes last.

    With ``damaged_too`` a damaged one, which readers name, replaces a file that is there. One that vanishes meanwhile
    is left out.

    Raises:
        OSError: If the storage is lost, or the folder cannot be written.
    """

    def fetch(name: str) -> None:
        path, state = folder / name, files[name]
        try:
            content = store.read(name)
        except FileNotFoundError:
            return
        if not damaged_too and path.exists() and not _is_whole(name, content):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        if time.time() - state.mtime > _SETTLED_SECONDS:
            os.utime(path, (state.mtime, state.mtime))

    last = [name for name in files if name.endswith(RUN_JSON)]
    at_once(fetch, [name for name in files if name not in last])
    at_once(fetch, last)


def _is_whole(name: str, content: bytes) -> bool:
    """Return whether a file is what was written, as far as it says; a torn part has lost its seal."""
    torn = name.endswith(".parquet") and not content[:4] == content[-4:] == b"PAR1"
    return not torn and seal_holds(content) is not False


def is_same(path: Path, state: StoredFile) -> bool:
    """Return whether a file was downloaded in this state before."""
    try:
        found = path.stat()
    except OSError:
        return False
    return state.mtime > 0 and found.st_size == state.size and abs(found.st_mtime - state.mtime) < _SAME_SECONDS
