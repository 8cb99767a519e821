"""Inputs without labels, for a trained network: arrays in a file, or a folder of images."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nls_tune.errors import InputError

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
#: The names of an archive's array of inputs, if it has several.
_ARRAYS = ("inputs", "images", "features", "x")


class Inputs(NamedTuple):
    """Samples as a network takes them, (N, C, H, W) uint8 or (N, D) float32; ``files`` names images of a folder."""

    values: np.ndarray
    files: tuple[str, ...] | None


def load_inputs(path: str | Path, input_shape: tuple[int, ...]) -> Inputs:
    """Read samples of a shape from an .npy or .npz file, or from a folder of images, which are resized.

    Raises:
        InputError: Nothing is there, it cannot be read, or its samples have another shape.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        return _read_folder(place, input_shape)
    if not place.exists():
        raise InputError(f"{place} does not exist; give a .npy or .npz file, or a folder of images")
    if place.suffix.lower() not in (".npy", ".npz"):
        raise InputError(f"inputs must be a .npy or .npz file or a folder of images, got {place}")
    return Inputs(check_inputs(_read_array(place), input_shape, str(place)), None)


def check_inputs(values: Any, input_shape: tuple[int, ...], where: str = "inputs") -> np.ndarray:
    """Return samples as a network takes them: uint8 images (channels may come last), or finite float32 features.

    Raises:
        InputError: For another shape or type, no sample, or features that are not finite.
    """
    array = np.asarray(values)
    images = len(input_shape) == 3
    if images and array.ndim == 4 and array.shape[1:] == (*input_shape[1:], input_shape[0]) != input_shape:
        array = array.transpose(0, 3, 1, 2)
    if images and input_shape[0] == 1 and array.shape[1:] == input_shape[1:]:
        array = array[:, None]
    if array.shape[1:] != input_shape or not len(array):
        raise InputError(
            f"{where} must have the shape (N, {', '.join(map(str, input_shape))}) of the model's inputs, N at least 1, "
            f"got {array.shape}"
        )
    if images:
        if array.dtype != np.uint8:
            raise InputError(f"{where} must be images of uint8, from 0 to 255, got {array.dtype}")
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{where} must be numbers, got {array.dtype}")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise InputError(f"{where} must be finite, sample {row} is not; fill in or remove it")
    return array


def _read_array(file: Path) -> np.ndarray:
    try:
        found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            return np.asarray(found)
        with found:
            names = found.files if len(found.files) == 1 else [name for name in _ARRAYS if name in found.files]
            if names:
                return np.asarray(found[names[0]])
            held = ", ".join(found.files) or "nothing"
    # Torn files fail in several ways; objects, which would have to be unpickled, are ValueErrors.
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file} cannot be read as arrays of numbers ({reason}); write it with numpy.save") from None
    raise InputError(f"{file} must hold one array, or one named {', '.join(_ARRAYS[:-1])} or x; it holds {held}")


def _read_folder(folder: Path, input_shape: tuple[int, ...]) -> Inputs:
    from PIL import Image  # slow to import, and arrays do without

    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    if len(input_shape) != 3:
        raise InputError(f"the model takes {input_shape[0]} features, not images; give a .npy or .npz file")
    if not files:
        raise InputError(f"{folder} holds no image ({', '.join(s[1:] for s in _SUFFIXES)}); give a folder that does")
    channels, height, width = input_shape
    pixels = np.empty((len(files), height, width, channels), np.uint8)
    for row, file in enumerate(files):
        try:
            with Image.open(file) as image:
                shown = image.convert("L" if channels == 1 else "RGB")
                if shown.size != (width, height):
                    shown = shown.resize((width, height), Image.Resampling.BILINEAR)
                pixels[row] = np.asarray(shown).reshape(height, width, channels)
        # Pillow's decoders also raise SyntaxError and ValueError for damaged files.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{file} cannot be read as an image ({reason}); replace or remove it") from None
    names = tuple(str(file.relative_to(folder)) for file in files)
    return Inputs(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), names)
