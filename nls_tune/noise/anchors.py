"""Noise rate and transition matrix from the samples that a network is surest of, its anchors.

A network that errs by itself takes its errors for wrong labels. Among the few samples of each class that it is surest
of it hardly errs, even a weak one: their labels, counted, tell the noise. Anchors are those of Patrini et al., "Making
Deep Neural Networks Robust to Label Noise" (CVPR 2017); here their labels are counted, where the paper takes the
probability that the network gives to the surest one, which weak networks get wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nls_tune.noise.confident_learning import TransitionEstimate, checked_probabilities

#: The shares of each predicted class that are counted: few, which is nearer to the truth, and more, which tells whether
#: the network is sure enough.
SHARES = (0.02, 0.05)
#: The fewest anchors in all: with less data their shares are larger.
LEAST_ANCHORS = 400
#: Standard errors of a 95 % interval.
Z95 = 1.96
#: Standard errors within which the two figures agree, and the least difference that is one.
_ERRORS, _TOLERANCE = 2.0, 0.02
#: The most that confident learning may lie above the anchors beyond their error: an estimate is to be this near.
_WIDEST = 0.05


@dataclass(frozen=True, eq=False)
class AnchorEstimate:
    """The noise as the labels of the anchors have it.

    ``noise_rate`` is the share of other labels among the surest samples of each predicted class, weighted by the
    classes' shares of the predictions; ``error`` its standard error; ``wider_rate`` the same among more samples.
    ``is_weak`` says that the two differ beyond their errors: the network errs already among the samples that it is
    surest of, and both are too high. ``matrix`` (K, K) holds the labels of the wider set, a row per predicted class;
    identity where no sample is predicted. No column is 0.
    """

    noise_rate: float
    error: float
    wider_rate: float
    is_weak: bool
    matrix: NDArray[np.float64]


def estimate_from_anchors(probabilities: ArrayLike, labels: ArrayLike) -> AnchorEstimate:
    """Estimate the noise of labels from out-of-sample class probabilities, (N, K), and noisy labels, (N,).

    It is too low where people and networks find the same samples easy and noise comes from the others, and too high
    where the network errs even among its anchors. Both are smaller than the errors of confident learning with weak
    networks.

    Raises:
        InputError: As ``confident_learning.estimate_transition``.
    """
    table, noisy = checked_probabilities(probabilities, labels)
    predicted, confidence = table.argmax(axis=1), table.max(axis=1)
    # Class by class, the surest first; ties in the order of the samples.
    order = np.lexsort((np.arange(len(noisy)), -confidence, predicted))
    sizes = np.bincount(predicted, minlength=table.shape[1])
    widen = max(1.0, LEAST_ANCHORS / (SHARES[0] * len(noisy)))
    (few, more) = (_counts(noisy, order, sizes, min(1.0, share * widen)) for share in SHARES)
    (rate, error), (wider_rate, wider_error) = (_rate(counts, sizes) for counts in (few, more))
    largest = max(_TOLERANCE, _ERRORS * math.hypot(error, wider_error))
    # Of few samples both sets are all there are: that they agree says nothing.
    is_weak = wider_rate - rate > largest or np.array_equal(few, more)
    return AnchorEstimate(rate, error, wider_rate, is_weak, _matrix(more))


class Bracket(NamedTuple):
    """Between which rates the truth lies most likely, and whether that is too wide to say more."""

    low: float
    high: float
    is_weak: bool


def bracket(anchors: AnchorEstimate, upper: TransitionEstimate) -> Bracket:
    """Return where the noise lies: from the anchors' lower end to the rate of confident learning.

    Anchors have too little noise where people err on the samples that a network finds hard, and confident learning
    takes a network's errors for noise. Where it finds much more, either may be so, and nothing is known but the two
    ends: on CIFAR-10N worst they are 26 and 44 %, and the truth is 40 %; on aggregate 1 and 10 %, and the truth is 9 %.
    """
    margin = Z95 * anchors.error
    high = min(1.0, max(anchors.noise_rate + margin, upper.high))
    is_weak = anchors.is_weak or high - (anchors.noise_rate + margin) > _WIDEST
    return Bracket(max(0.0, anchors.noise_rate - margin), high, is_weak)


def _counts(
    noisy: NDArray[np.int64], order: NDArray[np.int64], sizes: NDArray[np.int64], share: float
) -> NDArray[np.int64]:
    """Return the labels of the surest ``share`` of each predicted class, (K, K); at least one sample of each."""
    counts = np.zeros((len(sizes), len(sizes)), dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    for predicted, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        anchors = order[start : start + math.ceil(share * size)]
        counts[predicted] = np.bincount(noisy[anchors], minlength=len(sizes))
    return counts


def _rate(counts: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[float, float]:
    """Return the share of other labels and its standard error."""
    seen = counts.sum(axis=1)
    there = seen > 0
    weights, seen, right = sizes[there] / sizes.sum(), seen[there], np.diag(counts)[there]
    wrong = (seen - right) / seen
    # Without a wrong label among few the error is not 0.
    likely = (seen - right + 0.5) / (seen + 1)
    return float(weights @ wrong), float(np.sqrt((weights**2) @ (likely * (1 - likely) / seen)))


def _matrix(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    # A rare label that no anchor has would have no probability at all: its own class gets an anchor more.
    counts = counts + np.diag((counts.sum(axis=0) == 0) & (counts.sum(axis=1) > 0))
    seen = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.where(seen > 0, counts / np.maximum(seen, 1), np.eye(len(counts))))
