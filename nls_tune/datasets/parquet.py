"""Images in Parquet files, as Hugging Face lays them out: a column of {bytes, path}, a column of labels."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from nls_tune.datasets.progress import Progress, show_progress
from nls_tune.errors import InputError
from nls_tune.machine.limits import usable_cpus

_IMAGE_COLUMNS = ("img", "image")
_SHARD = re.compile(r"-(\d+)-of-(\d+)\.parquet$")
_ROWS_PER_TASK = 500


def find_shards(folder: Path, split: str) -> list[Path]:
    """Return the Parquet files of one split, ``SPLIT.parquet`` or ``SPLIT-*.parquet``, in order; there may be none.

    Raises:
        InputError: Of the parts that the names count (``train-00000-of-00002.parquet``) one is missing, or superfluous.
    """
    shards = sorted([*folder.glob(f"{split}.parquet"), *folder.glob(f"{split}-*.parquet")])
    numbers = [match for shard in shards if (match := _SHARD.search(shard.name))]
    if not numbers:
        return shards
    totals = {int(match[2]) for match in numbers}
    if len(totals) > 1 or len(numbers) < len(shards):
        raise InputError(
            f"{folder} must hold one set of {split}-*.parquet files, but has {', '.join(s.name for s in shards)}; "
            "keep the files of one set only"
        )
    total = totals.pop()
    missing = sorted(set(range(total)) - {int(match[1]) for match in numbers})
    if missing:
        names = ", ".join(f"{split}-{number:05d}-of-{total:05d}.parquet" for number in missing)
        raise InputError(f"{folder} has {len(numbers)} of {total} {split} files; put {names} there")
    return shards


def read_images(
    shards: Sequence[Path],
    *,
    label_columns: Sequence[str],
    num_classes: int,
    image_shape: tuple[int, ...],
    progress: Progress = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Read and decode the images of Parquet files, in order: (N, C, H, W) uint8, and labels (N,) int64.

    The label column is the first of ``label_columns`` that is there, with labels 0 to ``num_classes`` - 1. Every image
    has the shape (C, H, W); C is 1 (grey) or 3 (RGB).

    Raises:
        InputError: A file cannot be read, lacks a column, has a label out of range or an image that cannot be
            decoded or is of another size or mode.
    """
    tables = [_read_table(shard, label_columns, num_classes) for shard in shards]
    labels = np.concatenate([labels for _, labels in tables])
    channels, height, width = image_shape
    pixels = np.empty((len(labels), height, width, channels), dtype=np.uint8)
    # Pillow decodes without holding the interpreter's lock, so threads share the work and the memory.
    with (
        ThreadPoolExecutor(min(16, usable_cpus())) as pool,
        show_progress(progress, "decoding images", len(labels)) as update,
    ):
        tasks = _tasks(shards, [images for images, _ in tables])
        for done in accumulate(pool.map(lambda task: _decode(*task, pixels=pixels), tasks)):
            update(done)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), labels


def _read_table(file: Path, label_columns: Sequence[str], num_classes: int) -> tuple[Any, np.ndarray]:
    import pyarrow as pa  # slow to import, and generated data do without
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(file).names
        image_column = _first(file, "image", _IMAGE_COLUMNS, names)
        label_column = _first(file, "label", label_columns, names)
        table = pq.read_table(file, columns=[image_column, label_column])
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file} cannot be read as Parquet ({reason}); replace it by an intact copy") from error
    images = table.column(image_column).combine_chunks()
    if not pa.types.is_struct(images.type) or images.type.get_field_index("bytes") < 0:
        raise InputError(f"column {image_column} of {file} must be a struct of bytes and path, not {images.type}")
    labels = table.column(label_column)
    if not pa.types.is_integer(labels.type) or labels.null_count:
        nulls = f" with {labels.null_count} nulls" if labels.null_count else ""
        raise InputError(f"column {label_column} of {file} must hold whole numbers, not {labels.type}{nulls}")
    values = labels.to_numpy().astype(np.int64)
    wrong = np.flatnonzero((values < 0) | (values >= num_classes))
    if len(wrong):
        raise InputError(
            f"labels must be 0 to {num_classes - 1}, but {file} has {values[wrong[0]]} in row {wrong[0]} of "
            f"column {label_column}; it is not the file of this dataset"
        )
    return images.field("bytes"), values


def _first(file: Path, kind: str, wanted: Sequence[str], names: Sequence[str]) -> str:
    """Return the first of the wanted columns that a file has."""
    for name in wanted:
        if name in names:
            return name
    raise InputError(
        f"{file} needs the {kind} column {' or '.join(wanted)}, but has {', '.join(names)}; "
        "it is not the file of this dataset"
    )


def _tasks(shards: Sequence[Path], columns: Sequence[Any]) -> Iterator[tuple[Path, Any, int, int]]:
    """Yield slices of the images: file, column, first row in the file, place among all images."""
    offset = 0
    for shard, column in zip(shards, columns, strict=True):
        for start in range(0, len(column), _ROWS_PER_TASK):
            yield shard, column.slice(start, _ROWS_PER_TASK), start, offset + start
        offset += len(column)


def _decode(file: Path, column: Any, row: int, offset: int, *, pixels: np.ndarray) -> int:
    """Decode a slice that starts at ``row`` of its file into ``pixels``, from ``offset`` on; return its length."""
    from PIL import Image  # slow to import, and generated data do without

    _, height, width, channels = pixels.shape
    mode = "L" if channels == 1 else "RGB"
    for index, encoded in enumerate(column):
        try:
            with Image.open(io.BytesIO(encoded.as_buffer())) as image:
                if image.size != (width, height) or image.mode != mode:
                    raise InputError(
                        f"images must be {width} x {height} {mode}, but row {row + index} of {file} is "
                        f"{image.size[0]} x {image.size[1]} {image.mode}; it is not the file of this dataset"
                    )
                pixels[offset + index] = np.asarray(image).reshape(height, width, channels)
        except InputError:
            raise
        # Pillow's decoders also raise SyntaxError and ValueError for damaged files.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(
                f"the image in row {row + index} of {file} cannot be decoded ({error}); "
                "replace the file by an intact copy"
            ) from error
    return len(column)
