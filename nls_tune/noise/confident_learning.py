"""Noise rate and transition matrix from noisy labels alone, by confident learning.

The method is that of Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
JAIR 70 (2021). It takes the class probabilities that a model, itself trained on noisy labels, gives to samples that
it was not trained on: where the model is confident of another class than the label's, the label counts as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nls_tune.errors import InputError
from nls_tune.noise.corruption import checked_labels

#: The number of folds where none is given.
DEFAULT_FOLDS = 3
_PERCENTILES = (2.5, 97.5)
#: A probability counts as at its threshold in spite of rounding: a mean of equal numbers need not be that number.
_TOLERANCE = 1e-6

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class TransitionEstimate:
    """The estimate that confident learning makes of the noise.

    ``joint`` (K, K) holds the share of samples by latent class (rows) and noisy label (columns). ``noise_rate`` is 1
    minus its trace, with a 95 % bootstrap interval from ``low`` to ``high``; ``prior`` (K,) are its row sums, and
    ``matrix`` (K, K) its rows over their sums, identity where a class is empty.
    """

    noise_rate: float
    low: float
    high: float
    joint: NDArray[np.float64]
    prior: NDArray[np.float64]
    matrix: NDArray[np.float64]


@dataclass(frozen=True)
class NoiseEstimate:
    """The noise of a dataset, estimated from its noisy labels: plain values, made by ``nls_tune.training.estimate``.

    ``noise_rate`` and the transition ``matrix``, K rows (clean class) of K (noisy class), are counted among the anchors
    of ``num_samples`` labels, training and validation (``noise.anchors``). The truth lies most likely from ``low``, the
    lower end of their error, to ``high``, the rate that confident learning finds, which takes the models' errors for
    noise. ``is_weak`` says that the models err even where they are surest, or that the upper end lies far above the
    rate: nothing is known then but the two ends. True values are None where clean labels are unknown, the
    ``noise_cancelling_rate`` where none exists. Each of ``folds`` models was trained on all samples but one part, whose
    noisy labels it predicts at its epoch of ``best_epochs`` with the ``accuracy``. Estimates of earlier versions are
    those of confident learning. Those by the labels of several annotators have no folds, and their interval is the
    sampling error alone.
    """

    dataset: str
    noise_level: str
    num_classes: int
    num_samples: int
    noise_rate: float
    low: float
    high: float
    matrix: Matrix
    noise_cancelling_rate: float | None
    accuracy: float
    true_noise_rate: float | None
    true_matrix: Matrix | None
    model: str
    folds: int
    best_epochs: tuple[int, ...]
    seconds: float
    is_weak: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> NoiseEstimate:
        """Return the estimate whose ``dataclasses.asdict`` went through JSON, where tuples become lists."""
        matrices = {name: as_tuples(values[name]) for name in ("matrix", "true_matrix") if values[name] is not None}
        return cls(**{**values, **matrices, "best_epochs": tuple(values["best_epochs"])})


def as_tuples(matrix: ArrayLike) -> Matrix:
    """Return a matrix as plain floats, rounded to 6 digits: a millionth is below the error of any estimate."""
    return tuple(tuple(round(float(value), 6) for value in row) for row in np.asarray(matrix))


def estimate_transition(
    probabilities: ArrayLike, labels: ArrayLike, *, seed: int = 0, num_resamples: int = 500
) -> TransitionEstimate:
    """Estimate the noise of labels from out-of-sample class probabilities.

    The threshold of a class is the mean probability that samples with this label have for it. A sample's latent
    class is the most probable of those at or above their thresholds; a sample with none is left out. The counts of
    (label, latent class) are scaled so that each label has the share of the samples that it has in the data; a
    label of which no sample is confident counts as right.

    The bootstrap interval, widened where needed to hold the estimate, knows sampling error but no bias:

    * Errors of a weak model look like wrong labels: too much noise.
    * Probabilities of samples that the model was trained on, or chosen by, agree with the labels: too little.
    * Too little also where the noise depends on the input: a model that learns a systematic mistake shares it.
    * Classes that noise mixes so strongly that a wrong label is as frequent as the right one cannot be told apart.

    Over- and under-confidence that is the same for all samples of a class does little: the thresholds take it out.

    ``probabilities`` are (N, K) in [0, 1], ``labels`` noisy and (N,). The thresholds are computed again in each of the
    ``num_resamples`` of the bootstrap.

    Raises:
        InputError: Shapes that do not fit, labels out of range, or numbers that are not probabilities.
    """
    table, noisy = checked_probabilities(probabilities, labels)
    num_samples, num_classes = table.shape
    own = table[np.arange(num_samples), noisy].astype(np.float64)
    thresholds = class_thresholds(own, noisy, num_classes)
    latent = latent_classes(table, thresholds)
    rates = _bootstrap(table, own, noisy, latent, seed, num_resamples)
    low, high = np.percentile(rates, _PERCENTILES)
    joint = joint_of(noisy, latent, num_classes).T  # rows: latent class
    rate, prior = _off_diagonal(joint), joint.sum(axis=1)
    matrix = np.where(prior[:, None] > 0, joint, np.eye(num_classes))
    return TransitionEstimate(
        noise_rate=rate,
        low=min(float(low), rate),
        high=max(float(high), rate),
        joint=joint,
        prior=prior,
        matrix=matrix / matrix.sum(axis=1, keepdims=True),
    )


def class_thresholds(
    own: NDArray[np.float64], noisy: NDArray[np.int64], num_classes: int, weights: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """Return the mean self-confidence of each label, (K,); infinite for a label that no sample has."""
    counts = np.bincount(noisy, weights, minlength=num_classes)
    sums = np.bincount(noisy, own if weights is None else own * weights, minlength=num_classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1) - _TOLERANCE, np.inf)


def latent_classes(table: NDArray[Any], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the most probable class at or above its threshold, (N,); K where there is none."""
    above = table >= thresholds
    best = np.where(above, table, -1.0).argmax(axis=1)
    return np.asarray(np.where(above.any(axis=1), best, table.shape[1]))


