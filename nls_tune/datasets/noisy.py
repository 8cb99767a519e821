"""A dataset as it is trained on: noisy labels, a noisy validation split, a clean test split."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nls_tune.datasets.annotations import LevelLabels
from nls_tune.datasets.mapped import InputArray
from nls_tune.datasets.registry import check_level
from nls_tune.datasets.source import OwnFacts, Source, hash_arrays
from nls_tune.datasets.splits import stratified_order
from nls_tune.errors import InputError
from nls_tune.noise import NoiseLevel, corrupt_labels, noise_rate, parse_noise_level

_SPLIT_STREAM = 0x5B11


@dataclass(frozen=True)
class NoisyDataset:
    """Data to train on, as numpy arrays: Ray shares those between processes without a copy, or images by their file.

    Inputs, their statistics and labels are as in a `Source`; clean labels (and the noise rate) and the test set are
    None where they are not known. ``noise_level`` has its one spelling, for example ``symmetric:0.4``. The sorted rows
    ``train_indices`` are to train on and ``val_indices``, none of them the same, to choose by. ``noise_rate`` is the
    share of wrong labels before the training split was made smaller; ``fingerprint`` is the SHA-256 (hex) of the data,
    the noisy labels and the split. ``transition`` is the matrix (K, K) that losses correct for, where one is known; it
    is no part of the fingerprint. ``soft_labels`` (N, K), float32, are the class probabilities to train on in place of
    the noisy labels, if there are any. ``units`` (N,) number what no split divides; None where each sample is alone.
    With ``val_clean`` the labels of the validation samples are taken as clean. ``is_own``: they are a user's own data.
    """

    name: str
    noise_level: str
    noise_seed: int
    num_classes: int
    inputs: InputArray
    noisy_labels: np.ndarray
    clean_labels: np.ndarray | None
    train_indices: np.ndarray
    val_indices: np.ndarray
    test_inputs: InputArray | None
    test_labels: np.ndarray | None
    input_mean: np.ndarray
    input_std: np.ndarray
    noise_rate: float | None
    fingerprint: str
    transition: np.ndarray | None = None
    soft_labels: np.ndarray | None = None
    units: np.ndarray | None = None
    val_clean: bool = False
    is_own: bool = False

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W) or (D,)."""
        return self.inputs.shape[1:]

    @property
    def num_train(self) -> int:
        """The number of training samples."""
        return len(self.train_indices)

    @property
    def num_val(self) -> int:
        """The number of validation samples."""
        return len(self.val_indices)

    @property
    def is_of_annotators(self) -> bool:
        """Whether its labels are made of those of several annotators."""
        return parse_noise_level(self.noise_level).is_of_annotators

    def may_be_wrong(self, rows: np.ndarray) -> np.ndarray:
        """Return which rows have labels that noise may have changed, (n,), bool: not those of clean validation."""
        return np.isin(rows, self.val_indices, invert=True) if self.val_clean else np.ones(len(rows), dtype=bool)

    def on_all_labels(self) -> NoisyDataset:
        """Return the dataset with its validation samples among the training samples.

        It has the same ``val_indices``, so that it can be trained on like any other, but an accuracy on them is no
        longer one on samples that were held out. Where clean labels are known, its noise rate is that of all of them.
        """
        train = np.union1d(self.train_indices, self.val_indices)
        rate = self.noise_rate
        if self.clean_labels is not None:
            rate = _rate_of(train, self.clean_labels, self.noisy_labels, self.soft_labels)
        fingerprint = hash_arrays(train, seed=f"{self.fingerprint} all")
        return replace(self, train_indices=train, noise_rate=rate, fingerprint=fingerprint)


def make_noisy(
    source: Source,
    level: NoiseLevel,
    *,
    noise_seed: int = 0,
    val_fraction: float | None = None,
    train_size: int | None = None,
    split_seed: int = 0,
) -> NoisyDataset:
    """Put noise on the labels and split off a validation set.

    Both splits have the same noise and come from one stratified order of the noisy labels; no clean ones needed.
    Inputs and clean labels are not copied. For the arguments see `nls_tune.load_dataset`.

    Raises:
        InputError: The dataset cannot have this noise, or a size is out of range.
    """
    info = source.info
    check_level(info, level)
    if split_seed < 0:
        raise InputError(f"split_seed must be an integer of at least 0, not {split_seed}; 0 is usual")
    # Not the generator of the noise: where the two seeds are equal, the split would follow the noise.
    rng = np.random.Generator(np.random.PCG64([_SPLIT_STREAM, split_seed]))
    clean: np.ndarray | None = source.labels
    rate: float | None
    soft: np.ndarray | None = None
    if source.own is None:
        fraction = info.default_val_fraction if val_fraction is None else val_fraction
        num_val, num_train = _sizes(len(source.labels), info.num_classes, fraction, train_size)
        noisy = _noisy_labels(source, level, noise_seed)
        order = stratified_order(noisy, rng)
        train, val = np.sort(order[len(order) - num_train :]), np.sort(order[:num_val])
        rate = noise_rate(source.labels, noisy)
    else:
        made, clean = _own_labels(source, source.own, level, noise_seed), source.own.clean_labels
        (noisy, soft, _), (train, val, rate) = made, _split_own(source, source.own, level, made, train_size, rng)
    return NoisyDataset(
        name=info.name,
        noise_level=str(level),
        noise_seed=noise_seed,
        num_classes=info.num_classes,
        inputs=source.inputs,
        noisy_labels=noisy,
        clean_labels=clean,
        train_indices=train,
        val_indices=val,
        test_inputs=source.test_inputs if len(source.test_labels) else None,
        test_labels=source.test_labels if len(source.test_labels) else None,
        input_mean=source.input_mean,
        input_std=source.input_std,
        noise_rate=rate,
        fingerprint=hash_arrays(noisy, train, val, *([] if soft is None else [soft]), seed=source.fingerprint),
        soft_labels=soft,
        units=None if source.own is None else source.own.units,
        val_clean=source.own is not None and source.own.val_clean,
        is_own=source.own is not None,
    )


