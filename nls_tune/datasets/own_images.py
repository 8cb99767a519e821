"""Own images: found in folders or named by a table, and decoded to one size."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nls_tune.datasets.progress import Progress, show_progress
from nls_tune.datasets.samples import Picture, Samples, counted, listed
from nls_tune.errors import InputError
from nls_tune.machine.limits import usable_cpus

if TYPE_CHECKING:
    from PIL.Image import Image

#: Images of one size up to this side keep it; others are brought to ``DEFAULT_SIDE`` unless a size is asked for.
LARGEST_KEPT = 64
DEFAULT_SIDE = 32
#: More pixels than this are a decompression bomb: Pillow's own limit.
_MOST_PIXELS = 89_478_485
_SPLITS = {"train", "training", "val", "valid", "validation", "test"}
_PER_TASK = 64
#: Tags and modes of Pillow: the orientation in EXIF, and greyscale of 16 bits.
_ORIENTATION, _DEEP = 0x0112, ("I", "I;16", "I;16B", "I;16L")


class _Failure(NamedTuple):
    row: int
    name: str
    reason: str


class _BombError(Exception):
    """An image that would decode to more pixels than an image has."""


def find_images(folder: Path) -> Samples:
    """Return the images of a folder that holds one folder per class.

    Raises:
        InputError: If the folder is missing or empty, has images outside of the class folders, or links out of it.
    """
    files = image_files(folder)
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if "train" in classes and set(classes) <= _SPLITS:
        others = [name for name in classes if name != "train"]
        test = f" --test {folder / others[0]}" if others else ""
        raise InputError(
            f"the folders {', '.join(classes)} of {folder} look like splits, not classes; "
            f"give --images {folder / 'train'}{test}"
        )
    loose = [name for name in files if len(name.parts) == 1]
    if loose and not classes:
        raise InputError(
            f"{folder} holds {counted(len(loose), 'image')} and no folder per class; "
            "make one folder per class, or name the labels with --table FILE --label COLUMN"
        )
    if loose:
        raise InputError(
            f"{counted(len(loose), 'image')} of {folder} lie outside of its class folders ({listed(loose)}); "
            "move them into one, or away"
        )
    if not files:
        raise InputError(f"{folder} holds no images that can be read; give a folder with one folder per class")
    if empty := sorted(set(classes) - {name.parts[0] for name in files}):
        raise InputError(
            f"{counted(len(empty), 'class folder')} of {folder} hold no images ({listed(empty)}); fill or remove them"
        )
    labels = np.array([name.parts[0] for name in files], dtype=object)
    return Samples(str(folder), labels, tuple(Picture(str(name), path) for name, path in files.items()))


def image_files(folder: Path) -> dict[Path, Path]:
    """Return the image files in a folder and below, by their path relative to it, in the order of the names.

    Raises:
        InputError: If the folder is missing or not a folder, or holds links out of it.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"--images must be a folder, {folder} {what}")
    root, endings = folder.resolve(), _readable()[0]
    found, outside = {}, []
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [*folders, *names]:
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                outside.append(path.relative_to(root))
            elif name in names and path.suffix.lower() in endings and not name.startswith("."):
                found[path.relative_to(root)] = path
    if outside:
        raise InputError(
            f"{counted(len(outside), 'link')} in {folder} lead out of it ({listed(sorted(outside))}); "
            "copy the files into it"
        )
    return dict(sorted(found.items()))


def pictures_of_table(folder: Path, names: Sequence[str | None], where: str) -> list[Picture]:
    """Return the pictures that a table names, relative to a folder.

    Raises:
        InputError: For names that are missing, lead out of the folder, or have no file.
    """
    image_files(folder)  # checks the folder and its links
    root = folder.resolve()
    if missing := [row for row, name in enumerate(names) if not name]:
        raise InputError(f"{where} names no file in {counted(len(missing), 'row')} (first: row {missing[0]})")
    paths = [Path(str(name)) for name in names]
    outside = [p for p in paths if p.is_absolute() or not Path(os.path.normpath(root / p)).is_relative_to(root)]
    if outside:
        raise InputError(
            f"{counted(len(outside), 'path')} in {where} lead out of {folder} ({listed(outside)}); "
            "write them relative to --images"
        )
    if absent := [path for path in paths if not (root / path).is_file()]:
        raise InputError(
            f"{counted(len(absent), 'label')} in {where} have no file in {folder} ({listed(absent)}); "
            "add the files or remove the rows"
        )
    return [Picture(str(path), root / path) for path in paths]


def check_unlabelled(folder: Path, tables: Sequence[Samples], skip: bool) -> tuple[str, ...]:
    """Refuse the images of a folder that no table names, or return a note on them if they may be left out."""
    named = {Path(os.path.normpath(picture.name)) for samples in tables for picture in samples.pictures}
    unnamed = [name for name in image_files(folder) if name not in named]
    if not unnamed:
        return ()
    if not skip:
        raise InputError(
            f"{counted(len(unnamed), 'image')} of {folder} have no label ({listed(unnamed)}); "
            "add rows for them, or leave them out with --skip-unreadable"
        )
    return (f"{counted(len(unnamed), 'image')} without a label left out of {folder}",)


# Decoding


