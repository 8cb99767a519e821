"""Label noise: how levels are written, how labels are corrupted, and what the noise does to the signal.

Matrices are transition matrices: row i is the clean class, column j the noisy class, and entry (i, j) the
probability of j given i, so that rows sum to 1. All randomness comes from ``noise_seed`` through PCG64 and
float64 arithmetic, so the same seed gives the same labels on every machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nls_tune.errors import InputError, unknown_name

_RATE_KINDS = ("symmetric", "pairflip", "asymmetric", "instance")
_KINDS = ("clean", *_RATE_KINDS, "matrix", "human", "given")
_HUMAN_NAMES = ("worst", "aggre", "random1", "random2", "random3", "noisy")
_HUMAN_ALIASES = {"worse": "worst", "aggregate": "aggre"}
_EXAMPLES = {"matrix": "matrix:FILE", "human": "human:worst"} | {kind: f"{kind}:0.4" for kind in _RATE_KINDS}
_MATRIX_SUFFIXES = (".npy", ".csv", ".txt", ".json")
_ROW_SUM_TOLERANCE = 1e-6
_INSTANCE_SPREAD = 0.1  # standard deviation of the samples' flip rates in Xia et al. 2020
_CHUNK_VALUES = 4_000_000  # float64 values held at once while features are read: 32 MB


@dataclass(frozen=True)
class NoiseLevel:
    """One kind and strength of label noise; ``str()`` gives its one stored spelling.

    Args:
        kind: ``clean``, ``symmetric``, ``pairflip``, ``asymmetric``, ``instance``, ``matrix``, ``human`` or
            ``given``, in any case.
        rate: The share of flipped labels, in [0, 1]; for the kinds written ``KIND:RATE``, else None.
        source: The file of ``matrix``, the label set of ``human`` (aliases are mapped), else None.

    Raises:
        InputError: An unknown kind or label set, or a rate or source that is missing, out of range or one too
            many.
    """

    kind: str
    rate: float | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        kind = self.kind.lower()
        if kind not in _KINDS:
            raise unknown_name("noise level", self.kind, _KINDS)
        source = self.source or None
        if kind == "human" and source is not None:
            name = source.lower()
            source = _HUMAN_ALIASES.get(name, name)
            if source not in _HUMAN_NAMES:
                raise unknown_name("human label set", name, (*_HUMAN_NAMES, *_HUMAN_ALIASES))
        needs_rate, needs_source = kind in _RATE_KINDS, kind in ("matrix", "human")
        if (needs_rate and self.rate is None) or (needs_source and source is None):
            what = "a rate" if needs_rate else "a file" if kind == "matrix" else "a label set"
            raise InputError(f"noise level {kind!r} needs {what}; write for example {_EXAMPLES[kind]!r}")
        if (self.rate is not None and not needs_rate) or (source is not None and not needs_source):
            given = self.rate if source is None else source
            way_out = _EXAMPLES.get(kind, kind)
            raise InputError(f"noise level {kind!r} cannot take {given!r}; write for example {way_out!r}")
        rate = None if self.rate is None else _checked_rate(self.rate, f"the rate of noise level {kind!r}")
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "rate", rate)
        object.__setattr__(self, "source", source)

    def __str__(self) -> str:
        if self.rate is not None:
            return f"{self.kind}:{repr(self.rate).removesuffix('.0')}"
        return self.kind if self.source is None else f"{self.kind}:{self.source}"


def parse_noise_level(text: str) -> NoiseLevel:
    """Return the noise level that ``text`` names, for example ``symmetric:0.4`` or ``human:worst``.

    Raises:
        InputError: ``text`` is no noise level; the message names the rule and the nearest valid spelling.
    """
    head, colon, tail = (part.strip() for part in text.partition(":"))
    kind = head.lower()
    if kind not in _KINDS:
        raise unknown_name("noise level", head, _KINDS)
    if kind not in _RATE_KINDS or not tail:
        if colon and not tail:
            raise InputError(
                f"noise level {text.strip()!r} has nothing after the colon; "
                f"write for example {_EXAMPLES.get(kind, kind)!r}"
            )
        return NoiseLevel(kind, source=tail or None)
    try:
        rate = float(tail.replace("_", "?"))  # Python reads 0_4 as 4
    except ValueError:
        raise InputError(
            f"the rate of noise level {kind!r} must be a number from 0 to 1, got {tail!r}; "
            f"write for example {_EXAMPLES[kind]!r}"
        ) from None
    return NoiseLevel(kind, rate=rate)


def parse_noise_levels(text: str) -> tuple[NoiseLevel, ...]:
    """Return the noise levels of a comma-separated list, in its order; file names cannot hold commas.

    Raises:
        InputError: The list is empty, holds an empty or invalid item, or one level twice (``symmetric:0.4`` and
            ``symmetric:0.40`` are the same).
    """
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise InputError(
            f"a list of noise levels must hold a level between all commas, got {text!r}; "
            "write for example 'symmetric:0.2,symmetric:0.4'"
        )
    levels = tuple(parse_noise_level(item) for item in items)
    for position, level in enumerate(levels):
        if level in levels[:position]:
            raise InputError(f"noise level '{level}' is in the list twice, got {text!r}; leave one of them out")
    return levels


def symmetric_matrix(num_classes: int, rate: float) -> NDArray[np.float64]:
    """Return the (K, K) matrix that flips to each of the K - 1 other classes with probability rate / (K - 1).

    Raises:
        InputError: ``rate`` outside [0, 1], or fewer than 2 classes.
    """
    rate = _checked_noise(rate, num_classes)
    matrix = np.full((num_classes, num_classes), rate / (num_classes - 1))
    np.fill_diagonal(matrix, 1.0 - rate)
    return matrix


def pairflip_matrix(num_classes: int, rate: float) -> NDArray[np.float64]:
    """Return the (K, K) matrix that flips class i to i + 1 modulo K with probability ``rate``.

    Raises:
        InputError: ``rate`` outside [0, 1], or fewer than 2 classes.
    """
    _checked_noise(rate, num_classes)
    return asymmetric_matrix(num_classes, rate, {i: (i + 1) % num_classes for i in range(num_classes)})


def asymmetric_matrix(num_classes: int, rate: float, class_map: Mapping[int, int]) -> NDArray[np.float64]:
    """Return the (K, K) matrix that flips the keys of ``class_map`` to their values with probability ``rate``.

    Classes that are not in the map keep their labels, so the overall rate is ``rate`` times the share of
    the mapped classes.

    Raises:
        InputError: ``rate`` outside [0, 1], fewer than 2 classes, or a map with a class that does not exist or
            that maps to itself.
    """
    rate = _checked_noise(rate, num_classes)
    matrix = np.eye(num_classes)
    for clean, noisy in class_map.items():
        if not (0 <= clean < num_classes and 0 <= noisy < num_classes) or clean == noisy:
            raise InputError(
                f"a class map must take classes 0 to {num_classes - 1} to other ones, "
                f"got {clean} to {noisy}; leave out classes that keep their labels"
            )
        matrix[clean, clean] = 1.0 - rate
        matrix[clean, noisy] = rate
    return matrix


def read_matrix(path: str | Path, num_classes: int) -> NDArray[np.float64]:
    """Return the (K, K) transition matrix of a file: ``.npy``, ``.json``, or ``.csv`` / ``.txt``.

    The text formats hold one clean class a line, numbers between commas or blanks; ``#`` starts a comment.

    Raises:
        InputError: The file cannot be read or does not hold a transition matrix of ``num_classes`` classes.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _MATRIX_SUFFIXES:
        raise InputError(
            f"a transition matrix must be in a {', '.join(_MATRIX_SUFFIXES)} file, "
            f"got {str(path)!r}; save it as .csv"
        )
    try:
        if suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        elif suffix == ".json":
            values = json.loads(path.read_text(encoding="utf-8"))
        else:
            lines = [line.partition("#")[0] for line in path.read_text(encoding="utf-8-sig").splitlines()]
            values = [line.replace(",", " ").split() for line in lines if line.strip()]
        matrix = np.asarray(values, dtype=np.float64)
    except (OSError, ValueError, TypeError, OverflowError, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"cannot read a transition matrix from {str(path)!r}: {reason}; "
            f"it must hold {num_classes} rows of {num_classes} numbers"
        ) from error
    return _checked_matrix(matrix, num_classes, f"the transition matrix of {str(path)!r}")


