"""All parts of a folder once more in one file: a copy that saves opening them one by one, and is never needed.

The parts stay, and are what counts. A row is taken from the copy only while its part has the time and size that it had
when it was copied; any other part is read itself. So a copy that is old, torn or missing costs time and nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nls_tune.files import parse_json, seal_holds
from nls_tune.runs.parts import VERSION_KEY, Parts, PartState, checked, part_states, read_parts, sealed_parquet

#: The name lacks the ending that readers look for: otherwise a run would have its rows twice.
COPY = ".copy"
#: Fewer parts are read as quickly.
LEAST_PARTS = 100
#: Times of files are no finer than this anywhere: FAT has two seconds. A younger part might yet change unnoticed.
SETTLED_NS = 2_000_000_000
_PARTS_KEY = b"nls_tune.parts"


class _Copied(NamedTuple):
    """A part in the copy."""

    name: str
    state: PartState
    num_rows: int


def make_copy(folder: Path, schema: pa.Schema) -> bytearray | None:
    """Return the copy of the parts of a folder, to be written to ``COPY`` in it; None for few parts.

    It leaves out parts that cannot be read, and those of the last two seconds. Nobody else may write to the folder.
    """
    now, states = time.time_ns(), part_states(folder)
    found = read_folder(folder, schema)
    settled = [name in states and now - states[name].mtime_ns > SETTLED_NS for name in found.num_rows]
    if sum(settled) < LEAST_PARTS:
        return None
    counts = zip(found.num_rows.items(), settled, strict=True)
    index = [[name, *states[name], count] for (name, count), holds in counts if holds]
    table = _rows_of(found.table, list(found.num_rows.values()), settled)
    metadata = {**(schema.metadata or {}), _PARTS_KEY: json.dumps(index).encode()}
    return sealed_parquet(table.replace_schema_metadata(metadata))


def read_folder(folder: Path, schema: pa.Schema) -> Parts:
    """Read the part files of a folder as ``read_parts`` does, from the copy where there is one."""
    found = _read_copy(folder, schema)
    if found is None:
        return read_parts(folder, schema)
    table, copied = found
    states = part_states(folder)
    same = [states.get(part.name) == part.state for part in copied]
    copied_rows = {part.name: part.num_rows for part, holds in zip(copied, same, strict=True) if holds}
    table = _rows_of(table, [part.num_rows for part in copied], same)
    changed = [name for name in states if name not in copied_rows]
    if not changed:
        return Parts(table, (), copied_rows)
    fresh = read_parts(folder, schema, changed)
    num_rows = {**copied_rows, **fresh.num_rows}
    place = {name: i for i, name in enumerate(sorted(num_rows))}
    of_rows = np.repeat([place[name] for name in num_rows], list(num_rows.values()))
    rows = pa.concat_tables([table, fresh.table]).take(pa.array(np.argsort(of_rows, kind="stable")))
    return Parts(rows, fresh.unread, dict(sorted(num_rows.items())))


def _rows_of(table: pa.Table, num_rows: Sequence[int], wanted: Sequence[bool]) -> pa.Table:
    """Return the rows of the parts that are wanted."""
    if all(wanted):
        return table
    return table.filter(pa.array(np.repeat(np.array(wanted, bool), np.array(num_rows, int))))


def _read_copy(folder: Path, schema: pa.Schema) -> tuple[pa.Table, list[_Copied]] | None:
    """Return the rows of the copy and the parts that they come from; None without a copy that can be used."""
    try:
        content = (folder / COPY).read_bytes()
        if seal_holds(content) is False:
            return None
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            metadata = file.schema_arrow.metadata or {}
            if metadata.get(VERSION_KEY) != (schema.metadata or {}).get(VERSION_KEY):
                return None
            index = parse_json(metadata[_PARTS_KEY])
            copied = [_Copied(name, PartState(*state), count) for name, *state, count in index]
            table = file.read(columns=schema.names)
        counts = [part.num_rows for part in copied]
        if not table.schema.equals(schema) or min(counts) < 0 or sum(counts) != len(table):
            return None
        return checked(table, schema), copied
    except Exception:  # a damaged file fails in many ways
        return None