def target_size(samples: Samples, side: int | None) -> tuple[tuple[int, int], str | None]:
    """Return height and width of the decoded images, and a note where they are not the images' own or asked for.

    Without a ``side``, small images of one size keep it, and all others become squares.
    """
    if side is not None:
        return (side, side), None
    with ThreadPoolExecutor(min(16, usable_cpus())) as pool, _quiet():
        sizes = set(pool.map(_size, samples.pictures)) - {None}
    if len(sizes) == 1 and (size := sizes.pop()) is not None and max(size) <= LARGEST_KEPT:
        return size, None
    note = f"images are brought to {DEFAULT_SIDE} x {DEFAULT_SIDE} pixels; --image-size changes that"
    return (DEFAULT_SIDE, DEFAULT_SIDE), note


def decode(samples: Samples, size: tuple[int, int], *, skip: bool | None, progress: Progress = True) -> Samples:
    """Decode the pictures of some samples to RGB of one size: the shorter side is resized, the centre cropped.

    Raises:
        InputError: For pictures that cannot be read, unless they are to be left out; None: no command could do that.
    """
    pictures = samples.pictures
    pixels = np.empty((len(pictures), *size, 3), dtype=np.uint8)
    failures: list[_Failure] = []

    def work(start: int) -> int:
        rows = range(start, min(start + _PER_TASK, len(pictures)))
        for row in rows:
            try:
                with _opened(pictures[row].content) as image:
                    pixels[row] = _fitted(image, size)
            except Exception as error:  # the decoders of damaged files raise errors of many kinds
                failures.append(_Failure(row, pictures[row].name, _reason(pictures[row], error)))
        return len(rows)

    # Pillow decodes without holding the interpreter's lock, so threads share the work and the memory.
    with (
        ThreadPoolExecutor(min(16, usable_cpus())) as pool,
        show_progress(progress, "decoding images", len(pictures)) as update,
        _quiet(),
    ):
        for done in accumulate(pool.map(work, range(0, len(pictures), _PER_TASK))):
            update(done)
    samples = replace(samples, pixels=pixels)
    if not failures:
        return samples
    failures.sort()
    shown = listed(f"{failure.name}: {failure.reason}" for failure in failures)
    if not skip or len(failures) == len(pictures):
        way = "replace or remove them" if skip is None else "replace them, or leave them out with --skip-unreadable"
        raise InputError(
            f"{len(failures):,} of {counted(len(pictures), 'image')} in {samples.where} cannot be read ({shown}); {way}"
        )
    kept = np.setdiff1d(np.arange(len(pictures)), [failure.row for failure in failures])
    note = f"{counted(len(failures), 'image')} of {samples.where} cannot be read and are left out ({shown})"
    return replace(samples.take(kept), notes=(*samples.notes, note))


def grey_if_all_are(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return RGB images (N, H, W, 3) as (N, C, H, W): one channel if none of them is in colour."""
    colour = any(not np.array_equal(rgb[..., 0], rgb[..., i]) for rgb in parts for i in (1, 2))
    return [np.ascontiguousarray(rgb[..., : 3 if colour else 1].transpose(0, 3, 1, 2)) for rgb in parts]


@cache
def _readable() -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the endings and the formats that Pillow reads by itself: EPS would run another program."""
    from PIL import Image  # slow to import, and other data do without

    endings = Image.registered_extensions()
    formats = tuple(sorted(name for name in Image.OPEN if name != "EPS"))
    return frozenset(ending for ending, name in endings.items() if name in formats), formats


def _opened(content: Path | bytes | np.ndarray) -> Image:
    from PIL import Image

    if isinstance(content, np.ndarray):
        return Image.fromarray(content[..., 0] if content.ndim == 3 and content.shape[2] == 1 else content)
    image = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=_readable()[1])
    if image.width * image.height > _MOST_PIXELS:
        raise _BombError(f"{image.width} x {image.height} pixels")
    return image


def _size(picture: Picture) -> tuple[int, int] | None:
    """Return height and width of a picture as it is to be seen, from its head alone; None if it cannot be read."""
    if isinstance(picture.content, np.ndarray):
        return picture.content.shape[0], picture.content.shape[1]
    try:
        with _opened(picture.content) as image:
            # Pillow decodes the whole of a PNG to look for EXIF behind its pixels, where hardly any has some.
            has_exif = image.format != "PNG" or "exif" in image.info
            turned = has_exif and image.getexif().get(_ORIENTATION, 1) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception:  # it is refused, or left out, when it is decoded
        return None


def _fitted(image: Image, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image as Images
    from PIL import ImageOps

    image.load()  # EXIF of some formats stands behind the pixels
    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP:
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65_535)
        image = Images.fromarray((values // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its pixels are real numbers")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Images.alpha_composite(Images.new("RGBA", rgba.size, "white"), rgba)
    image = image.convert("RGB")
    if image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], Images.Resampling.BILINEAR)
    return np.asarray(image)


def _reason(picture: Picture, error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    content = picture.content
    length = content.stat().st_size if isinstance(content, Path) else len(content)
    if length == 0:
        return "it is empty"
    if isinstance(error, _BombError | Image.DecompressionBombError):
        return f"a decompression bomb, {error}" if isinstance(error, _BombError) else "a decompression bomb"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split())[:80] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings of large images and odd files: what matters is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
