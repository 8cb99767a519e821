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
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nls_tune.files import BLANK_SEAL, seal, seal_holds

#: The key of the schema version in the metadata of a schema.
VERSION_KEY = b"nls_tune.schema_version"
#: The key of the file's checksum in the metadata of a part.
SEAL_KEY = b"nls_tune.seal"
#: Times outside these microseconds since 1970, the years 1970 to 2200, were written by nobody.
_TIMES = (0, 7_258_118_400_000_000)
_RESTORE = "restore it, or resume the run"
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


def sealed_parquet(table: pa.Table, **options: Any) -> bytearray:
    """Return a table as the content of a Parquet file that carries its checksum in its metadata."""
    sink = pa.BufferOutputStream()
    metadata = {**(table.schema.metadata or {}), SEAL_KEY: BLANK_SEAL}
    pq.write_table(table.replace_schema_metadata(metadata), sink, **options)
    content = bytearray(sink.getvalue())
    seal(content, content.rindex(BLANK_SEAL))
    return content


def read_parts(folder: Path, schema: pa.Schema, names: Sequence[str] | None = None) -> Parts:
    """Read the part files of a folder, whatever state they are in; one that vanishes meanwhile was removed.

    Only the columns of ``schema`` are read; its metadata say which version the parts must have. ``names`` are those of
    the files, sorted; by default all.
    """
    tables, num_rows = [schema.empty_table()], dict[str, int]()
    unread: list[UnreadPart] = []
    fresh: dict[str, pa.Table] = {}
    known: _Known = {}
    names = [*part_states(folder)] if names is None else names
    for place, name in enumerate(names, 1):
        part = _read(folder / name, schema, known)
        if isinstance(part, UnreadPart):
            unread.append(part)
        elif part is not None:
            fresh[name] = part
        if len(fresh) == _AT_ONCE or place == len(names):
            tables.append(_together(fresh, schema, unread))
            num_rows |= {name: part.num_rows for name, part in fresh.items()}
            fresh = {}
    return Parts(pa.concat_tables(tables).combine_chunks(), tuple(sorted(unread)), num_rows)


def _together(parts: dict[str, pa.Table], schema: pa.Schema, unread: list[UnreadPart]) -> pa.Table:
    """Return the rows of parts as one table; a part with impossible values goes from ``parts`` to ``unread``.

    The cast gives fields that Parquet renames their own names. It and the checks cost much for each small table.
    """
    try:
        return checked(pa.concat_tables([schema.empty_table(), *parts.values()]).combine_chunks(), schema)
    except Exception as error:  # a damaged file fails in many ways
        if len(parts) > 1:
            single = [(name, {name: part}) for name, part in parts.items()]
            tables = [_together(part, schema, unread) for _, part in single]
            for name, part in single:
                if not part:
                    del parts[name]
            return pa.concat_tables(tables).combine_chunks()
        name, _ = parts.popitem()
        unread.append(_damaged(name, error))
        return schema.empty_table()


def checked(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the fields of ``schema``; raise an error if it breaks them, or holds what no table can."""
    table = table.cast(schema)
    table.validate(full=True)
    for field, column in zip(schema, table.columns, strict=True):
        if not field.nullable and column.null_count:
            raise ValueError(f"{field.name} is missing in a row")
        if pa.types.is_timestamp(field.type) and len(column):
            found = pc.min_max(column.cast(pa.int64())).as_py()
            if found["min"] < _TIMES[0] or found["max"] > _TIMES[1]:
                raise ValueError(f"{field.name} is out of range")
    return table


def _damaged(name: str, error: Exception) -> UnreadPart:
    lines = str(error).splitlines() or [type(error).__name__]
    return UnreadPart(name, f"cannot be read as Parquet ({lines[0]})", _RESTORE)


def _read(path: Path, schema: pa.Schema, known: _Known) -> pa.Table | UnreadPart | None:
    """Return the rows of a part, what is wrong with it, or None if it is gone."""
    try:
        content = _content(path)
        if content is None:
            return None
        if seal_holds(content) is False:
            reason = "is not what was written (its checksum differs)"
            return UnreadPart(path.name, reason, _RESTORE)
        return _parse(path.name, content, schema, known)
    except Exception as error:  # a damaged file fails in many ways
        return _damaged(path.name, error)


def read_damaged(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """Return the rows of a part that was set aside, as far as it can be read; nothing in them can be relied on."""
    try:
        part = _parse(path.name, path.read_bytes(), schema, {})
        return [] if isinstance(part, UnreadPart) else list(checked(part, schema).to_pylist())
    except Exception:  # a damaged file fails in many ways
        return []


def _parse(name: str, content: bytes, schema: pa.Schema, known: _Known) -> pa.Table | UnreadPart:
    """Return the rows of a part, or what is wrong with its schema; add a good one to ``known``."""
    file = pq.ParquetFile(pa.BufferReader(content))
    stored = (file.metadata.metadata or {}).get(b"ARROW:schema")
    if stored in known:
        return file.read(columns=known[stored], use_threads=False)
    found = file.schema_arrow
    if wrong := _wrong(found, schema):
        return UnreadPart(name, *wrong)
    columns = None if found.names == schema.names else [one for one in schema.names if one in found.names]
    table = file.read(columns=columns, use_threads=False)
    missing = [field for field in schema if field.name not in found.names]
    for field in missing:
        values = [json.loads(field.metadata[DEFAULT_KEY])] * table.num_rows
        table = table.append_column(field, pa.array(values, field.type))
    if stored is not None and not missing and table.schema.equals(schema):
        known[stored] = columns
    return table.select(schema.names).cast(schema)


def set_aside_damaged(folder: Path) -> list[str]:
    """Rename the torn and changed parts of a folder so that no reader takes them for parts; return their names.

    ``x.parquet`` becomes ``.x.parquet.damaged``. Nobody else may write to the folder.
    """
    found = []
    for name in part_states(folder):
        with suppress(OSError):
            content = (folder / name).read_bytes()
            whole = content[:4] == content[-4:] == b"PAR1" and len(content) > 8
            if not whole or seal_holds(content) is False:
                (folder / name).rename(folder / f".{name}.damaged")
                found.append(name)
    return found


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
