"""Part files: the Parquet files that hold the rows of a run, read whole or what is left of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

#: The key of the schema version in the metadata of a schema.
VERSION_KEY = b"nls_tune.schema_version"
#: What to do about a part that is no Parquet.
_RESTORE = "remove or restore it"


class UnreadPart(NamedTuple):
    """A part file that is there but cannot be used.

    Attributes:
        path: The file.
        reason: What is wrong with it.
        remedy: What to do about it.
    """

    path: Path
    reason: str
    remedy: str


class Parts(NamedTuple):
    """The part files of a folder.

    Attributes:
        table: Their rows, in the order of the files' names.
        unread: Those that cannot be used.
    """

    table: pa.Table
    unread: tuple[UnreadPart, ...]


def read_parts(folder: Path, schema: pa.Schema) -> Parts:
    """Read the part files of a folder, whatever state they are in.

    Temporary files (their names begin with a dot) are none, and a part that vanishes while we look was removed.

    Args:
        folder: Where they are.
        schema: What they must hold; its metadata say which version.

    Returns:
        The rows, cast to ``schema``; further columns are left out.
    """
    paths = sorted(folder.glob("[!.]*.parquet"))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(lambda path: read_part(path, schema), paths, chunksize=64))
    tables = [part for part in found if isinstance(part, pa.Table)]
    unread = tuple(part for part in found if isinstance(part, UnreadPart))
    return Parts(pa.concat_tables(tables) if tables else schema.empty_table(), unread)


def read_part(path: Path, schema: pa.Schema) -> pa.Table | UnreadPart | None:
    """Return the rows of a part as ``read_parts`` does, what is wrong with it, or None if it is gone."""
    try:
        content = _content(path)
        if content is None:
            return None
        file = pq.ParquetFile(pa.BufferReader(content))
        if wrong := _wrong(file.schema_arrow, schema):
            return UnreadPart(path, *wrong)
        return file.read(columns=schema.names, use_threads=False).select(schema.names).cast(schema)
    except (OSError, ValueError, pa.ArrowException) as error:
        lines: Sequence[str] = str(error).splitlines() or [type(error).__name__]
        return UnreadPart(path, f"cannot be read as Parquet ({lines[0]})", _RESTORE)


def _content(path: Path) -> bytes | None:
    """The bytes of a file; None if it is gone, also at the second look, as one that is replaced need not be."""
    for _ in range(2):
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
    return None


def _wrong(found: pa.Schema, schema: pa.Schema) -> tuple[str, str] | None:
    """What keeps a part of this schema from being used, and what to do about it; None if nothing does."""
    expected = (schema.metadata or {}).get(VERSION_KEY, b"").decode()
    version = (found.metadata or {}).get(VERSION_KEY, b"0").decode(errors="replace")
    if version != expected:
        return (
            f"has schema version {version}, this nls_tune reads {expected}",
            "use the version that wrote it",
        )
    if missing := [name for name in schema.names if name not in found.names]:
        return f"lacks the column {missing[0]}", "it was not written by nls_tune"
    return None
