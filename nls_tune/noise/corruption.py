"""Label noise: how labels are corrupted, and what the noise does to the signal.

Matrices are transition matrices: row i is the clean class, column j the noisy class, and entry (i, j) the
probability of j given i, so that rows sum to 1. All randomness comes from ``noise_seed`` through PCG64 and
float64 arithmetic, so the same seed gives the same labels on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nls_tune.errors import InputError
from nls_tune.noise.levels import NoiseLevel
from nls_tune.noise.matrices import (
    asymmetric_matrix,
    checked_matrix,
    checked_noise,
    pairflip_matrix,
    read_matrix,
    symmetric_matrix,
)

_INSTANCE_SPREAD = 0.1  # standard deviation of the samples' flip rates in Xia et al. 2020
_CHUNK_VALUES = 4_000_000  # float64 values held at once while features are read: 32 MB


def apply_transition(labels: ArrayLike, matrix: ArrayLike, noise_seed: int) -> NDArray[np.int64]:
    """Return noisy labels, each drawn from the row of a (K, K) transition matrix that its clean label names.

    An entry of probability 0 is never drawn and one of probability 1 always.

    Raises:
        InputError: Labels that are not integers from 0 to K - 1, another matrix, or a negative seed.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    transition = checked_matrix(matrix, matrix.shape[0] if matrix.ndim else 0, "the transition matrix")
    clean = checked_labels(labels, len(transition), "labels")
    uniforms = _generator(noise_seed).random(len(clean))
    noisy = np.empty_like(clean)
    cumulative = transition.cumsum(axis=1)
    for label in np.unique(clean).tolist():
        members = np.flatnonzero(clean == label)
        thresholds = _thresholds(uniforms[members], cumulative[label, -1])
        noisy[members] = np.searchsorted(cumulative[label], thresholds, side="right")
    return noisy


