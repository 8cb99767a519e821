"""Part files: the Parquet files that hold the rows of a run, read even where some of them are damaged.

A run has two small files per trial. Opening one costs about a millisecond, whatever it holds, and neither threads nor
pyarrow's own reader of many files is faster than one file after the other. ``parts_copy`` saves the time where it
matters: in runs that have finished.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

#: The key of the schema version in the metadata of a schema.
VERSION_KEY = b"nls_tune.schema_version"
#: Tables of one row cost much more memory than their rows; so many are put together at once.
_AT_ONCE = 256
#: A field with this key in its metadata may be missing in parts of early versions: the column's value in them, as JSON.
DEFAULT_KEY = b"nls_tune.default"
#: The columns to read (None for all) of parts with a stored schema whose tables need no cast.
_Known = dict[bytes, "list[str] | None"]


class PartState(NamedTuple):
    """What differs when a part is replaced; not the inode, which differs in a copy of the run."""

    mtime_ns: int
    size: int


class UnreadPart(NamedTuple):
    """A part file that is there but cannot be used: what is wrong with it, and what to do about it."""

    name: str
    reason: str
    remedy: str


class Parts(NamedTuple):
    """The part files of a folder: their rows, in the order of the files' names, which also is that of ``num_rows``."""

    table: pa.Table
    unread: tuple[UnreadPart, ...]
    num_rows: dict[str, int]


def part_states(folder: Path) -> dict[str, PartState]:
    """Return the part files of a folder by name, sorted; without temporary files, whose names begin with a dot."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".parquet") and not entry.name.startswith("."):
                try:
                    status = entry.stat()
                except OSError:
                    continue  # gone
                found[entry.name] = PartState(status.st_mtime_ns, status.st_size)
    return dict(sorted(found.items()))


def read_parts(folder: Path, schema: pa.Schema, names: Sequence[str] | None = None) -> Parts:
    """Read the part files of a folder, whatever state they are in; one that vanishes meanwhile was removed.

    Only the columns of ``schema`` are read; its metadata say which version the parts must have. ``names`` are those of
    the files, sorted; by default all.
    """
    tables, unread, fresh, num_rows = [schema.empty_table()], [], [], dict[str, int]()
    known: _Known = {}
    for name in part_states(folder) if names is None else names:
        part = _read(folder / name, schema, known)
        if isinstance(part, UnreadPart):
            unread.append(part)
        elif part is not None:
            fresh.append(part)
            num_rows[name] = part.num_rows
        if len(fresh) == _AT_ONCE:
            tables.append(_together(fresh, schema))
            fresh = []
    return Parts(_together([*tables, *fresh], schema), tuple(unread), num_rows)


def _together(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """One table; the cast gives fields that Parquet renames their own names, and costs much for each small table."""
    return pa.concat_tables(tables).combine_chunks().cast(schema)


def _read(path: Path, schema: pa.Schema, known: _Known) -> pa.Table | UnreadPart | None:
    """Return the rows of a part, what is wrong with it, or None if it is gone; add its schema to ``known``."""
    try:
        content = _content(path)
        if content is None:
            return None
        file = pq.ParquetFile(pa.BufferReader(content))
        stored = (file.metadata.metadata or {}).get(b"ARROW:schema")
        if stored in known:
            return file.read(columns=known[stored], use_threads=False)
        found = file.schema_arrow
        if wrong := _wrong(found, schema):
            return UnreadPart(path.name, *wrong)
        columns = None if found.names == schema.names else [name for name in schema.names if name in found.names]
        table = file.read(columns=columns, use_threads=False)
        missing = [field for field in schema if field.name not in found.names]
        for field in missing:
            values = [json.loads(field.metadata[DEFAULT_KEY])] * table.num_rows
            table = table.append_column(field, pa.array(values, field.type))
        if stored is not None and not missing and table.schema.equals(schema):
            known[stored] = columns
        return table.select(schema.names).cast(schema)
    except (OSError, ValueError, pa.ArrowException) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        return UnreadPart(path.name, f"cannot be read as Parquet ({lines[0]})", "remove or restore it")


def _content(path: Path) -> bytes | None:
    """Return the bytes of a file, None if it is gone. One that is being replaced may be there at the second look."""
    for _ in range(2):
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
    return None


def _wrong(found: pa.Schema, schema: pa.Schema) -> tuple[str, str] | None:
    """Say why a part of this schema cannot be used, and what to do about it; None if it can."""
    expected = (schema.metadata or {}).get(VERSION_KEY, b"").decode()
    version = (found.metadata or {}).get(VERSION_KEY, b"0").decode(errors="replace")
    if version != expected:
        return f"has schema version {version}, this nls_tune reads {expected}", "use the version that wrote it"
    missing = [field for field in schema if field.name not in found.names]
    if lacking := [field.name for field in missing if DEFAULT_KEY not in (field.metadata or {})]:
        return f"lacks the column {lacking[0]}", "it was not written by nls_tune"
    return None
