"""Tables of a user's own: CSV, Parquet, a dataset that Hugging Face's library saved, or a data frame."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nls_tune.datasets.contents import ShardedContents, without_bytes
from nls_tune.datasets.parquet import find_shards
from nls_tune.datasets.samples import Picture, PictureRows, counted, listed
from nls_tune.errors import InputError, unknown_name

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_SEPARATORS = (",", ";", "\t", "|")
_SHOWN = 20


@dataclass(frozen=True)
class Frame:
    """A table: its columns of plain values, and its images where it has a column of them.

    Columns of a CSV file hold texts, since only they say how a number was written; ``typed`` is False then.
    ``class_names`` are the names of the classes that a column of numbers stands for, by column.
    """

    where: str
    columns: pd.DataFrame
    typed: bool
    pictures: Sequence[Picture] = ()
    class_names: dict[str, list[str]] | None = None
    notes: tuple[str, ...] = ()

    def column(self, name: str, flag: str) -> pd.Series[Any]:
        """Return a column; of an unknown name, an InputError names the nearest one."""
        if name not in self.columns:
            self._check_header(name, flag)
            names = [str(column) for column in self.columns]
            if len(names) > _SHOWN:
                names = difflib.get_close_matches(name, names, _SHOWN, cutoff=0)
            raise InputError(f"{flag}: {unknown_name(f'column of {self.where}', name, names)}")
        return self.columns[name]

    def _check_header(self, name: str, flag: str) -> None:
        header = [str(column) for column in self.columns]
        if not self.typed and all(cell.replace(".", "").replace("-", "").isdigit() for cell in header):
            raise InputError(
                f"{self.where} has no column {name!r} for {flag}: its first line is {listed(header)}; "
                "write the names of the columns there"
            )


def read_frame(table: Path | pd.DataFrame, *, where: str = "the data frame", with_images: bool = True) -> Frame:
    """Read a table.

    Raises:
        InputError: If the file is missing, damaged, empty, or not a table.
    """
    if not isinstance(table, Path):
        frame = _typed(where, table)
    elif table.is_dir():
        frame = _read_folder(table, with_images)
    elif not table.exists():
        raise InputError(f"{table} does not exist; give a CSV file, a Parquet file, or a folder of Parquet files")
    elif table.suffix.lower() in (".csv", ".tsv", ".txt"):
        frame = _read_csv(table)
    elif table.suffix.lower() in (".parquet", ".pq"):
        frame = _read_parquet([table], str(table), with_images)
    else:
        raise InputError(f"{table} must be a file .csv, .tsv or .parquet, or a folder; convert it to one of these")
    if not len(frame.columns) and not frame.pictures:
        raise InputError(f"{frame.where} holds no rows")
    return frame


def _typed(where: str, columns: pd.DataFrame, **more: Any) -> Frame:
    columns = columns.reset_index(drop=True)
    columns.columns = [str(column) for column in columns.columns]
    _check_names(where, list(columns.columns))
    return Frame(where, columns, typed=True, **more)


def _check_names(where: str, names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()):
        raise InputError(
            f"{where} has {counted(len(twice), 'column name')} more than once ({listed(twice)}); rename or remove them"
        )


def _read_csv(file: Path) -> Frame:
    import pandas as pd

    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            first = lines.readline()
            separator = max(_SEPARATORS, key=first.count)
            _check_names(str(file), next(csv.reader([first], delimiter=separator), []))
        # As texts: numbers are read once all of a column are known.
        columns = pd.read_csv(
            file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
        )
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 (byte {error.start:,}: {error.reason}); save it as UTF-8") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{file} is empty") from None
    except (pd.errors.ParserError, csv.Error, ValueError, OSError) as error:
        reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        raise InputError(f"{file} cannot be read as CSV ({reason}); correct it") from None
    columns.columns = [str(column).strip() for column in columns.columns]
    notes: tuple[str, ...] = ()
    if first.startswith((separator, f'""{separator}')):  # pandas writes its row numbers so
        columns = columns.iloc[:, 1:]
        notes = (f"the first column of {file} has no name and is left out, as row numbers",)
    return Frame(str(file), columns, typed=False, notes=notes)


def _read_folder(folder: Path, with_images: bool) -> Frame:
    """Read a folder that Hugging Face's library saved, or one of Parquet files."""
    if (folder / "dataset_dict.json").is_file():
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise InputError(f"{folder} holds several splits ({', '.join(names)}); give one, --table {folder / 'train'}")
    if (folder / "state.json").is_file():
        return _read_saved(folder, with_images)
    shards = find_shards(folder, "train") or sorted(folder.glob("*.parquet"))
    if not shards:
        raise InputError(
            f"{folder} holds no table: neither *.parquet nor a dataset saved with save_to_disk; give the table's file"
        )
    return _read_parquet(shards, str(folder), with_images)


