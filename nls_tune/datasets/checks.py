"""The doctor's checks of data files: found, complete, and with the published checksums."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nls_tune.datasets.cifar import damaged_files, find_cifar, images_of
from nls_tune.datasets.cifarn import LABEL_FILES, find_labels
from nls_tune.datasets.downloads import digest_of
from nls_tune.datasets.registry import DATASETS, DatasetInfo
from nls_tune.errors import InputError
from nls_tune.machine.check import Check, failure


def check_data(data_dir: Path | None) -> Iterator[Check]:
    """Check the files of every dataset that has some; what is nowhere is downloaded when a search needs it.

    Raises:
        InputError: If the folder that was given does not exist.
    """
    if data_dir is not None and not data_dir.expanduser().is_dir():
        raise InputError(f"--data-dir must be a folder, {data_dir} is not one; give the one that holds the files")
    for info in DATASETS.values():
        if images_of(info) in ("cifar10", "cifar100"):
            check = _check_labels if info.name in LABEL_FILES else _check_images
            try:
                yield check(info, data_dir)
            except InputError as error:  # some of several files are missing
                yield failure("data", str(error))


def _check_images(info: DatasetInfo, data_dir: Path | None) -> Check:
    files = find_cifar(info, data_dir)
    if files is None:
        return Check("data", "ok", f"{info.name} is not here: a search that needs it downloads it")
    if files.kind == "torchvision":
        damaged = next(damaged_files(info, files.folder), None)
        if damaged is not None:
            return Check("data", "failure", *damaged)
        return Check("data", "ok", f"{info.name} in {files.folder}, with the published checksums")
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split, shards, expected in (("training", files.train, info.num_labelled), ("test", files.test, info.num_test)):
        try:
            number = sum(pq.ParquetFile(shard).metadata.num_rows for shard in shards)
        except (OSError, pa.ArrowException) as error:
            found = f"the {split} files of {info.name} in {files.folder} cannot be read ({error})"
            return Check("data", "failure", " ".join(found.split()), "replace them by a complete copy")
        if number != expected:
            found = f"{info.name} in {files.folder} has {number:,} {split} samples, complete are {expected:,}"
            return Check("data", "failure", found, "replace them by a complete copy")
    return Check("data", "ok", f"{info.name} in {files.folder}, all rows (there are no published checksums of Parquet)")


def _check_labels(info: DatasetInfo, data_dir: Path | None) -> Check:
    file, spec = find_labels(info, data_dir), LABEL_FILES[info.name]
    if file is None:
        return Check("data", "ok", f"the labels of {info.name} are not here: a search that needs them downloads them")
    if digest_of(file, expected := f"sha256:{spec.sha256}") != expected:
        found = f"{file} does not have the published SHA-256"
        return Check("data", "failure", found, "remove it to have it downloaded again")
    return Check("data", "ok", f"the labels of {info.name} in {file}, with the published checksum")
