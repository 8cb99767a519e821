"""Images that stay in a file: of them, only those that are asked for are read."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np

from nls_tune.errors import InputError

#: Images of fewer bytes than this are held in memory, unless the variable names another number of bytes.
_SMALL_BYTES = 256 << 20
STREAM_VARIABLE = "NLS_TUNE_STREAM_BYTES"


@dataclass(frozen=True, eq=False)
class MappedImages:
    """Images (N, C, H, W) uint8 in a file .npy, of which they are the ``rows``; ``image_shape`` is (C, H, W).

    Indexing with a slice or an array selects images and reads none; with a number it reads one, and ``numpy.asarray``
    reads all. Other processes get the name of the file.
    """

    file: Path
    rows: np.ndarray
    image_shape: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self.rows), *self.image_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a pixel: uint8."""
        return np.dtype(np.uint8)

    @property
    def ndim(self) -> int:
        """4."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """The memory that all of the images would take."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray) -> MappedImages: ...
    def __getitem__(self, index: int | np.integer[Any] | slice | np.ndarray) -> np.ndarray | MappedImages:
        if isinstance(index, int | np.integer):
            return np.array(open_images(self.file)[self.rows[index]])
        return replace(self, rows=self.rows[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.read(np.empty(self.shape, np.uint8)).astype(dtype or np.uint8, copy=False)

    def read(self, out: np.ndarray) -> np.ndarray:
        """Read all of the images into an array of their shape, and return it."""
        # With the mode "raise" numpy would make a copy first; the rows are known to be right.
        return np.take(open_images(self.file), self.rows, axis=0, out=out, mode="clip")


#: Inputs as a dataset holds them.
InputArray = np.ndarray | MappedImages


def small_bytes() -> int:
    """Return from how many bytes on images stay in their file."""
    try:
        return int(os.environ.get(STREAM_VARIABLE, _SMALL_BYTES))
    except ValueError:
        raise InputError(f"{STREAM_VARIABLE} must be a number of bytes, got {os.environ[STREAM_VARIABLE]!r}") from None


@lru_cache(maxsize=4)
def open_images(file: Path) -> np.ndarray:
    """Return the images of a file, mapped."""
    try:
        images = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError):
        raise InputError(
            f"the decoded images {file} are gone; start the same command again, which makes them"
        ) from None
    with suppress(OSError):
        os.utime(file.parent)  # what is used is kept
    return images
