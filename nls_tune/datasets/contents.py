"""The encoded images of Parquet files, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from nls_tune.datasets.samples import counted
from nls_tune.errors import InputError

#: Rows that are decompressed at a time.
_ROWS = 64


class ShardedContents:
    """A column of images in several files, which is cheap to read from its beginning to its end."""

    def __init__(self, files: Sequence[Path], column: str, where: str) -> None:
        self._files, self._column, self._where = files, column, where
        self._next = 0
        self._contents: Iterator[bytes | None] = self._from(0)

    def read(self, start: int, stop: int) -> list[bytes]:
        """Return the encoded images of the rows from ``start`` to before ``stop``.

        Raises:
            InputError: A file cannot be read, or a row holds no image.
        """
        if start != self._next:
            self._contents = self._from(start)
        found = list(islice(self._contents, stop - start))
        self._next = start + len(found)
        if None in found:
            absent = [row for row, content in enumerate(self._from(0)) if content is None]
            raise without_bytes(self._column, self._where, len(absent), absent[0])
        return [content for content in found if content is not None]

    def _from(self, start: int) -> Iterator[bytes | None]:
        """Yield the contents of all rows from one on."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for file in self._files:
            try:
                opened = pq.ParquetFile(file, memory_map=True, pre_buffer=False)
                sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.metadata.num_row_groups)]
                groups = list(range(len(sizes)))
                while groups and start >= sizes[groups[0]]:
                    start -= sizes[groups.pop(0)]
                for batch in opened.iter_batches(_ROWS, groups, [self._column]) if groups else ():
                    contents = batch.column(0)
                    if pa.types.is_struct(contents.type):
                        contents = contents.field("bytes")
                    yield from contents.slice(start).to_pylist()
                    start = max(0, start - len(contents))
            except (pa.ArrowException, OSError) as error:
                reason = " ".join(str(error).split())[:120]
                raise InputError(f"{file} cannot be read as Parquet ({reason}); replace it by an intact copy") from None


def without_bytes(column: str, where: str, number: int, first: int) -> InputError:
    """Return the error for a column of images in which some rows hold none."""
    return InputError(
        f"column {column} of {where} holds no bytes in {counted(number, 'row')} (first: row {first}); "
        "store the images themselves, not only their paths"
    )
