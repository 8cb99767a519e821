"""Part files: the Parquet files that hold the rows of a run, read whole or what is left of them.

A run has two small files a trial, and opening one costs about a millisecond whatever is in it. Threads do not help,
they wait for one another; so many files are shared among processes, each of which runs this file as a program. That is
why it imports nothing of the package.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

#: The key of the schema version in the metadata of a schema.
VERSION_KEY = b"nls_tune.schema_version"
#: With fewer files a further process takes longer to start than it saves.
FILES_PER_PROCESS = 1000
_MAX_PROCESSES = 8
#: Tables of one row cost much more memory than their rows; so many are put together at once.
_AT_ONCE = 256
#: Nullable columns that early versions did not write: nulls in their parts.
LATER_COLUMNS = ("slot",)
#: The columns to read (None for all) of parts with this stored schema: what they give needs no cast.
_Known = dict[bytes, "list[str] | None"]


class UnreadPart(NamedTuple):
    """A part file that is there but cannot be used.

    Attributes:
        name: Of the file.
        reason: What is wrong with it.
        remedy: What to do about it.
    """

    name: str
    reason: str
    remedy: str


class Parts(NamedTuple):
    """The part files of a folder.

    Attributes:
        table: Their rows, in the order of the files' names.
        unread: Those that cannot be used.
        num_rows: How many rows each of the others has, in the same order.
    """

    table: pa.Table
    unread: tuple[UnreadPart, ...]
    num_rows: dict[str, int]


def read_parts(folder: Path, schema: pa.Schema, names: Sequence[str] | None = None) -> Parts:
    """Read the part files of a folder, whatever state they are in.

    Temporary files (their names begin with a dot) are none, and a part that vanishes while we look was removed.

    Args:
        folder: Where they are.
        schema: What they must hold; its metadata say which version. Other columns are not even read.
        names: Of the files, sorted; by default all.

    Returns:
        The rows, cast to ``schema``.
    """
    if names is None:
        names = sorted(path.name for path in folder.iterdir() if path.suffix == ".parquet" and path.name[0] != ".")
    shares = _shares(names)
    with ThreadPoolExecutor(max(1, len(shares) - 1)) as pool:
        elsewhere = [pool.submit(_read_in_another_process, folder, share, schema) for share in shares[1:]]
        found = [_read_all(folder, shares[0], schema), *(future.result() for future in elsewhere)]
    return Parts(
        table=pa.concat_tables([parts.table for parts in found]),
        unread=tuple(part for parts in found for part in parts.unread),
        num_rows={name: count for parts in found for name, count in parts.num_rows.items()},
    )


def _shares(names: Sequence[str]) -> list[Sequence[str]]:
    """The files of each process; the first is this one."""
    cores = len(os.sched_getaffinity(0))
    count = max(1, min(cores, _MAX_PROCESSES, len(names) // FILES_PER_PROCESS))
    ends = [len(names) * i // count for i in range(count + 1)]
    return [names[begin:end] for begin, end in pairwise(ends)]


def _read_all(folder: Path, names: Sequence[str], schema: pa.Schema) -> Parts:
    tables, unread, fresh, num_rows = [schema.empty_table()], [], [], dict[str, int]()
    known: _Known = {}
    for name in names:
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
    """One table; the cast names what Parquet names in its own way, and costs much for each small one."""
    return pa.concat_tables(tables).combine_chunks().cast(schema)


def read_part(path: Path, schema: pa.Schema) -> pa.Table | UnreadPart | None:
    """Return the rows of a part as ``read_parts`` does, what is wrong with it, or None if it is gone."""
    return _read(path, schema, {})


def _read(path: Path, schema: pa.Schema, known: _Known) -> pa.Table | UnreadPart | None:
    """Read a part.

    Args:
        path: The file.
        schema: What it must hold.
        known: What has been found out about earlier parts; this one is added.

    Returns:
        Its rows, what is wrong with it, or None if it is gone.
    """
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
        for name in set(schema.names) - set(found.names):
            table = table.append_column(schema.field(name), pa.nulls(table.num_rows, schema.field(name).type))
        if stored is not None and table.schema.equals(schema):
            known[stored] = columns
        return table.select(schema.names).cast(schema)
    except (OSError, ValueError, pa.ArrowException) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        return UnreadPart(path.name, f"cannot be read as Parquet ({lines[0]})", "remove or restore it")


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
        return f"has schema version {version}, this nls_tune reads {expected}", "use the version that wrote it"
    if missing := [name for name in schema.names if name not in (*found.names, *LATER_COLUMNS)]:
        return f"lacks the column {missing[0]}", "it was not written by nls_tune"
    return None


def _read_in_another_process(folder: Path, names: Sequence[str], schema: pa.Schema) -> Parts:
    task = {
        "folder": str(folder),
        "names": names,
        "schema": base64.b64encode(schema.serialize().to_pybytes()).decode(),
    }
    try:
        done = subprocess.run(  # noqa: S603 - this file and no argument
            [sys.executable, "-P", __file__],
            input=json.dumps(task).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return _read_all(folder, names, schema)  # no memory for another process, or no interpreter of this name
    head, _, rows = done.stdout.partition(b"\n")
    table, told = pa.ipc.open_stream(rows).read_all(), json.loads(head)
    return Parts(table, tuple(UnreadPart(*part) for part in told["unread"]), told["num_rows"])


def _main() -> None:
    """Read the parts that standard input names, and write what there is of each, then the rows, to standard output."""
    task = json.load(sys.stdin)
    schema = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(task["schema"])))
    parts = _read_all(Path(task["folder"]), task["names"], schema)
    sys.stdout.buffer.write(json.dumps({"unread": parts.unread, "num_rows": parts.num_rows}).encode() + b"\n")
    with pa.ipc.new_stream(sys.stdout.buffer, schema) as stream:
        stream.write_table(parts.table)


if __name__ == "__main__":
    _main()
