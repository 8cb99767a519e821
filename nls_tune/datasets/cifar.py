"""CIFAR-10 and CIFAR-100: Parquet files, torchvision's folder, or a download."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nls_tune.datasets import locations
from nls_tune.datasets.cache import Arrays, cached_arrays
from nls_tune.datasets.downloads import DownloadError, download, locked
from nls_tune.datasets.parquet import find_shards, read_images
from nls_tune.datasets.progress import Progress
from nls_tune.datasets.registry import DatasetInfo
from nls_tune.datasets.source import Source, make_source
from nls_tune.errors import InputError

_logger = logging.getLogger(__name__)
_TORCHVISION_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
#: Where the files lie inside the datasets' repositories on the Hugging Face Hub.
_HUB_FOLDERS = {"cifar10": "plain_text", "cifar100": "cifar100"}
#: What is cached of a ``Source``, in the order of its fields.
_ARRAYS = ("inputs", "labels", "test_inputs", "test_labels", "input_mean", "input_std")
_LABEL_COLUMNS = {"cifar10": ("label",), "cifar100": ("fine_label", "label")}


@dataclass(frozen=True)
class CifarFiles:
    """Where the images of a dataset were found; ``train`` holds all files of torchvision's folder."""

    kind: Literal["parquet", "torchvision"]
    folder: Path
    train: tuple[Path, ...]
    test: tuple[Path, ...]


def images_of(info: DatasetInfo) -> str:
    """Return the dataset whose images this one has: CIFAR-N is CIFAR with other labels."""
    return info.name.removesuffix("n")


def find_cifar(info: DatasetInfo, data_dir: Path | None = None) -> CifarFiles | None:
    """Return the first images found, or None; raise InputError for a folder that holds a part of the files."""
    images = images_of(info)
    for folder in locations.search_folders(data_dir):
        hub = _HUB_FOLDERS[images]
        for place in (folder / images, folder / images / hub, folder, folder / hub):
            if files := _find_parquet(place):
                return files
        place = folder / _TORCHVISION_FOLDERS[images]
        if place.is_dir():
            return CifarFiles("torchvision", place, tuple(sorted(p for p in place.iterdir() if p.is_file())), ())
    return None


def load_cifar(info: DatasetInfo, data_dir: Path | None = None, progress: Progress = True) -> Source:
    """Load the images and clean labels of a CIFAR dataset, in the order of the files.

    In every folder of ``locations.search_folders`` they are looked for as Parquet files, then as torchvision's folder.
    If they are nowhere, torchvision's are downloaded, to ``data_dir`` if it is given.

    Raises:
        InputError: The files are not there and cannot be downloaded, are incomplete, damaged or another dataset's.
    """
    files = find_cifar(info, data_dir) or _download(info, data_dir, progress)
    _logger.info("the images of %s are those in %s", info.name, files.folder)
    arrays, facts = cached_arrays(images_of(info), [*files.train, *files.test], lambda: _prepare(info, files, progress))
    inputs, labels, test_inputs, test_labels, mean, std = (arrays[name] for name in _ARRAYS)
    return Source(info, inputs, labels, test_inputs, test_labels, mean, std, facts["fingerprint"])


def _find_parquet(folder: Path) -> CifarFiles | None:
    train, test = find_shards(folder, "train"), find_shards(folder, "test")
    if bool(train) != bool(test):
        there, absent = ("train", "test") if train else ("test", "train")
        raise InputError(f"{folder} has {there}-*.parquet but no {absent}-*.parquet; put both there")
    return CifarFiles("parquet", folder, tuple(train), tuple(test)) if train else None


def _prepare(info: DatasetInfo, files: CifarFiles, progress: Progress) -> tuple[Arrays, dict[str, str]]:
    """Read both splits, check that they are those of the dataset, and return what is cached."""
    inputs, labels = _read(info, files, True, progress)
    test_inputs, test_labels = _read(info, files, False, progress)
    for split, got, expected in (("training", labels, info.num_labelled), ("test", test_labels, info.num_test)):
        if len(got) != expected:
            raise InputError(
                f"{images_of(info)} has {expected:,} {split} samples, but the files in {files.folder} have "
                f"{len(got):,}; replace them by a complete copy"
            )
    if (found := len(np.unique(labels))) < min(info.num_classes, info.num_labelled):
        raise InputError(
            f"{images_of(info)} has {info.num_classes} classes, but the labels in {files.folder} have {found}; "
            "these are the files of another dataset, give the folder of this one"
        )
    source = make_source(info, inputs, labels, test_inputs, test_labels)
    return {name: getattr(source, name) for name in _ARRAYS}, {"fingerprint": source.fingerprint}


def _read(info: DatasetInfo, files: CifarFiles, train: bool, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    if files.kind == "torchvision":
        return _read_torchvision(info, files.folder, train)
    return read_images(
        files.train if train else files.test,
        label_columns=_LABEL_COLUMNS[images_of(info)],
        num_classes=info.num_classes,
        image_shape=info.input_shape,
        progress=progress,
    )


def damaged_files(info: DatasetInfo, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with each file of torchvision's folder that is not as published, and the way out."""
    from torchvision.datasets.utils import check_integrity  # imports torch

    kind = _torchvision_class(info)
    for name, md5 in [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]:
        file = folder / name
        if not check_integrity(file, md5):
            state = "does not have the published MD5, so it is damaged" if file.exists() else "is missing"
            way_out = (
                f"remove the folder to have it downloaded again, or replace it by an intact copy of {kind.filename}"
            )
            yield f"{file} {state}", way_out


def _read_torchvision(info: DatasetInfo, folder: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    for damage in damaged_files(info, folder):
        raise InputError("; ".join(damage))
    kind = _torchvision_class(info)
    dataset = kind(folder.parent, train=train)
    return np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2)), np.asarray(dataset.targets, dtype=np.int64)


def _download(info: DatasetInfo, data_dir: Path | None, progress: Progress) -> CifarFiles:
    images, folder = images_of(info), locations.download_folder(data_dir)
    kind = _torchvision_class(info)
    work = folder / f".{kind.base_folder}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / kind.base_folder):
            if not (folder / kind.base_folder).is_dir():
                download(kind.url, work / kind.filename, checksum=f"md5:{kind.tgz_md5}", progress=progress)
                # torchvision finds the archive there, so that it only unpacks it and checks every file.
                kind(work, download=True)
                (work / kind.base_folder).rename(folder / kind.base_folder)
                shutil.rmtree(work, ignore_errors=True)
    except (DownloadError, OSError, RuntimeError) as error:
        problem = "" if isinstance(error, DownloadError) else f"cannot put {kind.base_folder} into {folder}: "
        needed = f"{images}/train-*.parquet and {images}/test-*.parquet, or {_TORCHVISION_FOLDERS[images]}/,"
        raise locations.nowhere(f"{images} is", data_dir, f"{problem}{error}", needed) from error
    files = find_cifar(info, data_dir)
    if files is None:
        raise InputError(f"{images} was downloaded to {folder} and is gone; do not remove it while it is used")
    return files


def _torchvision_class(info: DatasetInfo) -> Any:
    from torchvision import datasets  # imports torch

    return datasets.CIFAR10 if images_of(info) == "cifar10" else datasets.CIFAR100
