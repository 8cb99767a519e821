"""Transition matrices: made from a rate, read from a file, checked.

Rows are clean classes, columns noisy classes, and rows sum to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nls_tune.errors import InputError
from nls_tune.files import parse_json
from nls_tune.noise.levels import checked_rate

_MATRIX_SUFFIXES = (".npy", ".csv", ".txt", ".json")
_ROW_SUM_TOLERANCE = 1e-6


def symmetric_matrix(num_classes: int, rate: float) -> NDArray[np.float64]:
    """Return the (K, K) matrix that flips to each of the K - 1 other classes with probability rate / (K - 1).

    Raises:
        InputError: ``rate`` outside [0, 1], or fewer than 2 classes.
    """
    rate = checked_noise(rate, num_classes)
    matrix = np.full((num_classes, num_classes), rate / (num_classes - 1))
    np.fill_diagonal(matrix, 1.0 - rate)
    return matrix


def pairflip_matrix(num_classes: int, rate: float) -> NDArray[np.float64]:
    """Return the (K, K) matrix that flips class i to i + 1 modulo K with probability ``rate``; errors as above."""
    checked_noise(rate, num_classes)
    return asymmetric_matrix(num_classes, rate, {i: (i + 1) % num_classes for i in range(num_classes)})


def asymmetric_matrix(num_classes: int, rate: float, class_map: Mapping[int, int]) -> NDArray[np.float64]:
    """Return the (K, K) matrix that flips the keys of ``class_map`` to their values with probability ``rate``.

    Classes that are not in the map keep their labels, so the overall rate is ``rate`` times the share of
    the mapped classes.

    Raises:
        InputError: ``rate`` outside [0, 1], fewer than 2 classes, or a map with a class that does not exist or
            that maps to itself.
    """
    rate = checked_noise(rate, num_classes)
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

    The text formats hold one clean class per line, numbers between commas or blanks; ``#`` starts a comment. A path may
    begin with ``~``.

    Raises:
        InputError: The file cannot be read or does not hold a transition matrix of ``num_classes`` classes.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _MATRIX_SUFFIXES:
        raise InputError(
            f"a transition matrix must be in a {', '.join(_MATRIX_SUFFIXES)} file, got {str(path)!r}; save it as .csv"
        )
    try:
        path = path.expanduser()
        if suffix == ".npy":
            # Mapped, a file that claims to be larger than it is is an error, and not a request for memory.
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            if values.dtype.kind not in "iuf":
                raise ValueError(f"it holds values of type {values.dtype}")
        elif suffix == ".json":
            values = parse_json(path.read_text(encoding="utf-8"))
        else:
            lines = [line.partition("#")[0] for line in path.read_text(encoding="utf-8-sig").splitlines()]
            values = [line.replace(",", " ").split() for line in lines if line.strip()]
        matrix = _as_numbers(values)
    except Exception as error:  # a damaged file fails in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"cannot read a transition matrix from {str(path)!r}: {reason}; "
            f"it must hold {num_classes} rows of {num_classes} numbers"
        ) from error
    return checked_matrix(matrix, num_classes, f"the transition matrix of {str(path)!r}")


def _as_numbers(values: Any) -> NDArray[np.float64]:
    """Return nested lists of numbers or of their texts as an array; other digits than 0 to 9 are no numbers here."""
    if isinstance(values, list):
        texts = [text for row in values if isinstance(row, list) for text in row if isinstance(text, str)]
        if wrong := [text for text in texts if not text.isascii() or "_" in text]:
            raise ValueError(f"could not convert string to float: {wrong[0]!r}")
    return np.array(values, dtype=np.float64)


def checked_noise(rate: float, num_classes: int) -> float:
    """Return a noise rate in [0, 1], or refuse it or fewer than 2 classes."""
    if num_classes < 2:
        raise InputError(f"label noise needs at least 2 classes, got {num_classes}")
    return checked_rate(rate, "a noise rate")


def checked_matrix(matrix: NDArray[np.float64], num_classes: int, what: str) -> NDArray[np.float64]:
    """Return the matrix if it is row-stochastic and (K, K), else raise an error that begins with ``what``."""
    if matrix.shape != (num_classes, num_classes) or not num_classes:
        size = f"{num_classes} x {num_classes}" if num_classes else "square"
        raise InputError(f"{what} must be {size}, one row per clean class, got shape {matrix.shape}")
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
