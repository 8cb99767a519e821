"""Decodes images of any kind to one size, some at a time: however many there are, few are in memory."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from nls_tune.datasets.progress import Progress, show_progress
from nls_tune.datasets.samples import Picture
from nls_tune.machine.limits import usable_cpus

if TYPE_CHECKING:
    from PIL.Image import Image

#: Images of one size up to this side keep it; others are brought to ``DEFAULT_SIDE`` unless a size is asked for.
LARGEST_KEPT = 64
DEFAULT_SIDE = 32
#: More pixels than this are a decompression bomb: Pillow's own limit.
_MOST_PIXELS = 89_478_485
#: Pictures that are in memory at once, and the bytes that they may have when they are decoded.
_WINDOW, _WINDOW_BYTES = 256, 1 << 25
_PER_TASK = 16
#: Tags and modes of Pillow: the orientation in EXIF, and greyscale of 16 bits.
_ORIENTATION, _DEEP = 0x0112, ("I", "I;16", "I;16B", "I;16L")

_Found = TypeVar("_Found")
Size = tuple[int, int]
Content = Path | bytes | np.ndarray


class Failure(NamedTuple):
    """A picture that cannot be read: its place among all, its name, and why."""

    row: int
    name: str
    reason: str


class Survey(NamedTuple):
    """What is known of pictures that are not decoded: heights and widths, and the SHA-256 of what they hold."""

    sizes: frozenset[Size]
    digest: str


class Decoding(NamedTuple):
    """What was found while pictures were decoded: the SHA-256 of each, whether all are grey, and what failed."""

    digests: list[bytes]
    grey: bool
    failures: list[Failure]


class _BombError(Exception):
    """An image that would decode to more pixels than an image has."""


@cache
def readable() -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the endings and the formats that Pillow reads by itself: EPS would run another program."""
    from PIL import Image  # slow to import, and other data do without

    endings = Image.registered_extensions()
    formats = tuple(sorted(name for name in Image.OPEN if name != "EPS"))
    return frozenset(ending for ending, name in endings.items() if name in formats), formats


def survey(pictures: Sequence[Picture], *, progress: Progress = True) -> Survey:
    """Return the sizes and the digest of pictures, in their order, without decoding them."""
    digest, sizes = hashlib.sha256(), set()
    with _threads() as pool, show_progress(progress, "looking at images", len(pictures)) as update:
        for start, window in _windows(pictures, _WINDOW):
            for size, found in _in_threads(pool, _look, window):
                digest.update(found)
                sizes.add(size)
            update(start + len(window))
    return Survey(frozenset(size for size in sizes if size is not None), digest.hexdigest())


def target_size(found: Survey, side: int | None) -> tuple[Size, str | None]:
    """Return height and width of the decoded images, and a note where they are not the images' own or asked for.

    Without a ``side``, small images of one size keep it, and all others become squares.
    """
    if side is not None:
        return (side, side), None
    if len(found.sizes) == 1 and max(size := next(iter(found.sizes))) <= LARGEST_KEPT:
        return size, None
    note = f"images are brought to {DEFAULT_SIDE} x {DEFAULT_SIDE} pixels; --image-size changes that"
    return (DEFAULT_SIDE, DEFAULT_SIDE), note


