"""Own images: found in folders or named by a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nls_tune.datasets.decoding import readable
from nls_tune.datasets.samples import Picture, Samples, counted, listed
from nls_tune.errors import InputError

_SPLITS = {"train", "training", "val", "valid", "validation", "test"}


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
    root, endings = folder.resolve(), readable()[0]
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