def _read_saved(folder: Path, with_images: bool) -> Frame:
    import pyarrow as pa

    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in state["_data_files"]]
        if outside := [name for name in names if Path(name).name != name]:
            raise InputError(f"{folder / 'state.json'} names a file outside of its folder ({listed(outside)})")
        tables = []
        for name in names:
            with pa.memory_map(str(folder / name)) as file, pa.ipc.open_stream(file) as stream:
                tables.append(stream.read_all())
        table = pa.concat_tables(tables)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{folder} cannot be read as a saved dataset ({reason}); save it again") from None
    return _from_arrow(table, str(folder), with_images)


def _read_parquet(files: Sequence[Path], where: str, with_images: bool) -> Frame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, images, counts = [], [], []
    for file in files:
        try:
            opened = pq.ParquetFile(file)
            schema = opened.schema_arrow
            found = [field for field in schema if _holds_images(field)]
            others = [name for name in schema.names if name not in {field.name for field in found}]
            tables.append((schema.names, opened.read(columns=others)))
            images.append(found)
            counts.append(opened.metadata.num_rows)
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{file} cannot be read as Parquet ({reason}); replace it by an intact copy") from None
    for file, (names, _) in zip(files, tables, strict=True):
        _check_names(str(file), names)
        if names != tables[0][0]:
            raise InputError(f"{file} has other columns than {files[0]}; keep the files of one table only")
    column = _one_of_images([field.name for field in images[0]], where) if with_images else None
    table = pa.concat_tables([plain for _, plain in tables], promote_options="permissive")
    pictures: Sequence[Picture] = ()
    if column is not None:
        pictures = PictureRows(sum(counts), ShardedContents(files, column, where).read)
    return _typed(where, _plain(table), pictures=pictures, class_names=_class_names(table.schema.metadata))


def _one_of_images(names: Sequence[str], where: str) -> str | None:
    if len(names) > 1:
        raise InputError(f"{where} has {len(names)} columns of images ({listed(names)}); keep one")
    return names[0] if names else None


def _from_arrow(table: pa.Table, where: str, with_images: bool) -> Frame:
    """Return a table that lies in mapped files: of its images only those that are asked for are read."""
    import pyarrow as pa

    images = [field.name for field in table.schema if _holds_images(field)]
    name, column = _one_of_images(images, where) if with_images else None, None
    if name is not None:
        column = table.column(name)
        if pa.types.is_struct(column.type):
            column = pa.chunked_array([chunk.field("bytes") for chunk in column.chunks])
        if column.null_count:
            absent = [row for row in range(len(column)) if not column[row].is_valid]
            raise without_bytes(name, where, len(absent), absent[0])
    plain = _plain(table.drop_columns(images))
    pictures: Sequence[Picture] = ()
    if column is not None:
        pictures = PictureRows(len(column), lambda start, stop: column.slice(start, stop - start).to_pylist())
    return _typed(where, plain, pictures=pictures, class_names=_class_names(table.schema.metadata))


def _plain(table: pa.Table) -> pd.DataFrame:
    """Return columns for pandas: a named index is one of them, and row numbers without a name are none."""
    table = table.drop_columns([name for name in table.schema.names if name.startswith("__index_level_")])
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    return frame


def _holds_images(field: pa.Field) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(field.type):
        return bool(field.type.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type))


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return the names of classes that Hugging Face's library keeps in a table's metadata, by column."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: [str(one) for one in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
