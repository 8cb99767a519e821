"""Own arrays: an .npz file, .npy files, or arrays in memory."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nls_tune.datasets.locations import cache_folder
from nls_tune.datasets.mapped import small_bytes
from nls_tune.datasets.samples import Column, Picture, PictureRows, Samples, as_texts, class_texts, counted, listed
from nls_tune.errors import InputError, unknown_name

if TYPE_CHECKING:
    from nls_tune.datasets.data import Data

_INPUTS = ("inputs", "images", "features", "embeddings", "x", "X", "data", "arr_0")
_LABELS = ("labels", "label", "y", "Y", "targets", "target", "arr_1")
_BLOCK_BYTES = 1 << 24


def read_arrays(arrays: Path | Mapping[str, np.ndarray], data: Data, *, like: Samples | None = None) -> Samples:
    """Read the samples of arrays; those of a second file have the features of the first, ``like``.

    Raises:
        InputError: If a file cannot be read, or the arrays break a rule that the message names.
    """
    where = str(arrays) if isinstance(arrays, Path) else "the arrays"
    found, names = _load(arrays, data, like)
    inputs, labels = found[names["inputs"]], found[names["labels"]]
    texts = {}
    for use in ("labels", "clean", "groups"):
        if (name := names.get(use)) is None:
            continue
        values = found[name]
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        what = f"array {name} of {where}"
        if values.ndim != 1 or len(values) != len(inputs):
            raise InputError(
                f"{what} must hold one value for each of the {len(inputs):,} inputs, got shape {values.shape}"
            )
        texts[use] = as_texts(values, what) if use == "groups" else class_texts(values, what)
    if (classes := found.get("class_names")) is not None and np.issubdtype(labels.dtype, np.integer):
        for use in ("labels", "clean"):
            if use in texts:
                texts[use] = _named(texts[use], [str(name) for name in classes.tolist()], where)
    if absent := sum(text is None for text in texts.get("groups", ())):
        raise InputError(f"array {names['groups']} of {where} is missing in {counted(absent, 'row')}; fill it in")
    pictures, columns = _inputs(inputs, names["inputs"], where)
    if like is not None and (bool(pictures) != like.of_images or len(columns) != len(like.columns)):
        raise InputError(f"{where} has inputs of shape {inputs.shape[1:]}, unlike {like.where}; give the same kind")
    return Samples(
        where, texts["labels"], pictures, columns=columns, clean=texts.get("clean"), groups=texts.get("groups"),
        named_columns=False,
    )  # fmt: skip


def _named(texts: np.ndarray, names: list[str], where: str) -> np.ndarray:
    if wrong := [text for text in texts if not 0 <= int(text) < len(names)]:
        raise InputError(f"labels of {where} must be 0 to {len(names) - 1}, as class_names has them, got {wrong[0]}")
    return np.array([names[int(text)] for text in texts], dtype=object)


def _load(
    arrays: Path | Mapping[str, np.ndarray], data: Data, like: Samples | None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays by name, and the names of inputs, labels, clean labels and groups."""
    if not isinstance(arrays, Path):
        found = {str(name): np.asarray(array) for name, array in arrays.items()}
        where = "the arrays"
    elif arrays.suffix == ".npy" and like is None:
        files = {"inputs": arrays, "labels": data.label, "clean": data.clean_labels, "groups": data.group}
        if data.label is None:
            raise InputError(f"{arrays} holds inputs only; give its labels with --label FILE.npy")
        loaded = {str(file): _read_one(Path(file)) for file in files.values() if file is not None}
        return loaded, {use: str(file) for use, file in files.items() if file is not None}
    else:
        found, where = _read_all(arrays), str(arrays)
    _check_kinds(found, where)
    names = {"inputs": _pick(found, None, _INPUTS, where, "inputs")}
    from_files = data.label is not None and data.label.endswith(".npy")
    names["labels"] = _pick(found, None if from_files else data.label, _LABELS, where, "--label")
    for use, name, flag in (("clean", data.clean_labels, "--clean-labels"), ("groups", data.group, "--group")):
        if name is not None and (like is None or name in found):
            names[use] = _pick(found, name, (), where, flag)
    return found, names


def _pick(found: Mapping[str, np.ndarray], name: str | None, usual: tuple[str, ...], where: str, what: str) -> str:
    if name is not None:
        if name not in found:
            raise InputError(f"{what}: {unknown_name(f'array of {where}', name, found)}")
        return name
    for one in usual:
        if one in found:
            return one
    raise InputError(f"{where} needs an array of {what} ({listed(usual, 4)}), but has {listed(found, 6) or 'none'}")