def decode(
    parts: Sequence[Sequence[Picture]],
    size: Size,
    write: Callable[[np.ndarray], object],
    *,
    progress: Progress = True,
) -> Decoding:
    """Decode pictures to RGB of one size, and hand them to ``write`` in their order, some at a time.

    The shorter side is resized, the centre cropped. What is written is (n, 3, H, W) uint8; a picture that cannot be
    read is black. The digests are those of one channel where all pictures are grey.
    """
    at_once = max(_PER_TASK, min(_WINDOW, _WINDOW_BYTES // (3 * size[0] * size[1])))
    begin, grey = 0, True
    in_colour: list[bytes] = []
    in_grey: list[bytes] = []
    failures: list[Failure] = []
    with _threads() as pool, show_progress(progress, "decoding images", sum(map(len, parts))) as update:
        for pictures in parts:
            for start, window in _windows(pictures, at_once):
                pixels = np.zeros((len(window), 3, *size), dtype=np.uint8)
                for row, done in enumerate(_in_threads(pool, _decode_one, window, list(pixels))):
                    if done.failed is not None:
                        failures.append(Failure(begin + start + row, window[row].name, done.failed))
                    in_colour.append(done.in_colour)
                    in_grey.append(done.in_grey or b"")
                    grey = grey and done.in_grey is not None
                write(pixels)
                update(begin + start + len(window))
            begin += len(pictures)
    return Decoding(in_grey if grey else in_colour, grey, failures)


class _Done(NamedTuple):
    """The digests of a decoded picture, the one of a single channel only where it is grey; or why it failed."""

    in_colour: bytes
    in_grey: bytes | None
    failed: str | None


def _windows(pictures: Sequence[Picture], size: int) -> Iterator[tuple[int, Sequence[Picture]]]:
    for start in range(0, len(pictures), size):
        yield start, pictures[start : start + size]


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool: Pillow decodes without holding the interpreter's lock, so threads share work and memory.

    Its warnings of large images and odd files are silenced: what matters is an error here.
    """
    with ThreadPoolExecutor(min(16, usable_cpus())) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pool


def _in_threads(pool: ThreadPoolExecutor, work: Callable[..., _Found], *columns: Sequence[Any]) -> Iterator[_Found]:
    """Yield what the work on each row of some columns of one length gives; a thread takes several rows."""

    def some(start: int) -> list[_Found]:
        rows = range(start, min(start + _PER_TASK, len(columns[0])))
        return [work(*(column[row] for column in columns)) for row in rows]

    for found in pool.map(some, range(0, len(columns[0]), _PER_TASK)):
        yield from found


def _decode_one(picture: Picture, pixels: np.ndarray) -> _Done:
    """Decode a picture into ``pixels``, (3, H, W)."""
    size: Size = pixels.shape[1], pixels.shape[2]
    failed = None
    try:
        pixels[:] = _planes(picture.content, size)
    except Exception as error:  # the decoders of damaged files raise errors of many kinds
        failed = _reason(picture, error)
    grey = np.array_equal(pixels[0], pixels[1]) and np.array_equal(pixels[0], pixels[2])
    return _Done(image_digest(pixels), image_digest(pixels[:1]) if grey else None, failed)


def image_digest(image: np.ndarray) -> bytes:
    """Return the SHA-256 of an image (C, H, W) and its shape."""
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _planes(content: Content, size: Size) -> np.ndarray:
    """Return the pixels of a picture, (3, H, W), or (1, H, W) of a grey one."""
    if isinstance(content, np.ndarray) and content.shape[:2] == size:  # nothing is left to do for Pillow
        if content.ndim == 2:
            return content[None]
        if content.shape[2] in (1, 3):
            return content.transpose(2, 0, 1)
    with _opened(content) as image:
        return _fitted(image, size).transpose(2, 0, 1)


def _look(picture: Picture) -> tuple[Size | None, bytes]:
    """Return height and width of a picture as it is to be seen, None if it cannot be read, and the digest of it."""
    content = picture.content
    if isinstance(content, np.ndarray):
        return (content.shape[0], content.shape[1]), image_digest(content)
    try:
        encoded = content.read_bytes() if isinstance(content, Path) else content
    except OSError:  # it is refused, or left out, when it is decoded
        return None, b"unreadable" + hashlib.sha256(picture.name.encode()).digest()
    digest = hashlib.sha256(encoded).digest()
    try:
        with _opened(encoded) as image:
            # Pillow decodes the whole of a PNG to look for EXIF behind its pixels, where hardly any has some.
            has_exif = image.format != "PNG" or "exif" in image.info
            turned = has_exif and image.getexif().get(_ORIENTATION, 1) >= 5
            return ((image.width, image.height) if turned else (image.height, image.width)), digest
    except Exception:  # of many kinds
        return None, digest


def _opened(content: Content) -> Image:
    from PIL import Image

    if isinstance(content, np.ndarray):
        return Image.fromarray(content[..., 0] if content.ndim == 3 and content.shape[2] == 1 else content)
    image = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=readable()[1])
    if image.width * image.height > _MOST_PIXELS:
        raise _BombError(f"{image.width} x {image.height} pixels")
    return image


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