def instance_dependent(
    features: ArrayLike, labels: ArrayLike, rate: float, num_classes: int, noise_seed: int
) -> NDArray[np.int64]:
    """Return labels with instance-dependent noise: which labels flip, and to what, depends on the features.

    Algorithm 2 of Xia et al., "Part-dependent Label Noise", NeurIPS 2020. Sample i has a flip rate q_i from a normal of
    standard deviation 0.1 truncated to [0, 1]; class y has a projection W_y of shape (S, K) of standard normal
    entries; the label becomes j != y with probability q_i * softmax_{j != y}(x_i W_y)_j. Features are taken as they
    are, as the authors' code does: not centred, so that most samples of a class flip to the few classes that their
    mean points to. Two things are made exact here. The normal is centred so that its mean *after* truncation is
    ``rate``: centred at 0.05, as the algorithm has it, it would flip 10 % of the labels. And rates 0 and 1 flip
    none and all.

    All is computed in float64: another order of summation in the matrix product moves a probability by about 1e-12,
    which changes a label with that probability.

    ``features``, finite and of shape (N, ...), are flattened to (N, S); ``labels`` are clean, integers of shape (N,),
    and ``rate`` is the expected share that flips.

    Raises:
        InputError: Arguments that break these rules, a rate outside [0, 1], fewer than 2 classes or a negative seed.
    """
    rate = checked_noise(rate, num_classes)
    clean = checked_labels(labels, num_classes, "labels")
    # Images in a file are read some at a time.
    table: Any = features if callable(getattr(features, "read", None)) else np.asarray(features)
    if table.ndim < 2 or len(table) != len(clean) or table.dtype.kind not in "uif":
        raise InputError(
            f"features must be numbers of shape ({len(clean)}, ...), one row per label, "
            f"got {table.dtype} of shape {table.shape}"
        )
    width = math.prod(table.shape[1:])
    if table.dtype.kind == "f" and not np.isfinite(table).all():
        raise InputError("features must be finite, got NaN or infinity; clean them or use another noise level")
    generator = _generator(noise_seed)
    # A stream of their own: the projections of a seed are the same for any number of samples.
    projections = np.random.Generator(np.random.PCG64(int(noise_seed)).jumped())
    flip_rates = _truncated_normal(rate, generator.random(len(clean)))
    flips = generator.random(len(clean)) < flip_rates
    uniforms = generator.random(len(clean))
    noisy = clean.copy()
    rows = max(1, _CHUNK_VALUES // max(1, width))
    for label in range(num_classes):
        # Drawn for every class, so that the draws of one class do not depend on which others occur.
        projection = projections.standard_normal((width, num_classes))
        members = np.flatnonzero((clean == label) & flips)  # only they need the product
        for start in range(0, len(members), rows):
            chunk = members[start : start + rows]
            scores = np.asarray(table[chunk]).reshape(len(chunk), width).astype(np.float64) @ projection
            scores[:, label] = -np.inf
            chances = np.exp(scores - scores.max(axis=1, keepdims=True)).cumsum(axis=1)
            thresholds = _thresholds(uniforms[chunk], chances[:, -1])
            noisy[chunk] = (chances <= thresholds[:, None]).sum(axis=1)
    return noisy


def corrupt_labels(
    level: NoiseLevel,
    labels: ArrayLike,
    *,
    num_classes: int,
    noise_seed: int,
    features: ArrayLike | None = None,
    class_map: Mapping[int, int] | None = None,
    swap_map: Mapping[int, int] | None = None,
    human_labels: Mapping[str, ArrayLike] | None = None,
) -> NDArray[np.int64]:
    """Return the labels as the noise level leaves them; a copy, shape (N,).

    ``labels`` are clean, integers of shape (N,), and ``noise_seed``, at least 0, is the only source of randomness.
    ``instance`` needs ``features`` of shape (N, ...), ``asymmetric`` a ``class_map`` of clean to noisy classes,
    ``swap`` a ``swap_map``, and ``human`` the dataset's human label sets by name, each of shape (N,).

    Raises:
        InputError: Labels out of range, or a level that this dataset cannot have.
    """
    clean = checked_labels(labels, num_classes, "labels")
    rate, source, sets = level.rate or 0.0, level.source or "", human_labels or {}
    match level.kind:
        case "clean":
            return clean.copy()
        case "human" if source in sets:
            _, human = _checked_pair(clean, sets[source], num_classes, f"the labels of '{level}'")
            return human.copy()
        case "instance" if features is not None:
            return instance_dependent(features, clean, rate, num_classes, noise_seed)
        case "matrix":
            matrix = read_matrix(source, num_classes)
        case "symmetric":
            matrix = symmetric_matrix(num_classes, rate)
        case "pairflip":
            matrix = pairflip_matrix(num_classes, rate)
        case "asymmetric" if class_map is not None:
            matrix = asymmetric_matrix(num_classes, rate, class_map)
        case "swap" if swap_map is not None:
            matrix = asymmetric_matrix(num_classes, rate, swap_map)
        case _:
            needed = {"human": "these human labels", "instance": "features"}
            what = "given labels" if level.kind == "given" else "a class map"
            raise InputError(
                f"noise level '{level}' needs {needed.get(level.kind, what)}, and this dataset has none; "
                "use for example 'symmetric:0.4'"
            )
    return apply_transition(clean, matrix, noise_seed)


def transition_matrix(clean: ArrayLike, noisy: ArrayLike, num_classes: int | None = None) -> NDArray[np.float64]:
    """Return the (K, K) shares of noisy labels within each clean class.

    A class without samples has an identity row: nothing says that its labels would change. K is by default the
    highest label plus 1.

    Raises:
        InputError: Labels out of range, of different lengths, or none at all without ``num_classes``.
    """
    before, after = _checked_pair(clean, noisy, num_classes)
    if num_classes is None:
        if not len(before):
            raise InputError("a transition matrix of no labels has no size; give num_classes")
        num_classes = int(max(before.max(), after.max())) + 1
    counts = np.bincount(before * num_classes + after, minlength=num_classes**2)
    table = counts.reshape(num_classes, num_classes).astype(np.float64)
    empty = ~table.any(axis=1)
    table[empty, empty] = 1.0
    return np.asarray(table / table.sum(axis=1, keepdims=True))


def noise_rate(clean: ArrayLike, noisy: ArrayLike) -> float:
    """Return the share of labels that differ, in [0, 1]; raise InputError for other lengths, or no labels."""
    before, after = _checked_pair(clean, noisy)
    if not len(before):
        raise InputError("the noise rate of no labels is not defined; give at least one label")
    return float(np.mean(before != after))


def signal_share(noise: float, num_classes: int) -> float:
    """Return c = 1 - e * K / (K - 1), what symmetric noise at rate e leaves of the difference between classes.

    A noisy label is the clean one with probability c, and uniform over all K classes otherwise. Above
    e = (K - 1) / K it is negative: the clean class is then the least likely one.

    Raises:
        InputError: ``noise`` outside [0, 1], or fewer than 2 classes.
    """
    return 1.0 - checked_noise(noise, num_classes) * num_classes / (num_classes - 1)


def noise_cancelling_rate(noise: float, num_classes: int) -> float:
    """Return the smooth rate r* = -(1 - c) / c that cancels symmetric noise at rate ``noise`` in expectation.

    Symmetric noise turns the one-hot clean label into c * onehot + (1 - c) / K on average, with c the
    ``signal_share``. The GLS target of a noisy label, (1 - r) * onehot + r / K, is therefore on average
    (1 - r) * c * onehot + ((1 - r) * (1 - c) + r) / K. The first factor is 1 at 1 - r = 1 / c, where the
    second term vanishes too: the expected target is the clean label's. For K = 2, r* = -2e / (1 - 2e).
    See Wei et al., ICML 2022. For other noise r* is a symmetric equivalent, a prior and no more.

    Raises:
        InputError: ``noise`` outside [0, 1], fewer than 2 classes, or no signal left: e >= (K - 1) / K.
    """
    share = signal_share(noise, num_classes)
    if share <= 1e-12:  # rounding: e = (K - 1) / K need not give exactly 0
        raise InputError(
            "a noise-cancelling rate exists only for noise below (K - 1) / K, where labels still point to "
            f"their class, here {(num_classes - 1) / num_classes:g}, got {noise:g}; search without this prior"
        )
    return -(1.0 - share) / share if noise else 0.0


def _thresholds(uniforms: NDArray[np.float64], totals: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Scale uniforms in [0, 1) to cumulative weights: strictly below the total, whatever the rounding.

    The first cumulative weight above a threshold then exists and belongs to an entry of positive weight.
    """
    return np.asarray(np.minimum(uniforms * totals, np.nextafter(totals, 0.0)), dtype=np.float64)


def _truncated_normal(mean: float, uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map uniforms to a normal of standard deviation 0.1 truncated to [0, 1] whose mean is ``mean``.

    Its density is exp(t * x - x^2 / (2 * 0.1^2)), and t is found by bisection. The inverse of its cumulative
    distribution is interpolated on a grid that is finer at the ends, where the mass lies for extreme means.
    """
    if mean in (0.0, 1.0):
        return np.full_like(uniforms, mean)
    ends = np.geomspace(1e-12, 1e-3, 500, endpoint=False)
    grid = np.concatenate([[0.0], ends, np.linspace(1e-3, 1 - 1e-3, 4_001), 1.0 - ends[::-1], [1.0]])
    centres, widths = (grid[1:] + grid[:-1]) / 2, np.diff(grid)
    bell = -(centres**2) / (2 * _INSTANCE_SPREAD**2)

    def masses(tilt: float) -> NDArray[np.float64]:
        exponents = bell + tilt * centres
        weights = np.exp(exponents - exponents.max()) * widths
        return np.asarray(weights / weights.sum(), dtype=np.float64)

    low, high = -1e13, 1e13
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if masses(middle) @ centres < mean else (low, middle)
    cumulative = np.concatenate([[0.0], masses(high).cumsum()])
    return np.asarray(np.interp(uniforms, cumulative, grid), dtype=np.float64)


def checked_labels(labels: ArrayLike, num_classes: int | None, what: str) -> NDArray[np.int64]:
    """Return the labels as int64 of shape (N,), or refuse them."""
    array = np.asarray(labels)
    if array.ndim != 1 or (array.dtype.kind not in "ui" and array.size):
        raise InputError(f"{what} must be integers of shape (N,), got {array.dtype} of shape {array.shape}")
    array = array.astype(np.int64, copy=False)
    if array.size and (array.min() < 0 or (num_classes is not None and array.max() >= num_classes)):
        bad = array.min() if array.min() < 0 else array.max()
        rule = "not be negative" if num_classes is None else f"be from 0 to {num_classes - 1}"
        raise InputError(f"{what} must {rule}, got {bad}; number the classes from 0 without gaps")
    return array


def _checked_pair(
    clean: ArrayLike, noisy: ArrayLike, num_classes: int | None = None, what: str = "noisy"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    before, after = checked_labels(clean, num_classes, "clean"), checked_labels(noisy, num_classes, what)
    if len(before) != len(after):
        raise InputError(f"clean and noisy labels must be of the same samples, got {len(before)} and {len(after)}")
    return before, after


def _generator(noise_seed: int) -> np.random.Generator:
    if isinstance(noise_seed, bool) or not isinstance(noise_seed, (int, np.integer)) or noise_seed < 0:
        raise InputError(f"noise_seed must be an integer of at least 0, got {noise_seed!r}")
    return np.random.Generator(np.random.PCG64(int(noise_seed)))
