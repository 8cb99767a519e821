"""Tables for other programs: CSV and Parquet files."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from nls_tune.errors import InputError
from nls_tune.files import write_atomically


def check_table_file(path: Path) -> None:
    """Complain of a file that cannot be written before the work, not after it."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"--out must end in .csv or .parquet, got {path}")
    if path.is_dir():
        raise InputError(f"--out must be a file, {path} is a folder; give another name")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--out must be in a folder that exists, {path.parent} does not; make it or give another")


def write_table_file(path: Path, table: pa.Table) -> None:
    """Write a table to a .csv or .parquet file, which is there whole or not at all."""
    check_table_file(path)
    content = io.BytesIO()
    if path.suffix.lower() == ".csv":
        pyarrow.csv.write_csv(table, content)
    else:
        pq.write_table(table, content)
    write_atomically(path, content.getbuffer())
