"""Prepared arrays on disk, so that the second load of a dataset takes a fraction of a second."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nls_tune.datasets.locations import cache_folder
from nls_tune.files import parse_json, seal_holds, sealed_json

Arrays = dict[str, np.ndarray]
_logger = logging.getLogger(__name__)
_FORMAT = 1  # raise it when what is prepared from the same files changes
#: The file of an entry that says what the others must be.
META = "meta.json"
_ABANDONED_SECONDS = 3600.0


def cached_arrays(
    name: str, files: Sequence[Path], build: Callable[[], tuple[Arrays, dict[str, str]]]
) -> tuple[Arrays, dict[str, str]]:
    """Return arrays and facts that ``build`` prepares from files, from the cache if the files have not changed since.

    Files are compared by path, size and time of change. A damaged entry is built again, entries of the same name for
    other files are removed, and a cache that cannot be written is a warning, once.
    """
    folder = cache_folder() / "prepared"
    entry = folder / f"{name}-{_key(files)}"
    try:
        return _read(entry)
    except FileNotFoundError:
        pass
    except Exception as error:  # whatever is wrong with an entry, making it again is right
        _logger.info("cache entry %s is damaged and is made again (%s)", entry, error)
    arrays, facts = build()
    try:
        _write(entry, arrays, facts)
        _remove_others(name, entry)
    except OSError as error:
        warn_once(folder, error.strerror or str(error))
    return arrays, facts


def _key(files: Sequence[Path]) -> str:
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([_FORMAT, stats]).encode()).hexdigest()[:16]


def _read(entry: Path) -> tuple[Arrays, dict[str, str]]:
    content = (entry / META).read_bytes()
    if not seal_holds(content):
        raise ValueError(f"{META} has changed")
    meta = parse_json(content)
    arrays = {}
    for name, checksum in meta["arrays"].items():
        array = np.load(entry / f"{name}.npy", allow_pickle=False)
        if checksum_of(array) != checksum:
            raise ValueError(f"the values of {name} have changed")
        arrays[name] = array
    return arrays, dict(meta["facts"])


def _write(entry: Path, arrays: Arrays, facts: Mapping[str, str]) -> None:
    with new_entry(entry) as made:
        for name, array in arrays.items():
            np.save(made / f"{name}.npy", array, allow_pickle=False)
        checksums = {name: checksum_of(array) for name, array in arrays.items()}
        (made / META).write_text(sealed_json(json.dumps({"arrays": checksums, "facts": dict(facts)})))


@contextmanager
def new_entry(entry: Path) -> Iterator[Path]:
    """Yield a folder that gets the name of a cache entry once it is complete; after an error nothing of it stays."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        yield made
        shutil.rmtree(entry, ignore_errors=True)  # a damaged one; a folder is only renamed to a free name
        try:
            made.rename(entry)
        except OSError:
            if not (entry / META).exists():  # else another process has just made the same
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def checksum_of(array: np.ndarray) -> str:
    """Return the type, the shape and the CRC-32 of an array."""
    # CRC-32 finds damage at the speed of reading. It guards against power cuts and full disks, not against people.
    return f"{array.dtype.str}{array.shape}:{zlib.crc32(np.ascontiguousarray(array).data):08x}"


def _remove_others(name: str, entry: Path) -> None:
    for other in entry.parent.glob(f"{name}-*"):
        if other != entry:
            shutil.rmtree(other, ignore_errors=True)
    for left in entry.parent.glob(f".{name}-*"):  # what a process that was killed left behind
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


@functools.cache
def warn_once(folder: Path, reason: str) -> None:
    """Say that the cache cannot be written."""
    _logger.warning(
        "prepared data cannot be kept in %s (%s), so every start reads the original files again; "
        "set XDG_CACHE_HOME to a writable folder", folder, reason,
    )  # fmt: skip
