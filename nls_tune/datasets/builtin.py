"""Data drawn from known distributions, the same on every machine, and scikit-learn's digits.

Everything drawn comes from the float64 ``random`` and ``standard_normal`` of numpy's PCG64 with a fixed seed, and is
stored as float32, which hides the last bit in which the mathematical libraries of two machines may differ.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nls_tune.datasets.registry import DatasetInfo
from nls_tune.datasets.source import Source, make_source
from nls_tune.datasets.splits import stratified_order

_TWONORM_SEED = 1996
_WAVEFORM_SEED = 1984
_DIGITS_TEST_SEED = 1998


def make_twonorm(info: DatasetInfo) -> Source:
    """Draw Twonorm (Breiman, "Bias, variance, and arcing classifiers", 1996).

    D features, two classes equally likely: N(+a, I) and N(-a, I) with ``a = 2 / sqrt(D)`` in each feature. The
    best rule is the sign of the features' sum; its accuracy is Phi(2) = 97.72 %.
    """
    rng = np.random.Generator(np.random.PCG64(_TWONORM_SEED))
    total, (features,) = info.num_labelled + info.num_test, info.input_shape
    labels = (rng.random(total) < 0.5).astype(np.int64)
    centre = np.where(labels == 0, 1.0, -1.0) * (2 / np.sqrt(features))
    inputs = rng.standard_normal((total, features)) + centre[:, None]
    return _cut(info, inputs, labels)


def make_waveform(info: DatasetInfo) -> Source:
    """Draw Waveform (Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees", 1984).

    21 features, three classes equally likely: ``u * h_i + (1 - u) * h_j`` plus N(0, 1) in each feature, with u
    uniform in [0, 1), of three triangular waves of height 6 that peak at features 7, 15 and 11; the classes are
    the pairs (h_1, h_2), (h_1, h_3) and (h_2, h_3). The best accuracy is about 86 %.
    """
    rng = np.random.Generator(np.random.PCG64(_WAVEFORM_SEED))
    total, (features,) = info.num_labelled + info.num_test, info.input_shape
    position = np.arange(1, features + 1)
    waves = np.stack([np.maximum(6.0 - np.abs(position - peak), 0) for peak in (7, 15, 11)])
    labels = (rng.random(total) * 3).astype(np.int64)
    first, second = waves[[0, 0, 1]][labels], waves[[1, 2, 2]][labels]
    share = rng.random((total, 1))
    inputs = share * first + (1 - share) * second + rng.standard_normal((total, features))
    return _cut(info, inputs, labels)


def _cut(info: DatasetInfo, inputs: np.ndarray, labels: np.ndarray) -> Source:
    inputs, end = inputs.astype(np.float32), info.num_labelled
    return make_source(info, inputs[:end], labels[:end], inputs[end:], labels[end:])


def _digits_table() -> NDArray[np.int64]:
    """The rows of scikit-learn's file, 64 pixels and the label each; without an import of it, which takes a second."""
    found = importlib.util.find_spec("sklearn")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz" if found and found.origin else None
    if file is not None and file.is_file():
        return np.loadtxt(file, delimiter=",").astype(np.int64)
    from sklearn import datasets

    bunch = datasets.load_digits()
    return np.column_stack([bunch.data, bunch.target]).astype(np.int64)


def load_digits(info: DatasetInfo) -> Source:
    """Load the digits of scikit-learn, scaled from 0..16 to 0..255.

    The test set is a stratified fifth, always the same; both parts keep the order of scikit-learn.
    """
    table = _digits_table()
    images = (table[:, :-1].reshape(-1, *info.input_shape) * 255 + 8) // 16
    inputs, labels = images.astype(np.uint8), table[:, -1]
    order = stratified_order(labels, np.random.Generator(np.random.PCG64(_DIGITS_TEST_SEED)))
    test, labelled = np.sort(order[: info.num_test]), np.sort(order[info.num_test :])
    return make_source(info, inputs[labelled], labels[labelled], inputs[test], labels[test])
