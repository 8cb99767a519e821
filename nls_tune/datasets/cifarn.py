"""CIFAR-10N and CIFAR-100N: CIFAR with labels by people (Wei et al., ICLR 2022).

The label files are CC BY-NC 4.0: they are found or downloaded, never part of this package.
"""

from __future__ import annotations

import dataclasses
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nls_tune.datasets import locations
from nls_tune.datasets.cache import Arrays, cached_arrays
from nls_tune.datasets.cifar import load_cifar
from nls_tune.datasets.downloads import DownloadError, digest_of, download
from nls_tune.datasets.progress import Progress
from nls_tune.datasets.registry import DatasetInfo
from nls_tune.datasets.source import Source, hash_arrays
from nls_tune.errors import InputError

# The whole hash of the commit: shortened ones are resolved by GitHub's web pages only, and may become ambiguous.
LABELS_URL = "https://raw.githubusercontent.com/UCSC-REAL/cifar-10-100n/49df7d8a69e355470c77c1c2f2424916325a394b/data/"
_logger = logging.getLogger(__name__)
_SUBFOLDER = "cifar-n"
_CLEAN = "clean_label"
_BATCHES = 5
_AS_PUBLISHED = "use the file as it was published"


@dataclass(frozen=True)
class LabelFile:
    """A file of human labels: its name, its SHA-256, and the name of each label set by its key."""

    name: str
    sha256: str
    keys: dict[str, str]


LABEL_FILES = {
    "cifar10n": LabelFile(
        "CIFAR-10_human.pt",
        "873e69c39cb9b5e97fb6bae2d60bb59b38a5cbc31d2b868f7903dcb2b9dd2310",
        {
            "aggre_label": "aggre",
            "random_label1": "random1",
            "random_label2": "random2",
            "random_label3": "random3",
            "worse_label": "worst",
        },
    ),
    "cifar100n": LabelFile(
        "CIFAR-100_human.pt",
        "bd2d80409754d420292d622e15e25248ba21e37d27429efac49c8da723f44394",
        {"noisy_label": "noisy"},
    ),
}


def find_labels(info: DatasetInfo, data_dir: Path | None = None) -> Path | None:
    """Look for the file of human labels of a dataset; return the first one found, or None."""
    folders = [place for folder in locations.search_folders(data_dir) for place in (folder, folder / _SUBFOLDER)]
    return next((file for folder in folders if (file := folder / LABEL_FILES[info.name].name).is_file()), None)


def load_cifar_n(info: DatasetInfo, data_dir: Path | None = None, progress: Progress = True) -> Source:
    """Load a CIFAR dataset with its human labels; ``data_dir`` is searched first, and downloads go there.

    Raises:
        InputError: Images or labels are not there and cannot be downloaded, are damaged, or do not belong together.
    """
    source = load_cifar(info, data_dir, progress)
    file = find_labels(info, data_dir) or _download(info, data_dir, progress)
    _logger.info("the human labels of %s are those in %s", info.name, file)
    labels, _ = cached_arrays(info.name, [file], lambda: (_read(info, file), {}))
    clean = labels.pop(_CLEAN)
    source = _in_order_of(clean, source)
    _check_order(file, clean, source.labels)
    return dataclasses.replace(source, human_labels=labels)


def _in_order_of(clean: np.ndarray, source: Source) -> Source:
    """Return a source whose five training batches are in the order of the clean labels, if these tell the order.

    The Hugging Face Hub has CIFAR-10's batches in another order than CIFAR's Python version, which CIFAR-N follows.
    """
    if clean.shape != source.labels.shape or len(clean) % _BATCHES or np.array_equal(clean, source.labels):
        return source
    ours, theirs = np.split(source.labels, _BATCHES), np.split(clean, _BATCHES)
    batches = [next((i for i, labels in enumerate(ours) if np.array_equal(labels, one)), -1) for one in theirs]
    if sorted(batches) != list(range(_BATCHES)):
        return source
    shown = ", ".join(str(batch + 1) for batch in batches)
    _logger.warning(
        "the images of %s are put into the order of CIFAR's Python version, which the human labels follow: the batches "
        "of the files in the order %s", source.info.name, shown,
    )  # fmt: skip
    inputs = np.concatenate([np.split(source.inputs, _BATCHES)[batch] for batch in batches])
    fingerprint = hash_arrays(inputs, clean, np.asarray(source.test_inputs), source.test_labels)
    return dataclasses.replace(source, inputs=inputs, labels=clean, fingerprint=fingerprint)


def _check_order(file: Path, clean: np.ndarray, labels: np.ndarray) -> None:
    # Element by element: a sum or a histogram of the two is the same for images in any order.
    if clean.shape != labels.shape:
        raise InputError(
            f"{file} must have a label for each of the {len(labels):,} images, but has {len(clean):,}; {_AS_PUBLISHED}"
        )
    different = np.flatnonzero(clean != labels)
    if len(different):
        first = different[0]
        raise InputError(
            f"the clean labels in {file} must be those of the images, in the same order, but {len(different):,} "
            f"of {len(labels):,} differ, the first at index {first} ({clean[first]} in the file, {labels[first]} "
            "with the images); use the images in the order of CIFAR's Python version"
        )


def _read(info: DatasetInfo, file: Path) -> Arrays:
    spec = LABEL_FILES[info.name]
    expected = f"sha256:{spec.sha256}"
    if (got := digest_of(file, expected)) != expected:
        raise InputError(
            f"{file} must have the checksum {expected}, but has {got}; remove it to have it downloaded again"
        )
    content = _load(file)
    arrays = {}
    for key, name in {_CLEAN: _CLEAN, **spec.keys}.items():
        values = np.asarray(content[key]) if key in content else np.empty(0)
        if values.ndim != 1 or values.dtype.kind not in "iu" or values.size == 0:
            raise InputError(f"{file} must have a list of whole numbers under {key!r}; {_AS_PUBLISHED}")
        if values.min() < 0 or values.max() >= info.num_classes:
            raise InputError(f"{key!r} in {file} must be 0 to {info.num_classes - 1}; {_AS_PUBLISHED}")
        arrays[name] = values.astype(np.int64)
    return arrays


def _load(file: Path) -> dict[str, object]:
    """Return the content of a label file, of which nothing but arrays is unpickled."""
    import torch  # slow to import, and once the labels are cached it is not needed
    from numpy._core.multiarray import _reconstruct, scalar

    # The files were written by numpy 1, whose name of these functions numpy 2 does not have.
    names: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_reconstruct, "numpy.core.multiarray._reconstruct"),
        (scalar, "numpy.core.multiarray.scalar"),
        np.ndarray,
        np.dtype,
        type(np.dtype("int64")),
    ]
    try:
        with torch.serialization.safe_globals(names):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        # Not torch's own message: it runs over many lines and advises to switch the protection off.
        raise InputError(f"{file} holds more than arrays of numbers or is damaged; {_AS_PUBLISHED}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold a dictionary, not {type(content).__name__}; {_AS_PUBLISHED}")
    return content


def _download(info: DatasetInfo, data_dir: Path | None, progress: Progress) -> Path:
    spec = LABEL_FILES[info.name]
    path = locations.download_folder(data_dir) / _SUBFOLDER / spec.name
    try:
        download(LABELS_URL + spec.name, path, checksum=f"sha256:{spec.sha256}", progress=progress)
    except DownloadError as error:
        labels = f"the labels of {info.name} ({spec.name}) are"
        raise locations.nowhere(labels, data_dir, error, spec.name, _SUBFOLDER) from error
    return path
