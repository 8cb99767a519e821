"""Decoded images, kept in the user's cache folder: a file of uint8 that processes map, and of which none copies all."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nls_tune.datasets.cache import META, checksum_of, new_entry, warn_once
from nls_tune.datasets.decoding import Failure, Size, decode, image_digest
from nls_tune.datasets.downloads import locked
from nls_tune.datasets.locations import cache_folder
from nls_tune.datasets.mapped import InputArray, MappedImages, open_images, small_bytes
from nls_tune.datasets.progress import Progress
from nls_tune.datasets.samples import Picture
from nls_tune.errors import InputError
from nls_tune.files import parse_json, seal_holds, sealed_json

_logger = logging.getLogger(__name__)
_FORMAT = 1  # raise it when the same pictures are decoded to other pixels
_PIXELS, _DIGESTS = "images.npy", "digests.npy"
#: Images whose pixels are compared with their digest before a large file is used.
_PROBES = 64
#: An entry that no process has used for so long is removed, and so is what a process that was killed left behind.
_UNUSED_SECONDS, _ABANDONED_SECONDS = 30 * 86_400.0, 86_400.0
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """Decoded pictures in their order.

    ``pixels`` (N, C, H, W) uint8 have one channel where all pictures are grey; they lie in ``file``, or in memory.
    ``digests`` (N, 32) uint8 are the SHA-256 of each image, and ``failures`` the pictures that cannot be read.
    """

    pixels: np.ndarray
    digests: np.ndarray
    failures: tuple[Failure, ...]
    file: Path | None = None

    def mapped_file(self) -> Path | None:
        """Return the file in which the images stay; None where all of them are few bytes."""
        return None if self.pixels.nbytes < small_bytes() else self.file

    def take(self, rows: np.ndarray) -> InputArray:
        """Return some of the images, in memory or mapped."""
        if (file := self.mapped_file()) is None:
            return np.asarray(self.pixels[rows])
        return MappedImages(file, rows, self.pixels.shape[1:])


def decoded_images(
    parts: Sequence[Sequence[Picture]], digests: Sequence[str], size: Size, *, progress: Progress = True
) -> DecodedImages:
    """Decode pictures to one size, or take them from the cache, where the same ones were decoded before.

    The ``digests`` are those of the parts' `Survey`. Of several processes that want the same images one decodes them.
    Arrays of few bytes stay in memory: there is nothing to decode. If the cache cannot be written, small images are
    decoded each time.

    Raises:
        InputError: If the cache cannot be written and the images are too large to do without.
    """
    num_bytes = 3 * size[0] * size[1] * sum(map(len, parts))
    small = num_bytes < small_bytes()
    if small and all(isinstance(one.content, np.ndarray) for pictures in parts for one in pictures[:1]):
        return _in_memory(parts, size, progress)
    folder = cache_folder() / "images"
    key = hashlib.sha256(json.dumps([_FORMAT, size, list(digests)]).encode()).hexdigest()[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / key):
            if (found := _read(folder / key)) is None:
                remove_unused(folder, key)
                _check_space(folder, num_bytes)
                _make(folder / key, parts, size, progress)
                open_images.cache_clear()
                found = _read(folder / key)
            if found is not None:
                return found
        raise OSError(errno.EIO, "what is written is not what is read")
    except OSError as error:
        reason = error.strerror or str(error)
        if not small:
            raise InputError(
                f"the decoded images, {num_bytes / 1e9:.1f} GB, cannot be kept in {folder} ({reason}); "
                "set XDG_CACHE_HOME to a folder with more space, or give a smaller --image-size"
            ) from None
        warn_once(folder, reason)
        return _in_memory(parts, size, progress)


def _in_memory(parts: Sequence[Sequence[Picture]], size: Size, progress: Progress) -> DecodedImages:
    windows: list[np.ndarray] = []
    done = decode(parts, size, windows.append, progress=progress)
    pixels = np.concatenate([window[:, : 1 if done.grey else 3] for window in windows])
    return DecodedImages(pixels, _as_array(done.digests), tuple(done.failures))


def _as_array(digests: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), 32)


def _make(entry: Path, parts: Sequence[Sequence[Picture]], size: Size, progress: Progress) -> None:
    shape: tuple[int, ...] = (sum(map(len, parts)), 3, *size)
    with new_entry(entry) as made:
        file = made / _PIXELS
        # Not through a map, where a full disk ends the process.
        with file.open("wb") as stream:
            _write_head(stream, shape)
            done = decode(parts, size, lambda pixels: stream.write(pixels.data), progress=progress)
        if done.grey:
            shape = _to_grey(file, shape)
        digests = _as_array(done.digests)
        np.save(made / _DIGESTS, digests, allow_pickle=False)
        meta = {"shape": shape, "bytes": file.stat().st_size, "digests": checksum_of(digests), "failed": done.failures}
        (made / META).write_text(sealed_json(json.dumps(meta)))


def _write_head(stream: BinaryIO, shape: tuple[int, ...]) -> None:
    head = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, head)


def _to_grey(file: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Write a file of grey images anew, with the first of their equal channels alone."""
    colour, narrow = np.load(file, mmap_mode="r"), (shape[0], 1, *shape[2:])
    file.unlink()
    with file.open("wb") as stream:
        _write_head(stream, narrow)
        for start in range(0, shape[0], _BLOCK):
            stream.write(np.ascontiguousarray(colour[start : start + _BLOCK, :1]).data)
    return narrow


def _read(entry: Path) -> DecodedImages | None:
    """Return what an entry holds; None if there is none, or a torn one."""
    try:
        content = (entry / META).read_bytes()
        if not seal_holds(content):
            raise ValueError(f"{META} has changed")
        meta = parse_json(content)
        digests = np.load(entry / _DIGESTS, allow_pickle=False)
        pixels = np.asarray(np.load(entry / _PIXELS, mmap_mode="r", allow_pickle=False))
        if (entry / _PIXELS).stat().st_size != meta["bytes"] or pixels.shape != tuple(meta["shape"]):
            raise ValueError(f"{_PIXELS} is another file")
        if checksum_of(digests) != meta["digests"] or pixels.dtype != np.uint8:
            raise ValueError(f"{_DIGESTS} has changed")
        probes = len(pixels) if pixels.nbytes < small_bytes() else _PROBES
        for row in np.unique(np.linspace(0, len(pixels) - 1, probes).astype(int)):
            if image_digest(pixels[row]) != digests[row].tobytes():
                raise ValueError(f"image {row} of {_PIXELS} has changed")
        with suppress(OSError):
            entry.touch()  # in use
        return DecodedImages(pixels, digests, tuple(Failure(*one) for one in meta["failed"]), entry / _PIXELS)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever is wrong with an entry, making it again is right
        _logger.info("decoded images in %s are damaged and are made again (%s)", entry, error)
        return None


def _check_space(folder: Path, num_bytes: int) -> None:
    if (free := shutil.disk_usage(folder).free) < num_bytes:
        raise OSError(errno.ENOSPC, f"{free / 1e9:.1f} GB are free there")


def remove_unused(folder: Path, key: str) -> None:
    """Remove entries that nobody uses any more, and what killed processes left behind; that of a key at once."""
    for path in folder.iterdir():
        with suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if path.name.endswith(".lock"):
                continue
            left = path.name.startswith(".")
            if path.name.startswith(f".{key}-") or age > (_ABANDONED_SECONDS if left else _UNUSED_SECONDS):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