def apply_transition(labels: ArrayLike, matrix: ArrayLike, noise_seed: int) -> NDArray[np.int64]:
    """Return noisy labels, each drawn from the row of ``matrix`` that its clean label names.

    Args:
        labels: Clean labels, integers of shape (N,).
        matrix: A (K, K) transition matrix.
        noise_seed: A non-negative integer; the only source of randomness.

    Returns:
        Shape (N,). An entry of probability 0 is never drawn and one of probability 1 always.

    Raises:
        InputError: Labels, matrix or seed that break these rules.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    transition = _checked_matrix(matrix, matrix.shape[0] if matrix.ndim else 0, "the transition matrix")
    clean = _checked_labels(labels, len(transition), "labels")
    uniforms = _generator(noise_seed).random(len(clean))
    noisy = np.empty_like(clean)
    cumulative = transition.cumsum(axis=1)
    for label, members in _members_by_class(clean):
        thresholds = _thresholds(uniforms[members], cumulative[label, -1])
        noisy[members] = np.searchsorted(cumulative[label], thresholds, side="right")
    return noisy


def instance_dependent(
    features: ArrayLike, labels: ArrayLike, rate: float, num_classes: int, noise_seed: int
) -> NDArray[np.int64]:
    """Return labels with instance-dependent noise: which labels flip, and to what, depends on the features.

    Algorithm 2 of Xia et al., "Part-dependent Label Noise", NeurIPS 2020. Sample i has a flip rate q_i from a
    normal of standard deviation 0.1 truncated to [0, 1]; class y has a projection W_y of shape (S, K) of
    standard normal entries; the label becomes j != y with probability q_i * softmax_{j != y}(x_i W_y)_j. Two
    things are made exact here. The normal is centred so that its mean *after* truncation is ``rate``: centred
    at 0.05, as the algorithm has it, it would flip 10 % of the labels. And rates 0 and 1 flip none and all.

    Args:
        features: Shape (N, ...), finite; flattened to (N, S) and standardised, constant features counting 0.
        labels: Clean labels, integers of shape (N,).
        rate: The expected share of flipped labels, in [0, 1].
        num_classes: The number of classes K, at least 2.
        noise_seed: A non-negative integer; the only source of randomness.

    Returns:
        Shape (N,). All is computed in float64: another order of summation in the matrix product moves a
        probability by about 1e-12, which changes a label with that probability.

    Raises:
        InputError: Arguments that break these rules.
    """
    rate = _checked_noise(rate, num_classes)
    clean = _checked_labels(labels, num_classes, "labels")
    table = np.asarray(features)
    if table.ndim < 2 or len(table) != len(clean) or table.dtype.kind not in "uif":
        raise InputError(
            f"features must be numbers of shape ({len(clean)}, ...), one row a label, "
            f"got {table.dtype} of shape {table.shape}"
        )
    table = table.reshape(len(table), -1)
    mean, scale = _mean_and_scale(table)
    generator = _generator(noise_seed)
    # A stream of their own: the projections of a seed are the same for any number of samples.
    projections = np.random.Generator(np.random.PCG64(int(noise_seed)).jumped())
    flip_rates = _truncated_normal(rate, generator.random(len(clean)))
    flips = generator.random(len(clean)) < flip_rates
    uniforms = generator.random(len(clean))
    noisy = clean.copy()
    members_of = dict(_members_by_class(clean))
    rows = max(1, _CHUNK_VALUES // max(1, table.shape[1]))
    for label in range(num_classes):
        # Drawn for every class, so that the draws of one class do not depend on which others occur.
        projection = projections.standard_normal((table.shape[1], num_classes)) / scale[:, None]
        members = members_of.get(label, np.empty(0, dtype=np.int64))
        members = members[flips[members]]  # only they need the product
        for start in range(0, len(members), rows):
            chunk = members[start : start + rows]
            scores = (table[chunk] - mean) @ projection
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
    human_labels: Mapping[str, ArrayLike] | None = None,
) -> NDArray[np.int64]:
    """Return the labels as the noise level leaves them; a copy, shape (N,).

    Args:
        level: The noise level.
        labels: Clean labels, integers of shape (N,).
        num_classes: The number of classes K.
        noise_seed: A non-negative integer; the only source of randomness.
        features: Shape (N, ...); needed by ``instance``.
        class_map: Clean class to noisy class, where the dataset defines one; needed by ``asymmetric``.
        human_labels: The dataset's human label sets by name, each of shape (N,); needed by ``human``.

    Raises:
        InputError: Labels out of range, or a level that this dataset cannot have; the message says which it can.
    """
    clean = _checked_labels(labels, num_classes, "labels")
    rate = level.rate if level.rate is not None else 0.0
    if level.kind == "clean":
        return clean.copy()
    if level.kind == "given":
        raise InputError(
            "noise level 'given': this dataset carries no given labels; use 'clean' or 'symmetric:0.4'"
        )
    if level.kind == "human":
        name, sets = level.source or "", human_labels or {}
        if name not in sets:
            names = ", ".join(f"human:{n}" for n in sorted(sets)) or "none; use for example 'symmetric:0.4'"
            raise InputError(f"noise level '{level}': this dataset has no such human labels; it has: {names}")
        human = _checked_labels(sets[name], num_classes, f"the labels of '{level}'")
        _same_length(clean, human)
        return human.copy()
    if level.kind == "instance":
        if features is None:
            raise InputError(f"noise level '{level}' needs features; use 'symmetric:{rate:g}' without them")
        return instance_dependent(features, clean, rate, num_classes, noise_seed)
    if level.kind == "matrix":
        matrix = read_matrix(level.source or "", num_classes)
    elif level.kind == "symmetric":
        matrix = symmetric_matrix(num_classes, rate)
    elif level.kind == "pairflip":
        matrix = pairflip_matrix(num_classes, rate)
    elif class_map is None:
        raise InputError(
            f"noise level '{level}': this dataset defines no class map; "
            f"use 'pairflip:{rate:g}', or 'matrix:FILE' with a transition matrix of your own"
        )
    else:
        matrix = asymmetric_matrix(num_classes, rate, class_map)
    return apply_transition(clean, matrix, noise_seed)


def transition_matrix(clean: ArrayLike, noisy: ArrayLike, num_classes: int | None = None) -> NDArray[np.float64]:
    """Return the (K, K) shares of noisy labels within each clean class.

    A class without samples has an identity row: nothing says that its labels would change.

    Args:
        clean: Clean labels, integers of shape (N,).
        noisy: Noisy labels of the same samples.
        num_classes: K; by default the highest label plus 1.

    Raises:
        InputError: Labels out of range, of different lengths, or none at all without ``num_classes``.
    """
    before, after = _checked_labels(clean, num_classes, "clean"), _checked_labels(noisy, num_classes, "noisy")
    _same_length(before, after)
    if num_classes is None:
        if not len(before):
            raise InputError("a transition matrix of no labels has no size; give num_classes")
        num_classes = int(max(before.max(), after.max())) + 1
    counts = np.bincount(before * num_classes + after, minlength=num_classes**2)
    table = counts.reshape(num_classes, num_classes).astype(np.float64)
    empty = ~table.any(axis=1)
    table[empty, empty] = 1.0
    table /= table.sum(axis=1, keepdims=True)
    return table


def noise_rate(clean: ArrayLike, noisy: ArrayLike) -> float:
    """Return the share of labels that differ, in [0, 1].

    Raises:
        InputError: Labels of different lengths, or none.
    """
    before, after = _checked_labels(clean, None, "clean"), _checked_labels(noisy, None, "noisy")
    _same_length(before, after)
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
    return 1.0 - _checked_noise(noise, num_classes) * num_classes / (num_classes - 1)


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


def _members_by_class(labels: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Return each class that occurs with the positions of its samples, in order."""
    order = np.argsort(labels, kind="stable").astype(np.int64)
    classes, starts = np.unique(labels[order], return_index=True)
    return list(zip(classes.tolist(), np.split(order, starts[1:]), strict=True)) if len(labels) else []


