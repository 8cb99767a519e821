"""The part files of a folder that changes while it is looked at: each is read again only when it has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from nls_tune.runs.parts import read_part

Row = dict[str, Any]
#: Times of files are no finer than this anywhere: FAT has two seconds.
_SAME_TIME_NS = 2_000_000_000


class Signature(NamedTuple):
    """What differs when a part is replaced."""

    mtime_ns: int
    size: int
    inode: int


class ChangingParts:
    """Part files by name, without their ending.

    A part that is torn, or vanishes while it is read, keeps the rows that it had before; the next look tries again.

    Args:
        folder: Where they are; it need not exist.
        schema: Of its parts.
        columns: Those to read.
    """

    def __init__(self, folder: Path, schema: pa.Schema, columns: Sequence[str]) -> None:
        self._folder = folder
        # With the metadata, which say the version of the schema.
        self._schema = pa.schema([schema.field(name) for name in columns], metadata=schema.metadata)
        self._read: dict[str, Signature] = {}
        self._rows: dict[str, list[Row]] = {}
        self._changed_at: int | None = None
        self.signatures: dict[str, Signature] = {}
        self.num_read = 0

    def look(self) -> None:
        """See which parts there are now; nothing is read.

        Parts come, go and are replaced by renames, which a folder's own time tells: where that has not changed, and is
        not so young that two changes may have the same, the parts are not asked one by one.
        """
        found = {}
        try:
            changed_at = self._folder.stat().st_mtime_ns
            if changed_at == self._changed_at and time.time_ns() - changed_at > _SAME_TIME_NS:
                return
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".parquet") and not entry.name.startswith("."):
                        signature = _signature(entry)
                        if signature is not None:
                            found[entry.name.removesuffix(".parquet")] = signature
        except OSError:
            return
        self._changed_at, self.signatures = changed_at, found
        for name in self._rows.keys() - found.keys():
            del self._rows[name], self._read[name]

    def all_rows(self) -> list[Row]:
        """Return the rows of all parts."""
        if changed := [name for name in self.signatures if self._has_changed(name)]:
            with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
                for _ in pool.map(self._update, changed, chunksize=64):
                    pass
        return [row for rows in self._rows.values() for row in rows]

    def rows(self, name: str) -> list[Row]:
        """Return the rows of one part; none if it is not there or has never been readable."""
        if name in self.signatures and self._has_changed(name):
            self._update(name)
        return self._rows.get(name, [])

    def num_unread(self) -> int:
        """Return how many parts have not been read as they are now."""
        return sum(self._has_changed(name) for name in self.signatures)

    def _has_changed(self, name: str) -> bool:
        return self._read.get(name) != self.signatures[name]

    def _update(self, name: str) -> None:
        table = read_part(self._folder / f"{name}.parquet", self._schema)
        if isinstance(table, pa.Table):
            self.num_read += 1
            # Of before the read: a part that was replaced in between is read once more.
            self._read[name], self._rows[name] = self.signatures[name], table.to_pylist()


def _signature(entry: os.DirEntry[str]) -> Signature | None:
    try:
        status = entry.stat()
    except OSError:
        return None  # gone
    return Signature(status.st_mtime_ns, status.st_size, status.st_ino)
