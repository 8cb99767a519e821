"""Inputs without labels, for a trained network: arrays in a file, a table, or a folder of images."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nls_tune.datasets.features import check_finite, encode
from nls_tune.datasets.frames import read_frame
from nls_tune.datasets.own_images import image_files
from nls_tune.datasets.own_pixels import decode_in_memory
from nls_tune.datasets.own_tables import columns_of
from nls_tune.datasets.samples import Column, Picture, PictureRows, counted, listed
from nls_tune.errors import InputError

#: The names of an archive's array of inputs, if it has several.
_ARRAYS = ("inputs", "images", "features", "x")
_TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pq")
#: What was done to a user's own data before training: the content of ``preprocessing.json``.
Preprocessing = Mapping[str, Any]


class Inputs(NamedTuple):
    """Samples as a network takes them, (N, C, H, W) uint8 or (N, D) float32; ``files`` names images of a folder."""

    values: np.ndarray
    files: tuple[str, ...] | None


def load_inputs(path: str | Path, input_shape: tuple[int, ...], preprocessing: Preprocessing | None = None) -> Inputs:
    """Read samples from an .npy or .npz file, a table, or a folder of images, and prepare them for a network.

    Images are brought to its size. Columns of a table are found by name, which needs the ``preprocessing`` of a
    user's own data.

    Raises:
        InputError: Nothing is there, it cannot be read, or its samples are of another kind or shape.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        if len(input_shape) != 3:
            raise InputError(f"the model takes {_taken(input_shape, preprocessing)}, not images; give a file of them")
        pictures = tuple(Picture(str(name), file) for name, file in image_files(place).items())
        if not pictures:
            raise InputError(f"{place} holds no image that can be read; give a folder that does")
        return Inputs(_decoded(pictures, input_shape, str(place)), tuple(one.name for one in pictures))
    if not place.exists():
        raise InputError(f"{place} does not exist; give a .npy or .npz file, a table, or a folder of images")
    if place.suffix.lower() in _TABLES:
        return Inputs(_read_table(place, input_shape, preprocessing), None)
    if place.suffix.lower() not in (".npy", ".npz"):
        raise InputError(f"inputs must be a .npy or .npz file, a table or a folder of images, got {place}")
    return Inputs(prepare(_read_array(place), input_shape, preprocessing, str(place)), None)


def prepare(
    values: Any, input_shape: tuple[int, ...], preprocessing: Preprocessing | None, where: str = "inputs"
) -> np.ndarray:
    """Return arrays as a network takes them: by `check_inputs`, after the preprocessing of a user's own data.

    Raises:
        InputError: As ``check_inputs``, and for features of which some are texts: these need a table.
    """
    array = np.asarray(values)
    if preprocessing is None:
        return check_inputs(array, input_shape, where)
    if len(input_shape) == 3:
        if array.dtype == np.uint8 and array.ndim in (3, 4) and (array.ndim == 3 or array.shape[3] in (1, 3, 4)):
            return _decoded(PictureRows(len(array), lambda start, stop: array[start:stop]), input_shape, where)
        return check_inputs(array, input_shape, where)
    steps = preprocessing["columns"]
    if texts := [step["column"] for step in steps if step["kind"] == "category"]:
        raise InputError(
            f"the model takes texts in {counted(len(texts), 'column')} ({listed(texts)}), {where} holds an array; give "
            "a table"
        )
    if array.shape[1:] != (len(steps),) or not len(array) or array.dtype.kind not in "fiub":
        raise InputError(
            f"{where} must hold numbers of shape (N, {len(steps)}), the columns of the model, N at least 1, got "
            f"{array.dtype} of shape {array.shape}"
        )
    numbers = array.astype(np.float64)
    columns = [Column(step["column"], "number", numbers[:, i]) for i, step in enumerate(steps)]
    check_finite(columns, where, named=False)
    return check_inputs(encode(columns, steps), input_shape, where)


def _taken(input_shape: tuple[int, ...], preprocessing: Preprocessing | None) -> str:
    return f"{input_shape[0] if preprocessing is None else len(preprocessing['columns'])} features"


def _decoded(pictures: Sequence[Picture], input_shape: tuple[int, ...], where: str) -> np.ndarray:
    """Decode pictures as a user's own ones are for training; for a network of grey images, colours become grey."""
    from PIL import Image  # slow to import, and features do without

    channels, *size = input_shape
    rgb = decode_in_memory(pictures, (size[0], size[1]), where)
    if channels == 1:
        colours = (Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in rgb)
        return np.stack([np.asarray(image.convert("L"))[None] for image in colours])
    return check_inputs(rgb, input_shape, where)


def _read_table(file: Path, input_shape: tuple[int, ...], preprocessing: Preprocessing | None) -> np.ndarray:
    if preprocessing is None:
        raise InputError(f"the model was not trained on a table of your own, {file} is one; give arrays or images")
    frame = read_frame(file)
    if len(input_shape) == 3:
        if not frame.pictures:
            raise InputError(f"{file} has no column of images, which the model takes; give a folder of images")
        return _decoded(frame.pictures, input_shape, str(file))
    steps = preprocessing["columns"]
    columns = columns_of(frame, {step["column"]: step["kind"] for step in steps})
    check_finite(columns, frame.where, named=False)
    return check_inputs(encode(columns, steps), input_shape, str(file))


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
