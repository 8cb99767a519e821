"""Loads datasets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nls_tune.datasets.builtin import load_digits, make_twonorm, make_waveform
from nls_tune.datasets.cifar import load_cifar
from nls_tune.datasets.cifarn import load_cifar_n
from nls_tune.datasets.noisy import NoisyDataset, make_noisy
from nls_tune.datasets.progress import Progress
from nls_tune.datasets.registry import DatasetInfo, check_level, dataset_info
from nls_tune.datasets.source import Source
from nls_tune.errors import InputError
from nls_tune.noise import NoiseLevel, parse_noise_level

_Loader = Callable[[DatasetInfo, Path | None, Progress], Source]
_LOADERS: dict[str, _Loader] = {
    "twonorm": lambda info, *_: make_twonorm(info),
    "waveform": lambda info, *_: make_waveform(info),
    "digits": lambda info, *_: load_digits(info),
    "cifar10": load_cifar,
    "cifar100": load_cifar,
    "cifar10n": load_cifar_n,
    "cifar100n": load_cifar_n,
}


def load_source(name: str, *, data_dir: str | Path | None = None, progress: Progress = True) -> Source:
    """Load the clean data of a dataset, with its human labels; arguments and errors are those of `load_dataset`."""
    info, folder = dataset_info(name), None if data_dir is None else Path(data_dir)
    if folder is not None and not folder.expanduser().is_dir():
        what = "is a file" if folder.expanduser().exists() else "does not"
        raise InputError(
            f"--data-dir must be a folder that exists, {folder} {what}; name another one, or make it if data are to be "
            "downloaded to it"
        )
    return _LOADERS[name](info, folder, progress)


def load_dataset(
    name: str,
    level: NoiseLevel | str,
    *,
    data_dir: str | Path | None = None,
    noise_seed: int = 0,
    val_fraction: float | None = None,
    train_size: int | None = None,
    split_seed: int = 0,
    progress: Progress = True,
) -> NoisyDataset:
    """Load a dataset, put noise on its labels and split it: `load_source`, then `make_noisy`.

    ``name`` is one of `DATASETS`. Data files are looked for in ``data_dir`` before ``$NLS_TUNE_DATA`` and the user's
    cache folder; downloads go there. ``val_fraction``, in (0, 1), is the share of the labelled samples that validates,
    by default the dataset's own; ``train_size`` is the number of training samples, by default all others. See also
    `Progress`.

    Raises:
        InputError: The files cannot be found, fetched or read, the dataset cannot have this noise (checked before
            anything is loaded), or a size is out of range.
    """
    level = parse_noise_level(level) if isinstance(level, str) else level
    check_level(dataset_info(name), level)
    source = load_source(name, data_dir=data_dir, progress=progress)
    return make_noisy(
        source, level, noise_seed=noise_seed, val_fraction=val_fraction, train_size=train_size, split_seed=split_seed
    )