def _mean_and_scale(table: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each column's mean and standard deviation in float64, infinite for constant columns."""
    rows = max(1, _CHUNK_VALUES // max(1, table.shape[1]))
    chunks = range(0, len(table), rows)
    count = max(1, len(table))
    total, squares = np.zeros(table.shape[1]), np.zeros(table.shape[1])
    for start in chunks:
        total += table[start : start + rows].sum(axis=0, dtype=np.float64)
    mean = total / count
    if not np.isfinite(mean).all():
        raise InputError("features must be finite, got NaN or infinity; clean them or use another noise level")
    for start in chunks:
        difference = table[start : start + rows] - mean
        squares += np.einsum("ij,ij->j", difference, difference)
    deviation = np.sqrt(squares / count)
    # A constant such as 0.1 has a deviation of rounding errors, which differ between machines.
    return mean, np.where(deviation > 1e-10 * np.abs(mean), deviation, np.inf)


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


def _checked_rate(rate: float, what: str) -> float:
    if not (math.isfinite(rate) and 0.0 <= rate <= 1.0):
        raise InputError(f"{what} must be from 0 to 1, got {rate:g}; 0.4 stands for 40 %")
    return abs(float(rate))  # no -0.0


def _checked_noise(rate: float, num_classes: int) -> float:
    if num_classes < 2:
        raise InputError(f"label noise needs at least 2 classes, got {num_classes}")
    return _checked_rate(rate, "a noise rate")


def _checked_matrix(matrix: NDArray[np.float64], num_classes: int, what: str) -> NDArray[np.float64]:
    """Return the matrix if it is row-stochastic and (K, K), else raise an error that begins with ``what``."""
    if matrix.shape != (num_classes, num_classes) or not num_classes:
        size = f"{num_classes} x {num_classes}" if num_classes else "square"
        raise InputError(f"{what} must be {size}, one row a clean class, got shape {matrix.shape}")
    wrong = np.argwhere(~(np.isfinite(matrix) & (matrix >= 0)))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise InputError(
            f"{what} must hold probabilities, finite and not negative, "
            f"got {matrix[row, column]:g} in row {row}, column {column}; correct that entry"
        )
    sums = matrix.sum(axis=1)
    row = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[row] - 1) > _ROW_SUM_TOLERANCE:
        raise InputError(
            f"{what} must have rows (clean classes) that sum to 1 within {_ROW_SUM_TOLERANCE:g}, "
            f"got {sums[row]:.9g} in row {row}; divide each row by its sum, or transpose"
        )
    return matrix


def _checked_labels(labels: ArrayLike, num_classes: int | None, what: str) -> NDArray[np.int64]:
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


def _same_length(clean: NDArray[np.int64], noisy: NDArray[np.int64]) -> None:
    if len(clean) != len(noisy):
        raise InputError(f"clean and noisy labels must be of the same samples, got {len(clean)} and {len(noisy)}")


def _generator(noise_seed: int) -> np.random.Generator:
    if isinstance(noise_seed, bool) or not isinstance(noise_seed, (int, np.integer)) or noise_seed < 0:
        raise InputError(f"noise_seed must be an integer of at least 0, got {noise_seed!r}")
    return np.random.Generator(np.random.PCG64(int(noise_seed)))