def _read_all(file: Path) -> dict[str, np.ndarray]:
    if file.suffix != ".npz" and not file.is_dir():
        raise InputError(f"{file} must be a file .npz, or .npy with --label FILE.npy")
    loaded = _read(file)
    return loaded if isinstance(loaded, dict) else {"arr_0": loaded}


def _read_one(file: Path) -> np.ndarray:
    loaded = _read(file)
    if isinstance(loaded, dict):
        raise InputError(f"{file} holds several arrays ({listed(loaded)}), as an .npz file does; name it so")
    return loaded


def _read(file: Path) -> np.ndarray | dict[str, np.ndarray]:
    if not file.is_file():
        raise InputError(f"{file} {'is a folder' if file.is_dir() else 'does not exist'}; give a file .npz or .npy")
    try:
        with file.open("rb") as start:
            is_array = start.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX
        loaded = np.load(file, mmap_mode="r" if is_array else None, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: _member(file, loaded, name) for name in loaded.files}
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        if "pickle" in str(error):
            kind = "holds Python objects" if "Object arrays" in str(error) else "is not an .npz or .npy file"
            raise InputError(
                f"{file} {kind}; pickles are not read, since that can run code: save plain arrays"
            ) from None
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{file} cannot be read ({reason}); replace it by an intact copy") from None


def _member(file: Path, archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    """Return an array of an archive; a large one is unpacked to the disk, where only what is used is read."""
    with zipfile.ZipFile(file) as members:
        inside = f"{name}.npy" if f"{name}.npy" in members.namelist() else name
        num_bytes = members.getinfo(inside).file_size
        if num_bytes < small_bytes():
            return np.asarray(archive[name])
        folder = cache_folder() / "images"
        folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder).free) < num_bytes:
            raise InputError(
                f"{file} needs {num_bytes / 1e9:.1f} GB to be unpacked in {folder}, which has {free / 1e9:.1f} GB "
                "left; set XDG_CACHE_HOME to a folder with more space, or give a file .npy"
            )
        # The file's name is gone when this ends, and its content when the array is.
        with tempfile.NamedTemporaryFile(prefix=".unpacked-", dir=folder) as unpacked:
            with members.open(inside) as packed:
                shutil.copyfileobj(packed, unpacked, _BLOCK_BYTES)
            unpacked.flush()
            return np.asarray(np.load(unpacked.name, mmap_mode="r", allow_pickle=False))


def _check_kinds(found: Mapping[str, np.ndarray], where: str) -> None:
    if objects := [name for name, array in found.items() if array.dtype == object and not _is_texts(array)]:
        raise InputError(f"{listed(objects)} of {where} hold Python objects; give plain arrays")


def _is_texts(array: np.ndarray) -> bool:
    return array.ndim == 1 and all(isinstance(value, str | int | float | None) for value in array.tolist())


def _inputs(inputs: np.ndarray, name: str, where: str) -> tuple[Sequence[Picture], tuple[Column, ...]]:
    """Return images, uint8 of shape (N, H, W) or (N, H, W, C), or features, numbers of shape (N, D)."""
    what, kind = f"array {name} of {where}", inputs.dtype.kind
    shown = f"got {inputs.dtype} of shape {inputs.shape}"
    if kind not in "uifb":
        raise InputError(f"{what} must hold numbers, {shown}")
    if not len(inputs) or 0 in inputs.shape:
        raise InputError(f"{what} holds no samples, {shown}")
    if inputs.ndim == 2:
        numbers = inputs.astype(np.float64)
        if empty := np.flatnonzero(np.isnan(numbers).all(axis=0)).tolist():
            raise InputError(f"{counted(len(empty), 'column')} of {what} hold no value at all ({listed(empty)})")
        return (), tuple(Column(str(i), "number", numbers[:, i]) for i in range(numbers.shape[1]))
    if inputs.ndim in (3, 4) and kind == "f":
        raise InputError(f"{what} must be uint8 images, 0 to 255, {shown}; convert it, or flatten features to (N, D)")
    if inputs.ndim == 4 and inputs.shape[3] not in (1, 3, 4) and inputs.shape[1] in (1, 3, 4):
        raise InputError(f"{what} must have the channels last, (N, H, W, C), {shown}; transpose it with (0, 2, 3, 1)")
    if inputs.ndim not in (3, 4) or (inputs.ndim == 4 and inputs.shape[3] not in (1, 3, 4)):
        raise InputError(f"{what} must be images (N, H, W) or (N, H, W, C) with 1, 3 or 4 channels, or (N, D), {shown}")
    if inputs.dtype != np.uint8:
        raise InputError(f"{what} must be uint8 images, 0 to 255, {shown}; convert it with astype('uint8')")
    images = np.asarray(inputs)  # of a map as well: its slices are slow
    return PictureRows(len(images), lambda start, stop: images[start:stop]), ()
