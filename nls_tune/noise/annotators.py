"""Several people's labels for each item: how often each errs, and what the right labels most probably are.

The method is that of Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm",
Applied Statistics 28 (1979). It needs no network: people who err independently give each other away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nls_tune.errors import InputError
from nls_tune.noise.corruption import checked_labels

#: Stands for an item that an annotator has not labelled.
GAP = -1
#: The iteration ends where no probability moves further than this, or after so many rounds.
_TOLERANCE, _MOST_ROUNDS = 1e-5, 200
#: Labels added to each cell of an annotator's matrix: what nobody has seen is not impossible.
_SMOOTHING = 0.01


@dataclass(frozen=True, eq=False)
class AnnotatorEstimate:
    """What the labels of A annotators of N items with K classes tell.

    ``probabilities`` (N, K) are those of an item's right class; ``matrices`` (A, K, K) the transition matrix of each
    annotator, rows by right class; ``error_rates`` (A,) the share of an annotator's labels that are most probably
    wrong; ``prior`` (K,) the classes' shares. ``agreement`` (A, A) is the share of equal labels among the items that
    two annotators both labelled, NaN where there are none.
    """

    probabilities: NDArray[np.float64]
    matrices: NDArray[np.float64]
    error_rates: NDArray[np.float64]
    prior: NDArray[np.float64]
    agreement: NDArray[np.float64]


def estimate_annotators(labels: ArrayLike, num_classes: int) -> AnnotatorEstimate:
    """Estimate the errors of annotators and the right labels from their labels alone, (N, A), -1 where there is none.

    It takes the annotators to err independently once the class is known. Where they share mistakes, as people do with
    hard images, their errors are estimated too low. Two annotators of an item tell little: with three or more it holds.

    Raises:
        InputError: If the labels are not of that shape, are out of range, or an item or annotator has none.
    """
    from scipy.sparse import csr_array  # slow to import, and most programs do without

    table = _checked(labels, num_classes)
    items, people = np.nonzero(table != GAP)
    said = table[items, people]
    shape = (table.shape[1] * num_classes, len(table))
    # One row per annotator and label, one column per item: with many annotators of few items each nearly all is empty.
    votes = csr_array((np.ones(len(items)), (people * num_classes + said, items)), shape=shape)
    by_item = votes.T.tocsr()
    probabilities = vote_shares(table, num_classes)
    for _ in range(_MOST_ROUNDS):
        prior, matrices = _maximise(votes, probabilities)
        before, probabilities = probabilities, _expect(by_item, prior, matrices)
        if np.abs(probabilities - before).max() <= _TOLERANCE:
            break
    prior, matrices = _maximise(votes, probabilities)
    # The probability that an annotator's label is the right one, over the annotator's items.
    right = np.bincount(people, probabilities[items, said]) / np.bincount(people)
    return AnnotatorEstimate(probabilities, matrices, 1 - right, prior, _agreement(table, num_classes))


def majority_vote(labels: ArrayLike, num_classes: int, ties: ArrayLike | None = None) -> NDArray[np.int64]:
    """Return the label that most annotators gave each item, (N,).

    ``labels`` are (N, A), -1 where there is none. Of several labels that are as frequent it is the lowest, or with
    ``ties``, whole numbers from 0 (N,), that in the place of the number modulo how many they are: numbers that have
    nothing to do with the classes prefer none of them.

    Raises:
        InputError: As ``estimate_annotators``, but annotators may have no label.
    """
    counts = _counts(_checked(labels, num_classes, all_people=False), num_classes)
    most = counts == counts.max(axis=1, keepdims=True)
    place = 0 if ties is None else np.asarray(ties) % most.sum(axis=1)
    return np.asarray((most.cumsum(axis=1) > np.reshape(place, (-1, 1))).argmax(axis=1))


def vote_shares(labels: ArrayLike, num_classes: int) -> NDArray[np.float64]:
    """Return the share of each class among the labels of an item, (N, K); rows sum to 1.

    ``labels`` are (N, A), -1 where there is none.

    Raises:
        InputError: As ``majority_vote``.
    """
    counts = _counts(_checked(labels, num_classes, all_people=False), num_classes)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _counts(table: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    return np.stack([(table == k).sum(axis=1) for k in range(num_classes)], axis=1)


def _maximise(votes: Any, probabilities: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the classes' shares and the annotators' matrices that fit the probabilities best."""
    num_classes = probabilities.shape[1]
    by_label = (votes @ probabilities).reshape(-1, num_classes, num_classes)
    matrices = by_label.transpose(0, 2, 1) + _SMOOTHING
    return probabilities.mean(axis=0), matrices / matrices.sum(axis=2, keepdims=True)


def _expect(by_item: Any, prior: NDArray[np.float64], matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of the right classes, (N, K), under matrices and shares."""
    with np.errstate(divide="ignore"):
        logs = np.log(prior) + by_item @ np.log(matrices).transpose(0, 2, 1).reshape(-1, len(prior))
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _agreement(table: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    given = (table != GAP).astype(np.float64)
    chosen = ((table == k).astype(np.float64) for k in range(num_classes))
    same = sum(votes.T @ votes for votes in chosen)
    with np.errstate(invalid="ignore"):
        return np.asarray(same / (given.T @ given))


def _checked(labels: ArrayLike, num_classes: int, *, all_people: bool = True) -> NDArray[np.int64]:
    table = np.asarray(labels)
    if table.ndim != 2 or 0 in table.shape:
        raise InputError(f"labels of annotators must be of shape (items, annotators), got {table.shape}")
    given = table != GAP
    if (lacking := int((~given.any(axis=1)).sum())) > 0:
        first = int(np.flatnonzero(~given.any(axis=1))[0])
        raise InputError(f"every item needs a label of somebody, {lacking} have none, the first is item {first}")
    if all_people and not given.any(axis=0).all():
        raise InputError(f"annotator {int(np.flatnonzero(~given.any(axis=0))[0])} has no label; leave the column out")
    checked_labels(table[given], num_classes, "labels")
    return table.astype(np.int64)