def _split_own(
    source: Source,
    own: OwnFacts,
    level: NoiseLevel,
    made: LevelLabels,
    train_size: int | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Return the rows of a user's own data that train, those that validate, and the noise rate of both together."""
    labels, soft, kept = made
    rest, val = np.setdiff1d(np.arange(len(labels)), own.val_rows), own.val_rows[kept[own.val_rows]]
    # Levels of annotators share one order, so that they have the same splits where they hold the same samples.
    order = rest[stratified_order((source.labels if level.is_of_annotators else labels)[rest], rng)]
    order = order[kept[order]]
    if not len(order) or not len(val):
        raise InputError(
            f"noise level '{level}' needs training and validation samples, and has {len(order):,} and {len(val):,}; "
            "leave it out"
        )
    size = _train_size(train_size, source.info.num_classes, len(order), "add samples for more")
    rate, clean = None, own.clean_labels
    if clean is not None:
        rows = order if own.val_clean else np.concatenate([order, val])
        rate = _rate_of(rows, clean, labels, soft)
    return np.sort(order[len(order) - size :]), val, rate


def _rate_of(rows: np.ndarray, clean: np.ndarray, noisy: np.ndarray, soft: np.ndarray | None) -> float:
    """Return the share of wrong labels; of class probabilities the mean probability of wrong classes."""
    return noise_rate(clean[rows], noisy[rows]) if soft is None else float(1 - np.mean(soft[rows, clean[rows]]))


def _noisy_labels(source: Source, level: NoiseLevel, noise_seed: int) -> np.ndarray:
    info = source.info
    return corrupt_labels(
        level,
        source.labels,
        num_classes=info.num_classes,
        noise_seed=noise_seed,
        features=source.inputs,
        class_map=info.class_map,
        swap_map=info.swap_map,
        human_labels=source.human_labels,
    )


def _own_labels(source: Source, own: OwnFacts, level: NoiseLevel, noise_seed: int) -> LevelLabels:
    """Return the labels of a user's own data: those given, with synthetic noise on top, or the clean ones."""
    every = np.ones(len(source.labels), dtype=bool)
    if level.is_of_annotators and own.annotations is not None:
        return own.annotations.labels_at(level, source.labels)
    if level.kind == "given":
        return LevelLabels(source.labels.copy(), None, every)
    if level.kind == "clean" and own.clean_labels is not None:
        return LevelLabels(own.clean_labels.copy(), None, every)
    noisy = _noisy_labels(source, level, noise_seed)
    if own.val_clean:
        noisy[own.val_rows] = source.labels[own.val_rows]
    return LevelLabels(noisy, None, every)


def _sizes(total: int, num_classes: int, val_fraction: float, train_size: int | None) -> tuple[int, int]:
    """Return the sizes of the validation and the training split."""
    if not 0 < val_fraction < 1:
        raise InputError(f"val_fraction must lie between 0 and 1, not {val_fraction:g}; 0.1 is usual")
    num_val = round(total * val_fraction)
    available = total - num_val
    if num_val < 1 or available < 1:
        raise InputError(
            f"val_fraction must leave a sample on either side, but {val_fraction:g} of {total:,} samples gives "
            f"{num_val:,} for validation and {available:,} for training; choose one nearer to 0.5"
        )
    return num_val, _train_size(train_size, num_classes, available, "a smaller val_fraction for more")


def _train_size(train_size: int | None, num_classes: int, available: int, way_out: str) -> int:
    """Return the size of the training split, by default all that is available."""
    if train_size is None:
        return available
    if not num_classes <= train_size <= available:
        raise InputError(
            f"train_size must be at least one sample per class and at most what validation leaves, {num_classes} to "
            f"{available:,}, not {train_size:,}; choose a size in this range, or {way_out}"
        )
    return train_size
