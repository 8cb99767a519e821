"""The clean data of a dataset, and the numbers that describe it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from nls_tune.datasets.annotations import Annotations
from nls_tune.datasets.mapped import InputArray, MappedImages
from nls_tune.datasets.registry import DatasetInfo
from nls_tune.datasets.splits import stratified_order
from nls_tune.errors import InputError

#: Images whose pixels are counted at once, and the bytes that they may have.
_CHUNK, _CHUNK_BYTES = 5_000, 1 << 24
_TEST_STREAM = 0x7E57


@dataclass(frozen=True)
class OwnFacts:
    """What is known of a user's own data besides its arrays.

    The ``labels`` of such a source are those given, which may be wrong; ``clean_labels`` are None where unknown.
    ``val_rows`` validate, whatever the noise, and with ``val_clean`` none is put on them. Without ``test_clean`` the
    test labels are those given as well. ``preprocessing`` is the content of ``preprocessing.json``, and ``notes`` are
    sentences for the plan. ``origins`` say by column where each labelled sample comes from: its ``file`` or its
    ``row``, and its ``source`` where there are two. ``annotations`` are the labels of several annotators, of which the
    given ones are the majority's. ``units`` number what no split divides; None where each labelled sample is alone.
    """

    class_names: tuple[str, ...]
    val_rows: np.ndarray
    val_clean: bool
    clean_labels: np.ndarray | None
    test_clean: bool
    preprocessing: Mapping[str, object]
    notes: tuple[str, ...]
    origins: Mapping[str, np.ndarray]
    annotations: Annotations | None = None
    units: np.ndarray | None = None


@dataclass(frozen=True)
class Source:
    """Clean data, as the files of a dataset give it; of a user's own data, with ``own``, the labels given.

    ``inputs`` are (N, C, H, W) uint8 images, in memory or mapped, or (N, D) float32 features, and all labels (N,)
    int64; ``human_labels`` are named without ``human:``. ``input_mean`` and ``input_std`` are those of
    `input_statistics` over ``inputs``, and ``fingerprint`` is the SHA-256 (hex) of inputs and clean labels, labelled
    and test.
    """

    info: DatasetInfo
    inputs: InputArray
    labels: np.ndarray
    test_inputs: InputArray
    test_labels: np.ndarray
    input_mean: np.ndarray
    input_std: np.ndarray
    fingerprint: str
    human_labels: dict[str, np.ndarray] = field(default_factory=dict)
    own: OwnFacts | None = None

    def with_test_size(self, size: int, seed: int) -> Source:
        """Return the source with a stratified part of its test samples, which ``seed`` alone decides.

        Raises:
            InputError: The test samples are fewer, or would not hold one per class.
        """
        total, classes = len(self.test_labels), self.info.num_classes
        if not total:
            raise InputError(f"--test-size needs test samples, and {self.info.name} has none; give them with --test")
        if not classes <= size <= total:
            raise InputError(
                f"test_size must be at least one sample per class and at most the test samples of {self.info.name}, "
                f"{classes} to {total:,}, not {size:,}; choose a size in this range"
            )
        if size == total:
            return self
        rng = np.random.Generator(np.random.PCG64([_TEST_STREAM, seed]))
        rows = np.sort(stratified_order(self.test_labels, rng)[:size])
        return replace(
            self,
            test_inputs=self.test_inputs[rows],
            test_labels=self.test_labels[rows],
            fingerprint=hash_arrays(rows, seed=f"{self.fingerprint} test"),
        )


def hash_arrays(*arrays: np.ndarray, seed: str = "") -> str:
    """Return the SHA-256 (hex) of ``seed`` and of arrays: their types, shapes and values, whatever the byte order."""
    digest = hashlib.sha256(seed.encode())
    for array in arrays:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{little.dtype.str}{little.shape}".encode())
        digest.update(little.tobytes() if little.size == 0 else little.data)
    return digest.hexdigest()


def input_statistics(inputs: InputArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of each channel or feature, float32 of shape (C,) or (D,).

    Images, uint8, count from 0 to 1. A standard deviation of 0 is given as 1, so that dividing by it is safe.
    """
    if isinstance(inputs, MappedImages) or inputs.dtype == np.uint8:
        # A histogram is exact, and needs no float copy of the images.
        counts = np.zeros((inputs.shape[1], 256))
        chunk = max(1, min(_CHUNK, _CHUNK_BYTES // math.prod(inputs.shape[1:])))
        for start in range(0, len(inputs), chunk):
            some = np.asarray(inputs[start : start + chunk])
            for channel, row in enumerate(counts):
                row += _histogram(some[:, channel].ravel())
        values = np.arange(256) / 255
        share = counts / counts.sum(axis=1, keepdims=True)
        mean = share @ values
        std = np.sqrt(np.maximum(share @ values**2 - mean**2, 0))
    else:
        mean = inputs.mean(axis=0, dtype=np.float64)
        std = inputs.std(axis=0, dtype=np.float64)
    std = np.where(std < 1e-7, 1.0, std)
    return mean.astype(np.float32), std.astype(np.float32)


def _histogram(pixels: np.ndarray) -> np.ndarray:
    """Return how often each value is there, (256,), counted in pairs: that takes a third of the time."""
    even = len(pixels) // 2 * 2
    pairs = np.bincount(pixels[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    return np.asarray(pairs.sum(axis=0) + pairs.sum(axis=1) + np.bincount(pixels[even:], minlength=256))


def make_source(
    info: DatasetInfo, inputs: np.ndarray, labels: np.ndarray, test_inputs: np.ndarray, test_labels: np.ndarray
) -> Source:
    """Return the source of clean arrays, described as in `Source`: with their statistics and their fingerprint."""
    mean, std = input_statistics(inputs)
    fingerprint = hash_arrays(inputs, labels, test_inputs, test_labels)
    return Source(info, inputs, labels, test_inputs, test_labels, mean, std, fingerprint)