def joint_of(
    noisy: NDArray[np.int64], latent: NDArray[np.int64], num_classes: int, weights: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """Return the (K, K) shares of label and latent class; a label has its share of all samples, and the sum is 1."""
    cells = np.bincount(noisy * (num_classes + 1) + latent, weights, minlength=num_classes * (num_classes + 1))
    counts = cells.reshape(num_classes, num_classes + 1)[:, :num_classes].astype(np.float64)
    empty = counts.sum(axis=1, keepdims=True) == 0
    filled = np.where(empty, np.eye(num_classes), counts)
    labels = np.bincount(noisy, weights, minlength=num_classes)
    return np.asarray(filled / filled.sum(axis=1, keepdims=True) * (labels / labels.sum())[:, None])


def _off_diagonal(joint: NDArray[np.float64]) -> float:
    return float(min(1.0, max(0.0, 1.0 - np.trace(joint))))


def _bootstrap(
    table: NDArray[Any],
    own: NDArray[np.float64],
    noisy: NDArray[np.int64],
    latent: NDArray[np.int64],
    seed: int,
    num_resamples: int,
) -> list[float]:
    """Return the noise rates of resamples of the samples."""
    num_samples, num_classes = table.shape
    generator = np.random.Generator(np.random.PCG64(seed))
    draws = (generator.integers(num_samples, size=num_samples) for _ in range(num_resamples))
    weights = [np.bincount(draw, minlength=num_samples).astype(np.uint16) for draw in draws]
    thresholds = [class_thresholds(own, noisy, num_classes, weight) for weight in weights]
    # Most samples are far from every threshold, and have the same latent class in every resample.
    lowest, highest = np.min(thresholds, axis=0), np.max(thresholds, axis=0)
    unsettled = np.flatnonzero(((table >= lowest) != (table >= highest)).any(axis=1))
    near, resampled, rates = table[unsettled], latent.copy(), []
    for weight, threshold in zip(weights, thresholds, strict=True):
        resampled[unsettled] = latent_classes(near, threshold)
        rates.append(_off_diagonal(joint_of(noisy, resampled, num_classes, weight)))
    return rates


def checked_probabilities(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return probabilities (N, K) and labels (N,) as arrays that fit together; raise InputError where they do not."""
    table = np.asarray(probabilities)
    if table.ndim != 2 or not len(table) or table.shape[1] < 2 or table.dtype.kind != "f":
        raise InputError(
            "probabilities must be floats of shape (N, K), N at least 1 and K at least 2, "
            f"got {table.dtype} of shape {table.shape}"
        )
    noisy = checked_labels(labels, table.shape[1], "labels")
    if len(noisy) != len(table):
        raise InputError(f"labels must be of shape ({len(table)},), one per row of probabilities, got {noisy.shape}")
    if not (np.isfinite(table).all() and table.min() >= 0 and table.max() <= 1 + _TOLERANCE):
        raise InputError("probabilities must be finite and from 0 to 1; apply softmax to logits first")
    return table, noisy
