"""The labels that are most probably wrong, by confident learning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nls_tune.errors import InputError
from nls_tune.noise.confident_learning import checked_probabilities, class_thresholds, joint_of, latent_classes


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Labels that are probably wrong, the most suspicious first; all arrays have one entry per issue.

    ``indices`` are rows of what was given, with their ``labels`` and the class to which the label is ``suggested`` to
    be changed, the most probable one. ``scores`` are the probabilities of the labels: the lower, the more suspicious.
    """

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    suggested: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.indices)


def find_label_issues(labels: ArrayLike, probabilities: ArrayLike, *, min_examples_per_class: int = 1) -> LabelIssues:
    """Find the labels that are most probably wrong, from out-of-sample class probabilities.

    This is "prune by noise rate" of Northcutt, Jiang and Chuang, "Confident Learning", JAIR 70 (2021), the default of
    cleanlab's function of this name. The joint distribution of label and latent class is estimated as in
    ``estimate_transition`` and scaled to counts that are whole and keep the count of each label (largest remainders,
    the last of equal ones). Unlike there, and as in the authors' own program, a sample that reaches the thresholds of
    several classes has the most probable class of all as its latent one.
    For each pair of label i and another class j, so many samples with label i as the joint counts are issues: those
    with the largest margin, the probability of j minus that of i. A label that is itself the most probable class
    of its sample is no issue.

    Args:
        labels: Noisy labels, whole numbers of shape (N,).
        probabilities: Class probabilities, (N, K), from models that were not trained on the sample.
        min_examples_per_class: So many samples of each label, or all of fewer, are never taken as issues.

    Returns:
        The issues, ranked by the probability of their label; equals in the order of the samples.

    Raises:
        InputError: Shapes that do not fit, labels out of range, numbers that are not probabilities, or a negative
            ``min_examples_per_class``.
    """
    if min_examples_per_class < 0:
        raise InputError(f"min_examples_per_class must be at least 0, got {min_examples_per_class}; 1 is usual")
    table, noisy = checked_probabilities(probabilities, labels)
    num_samples, num_classes = table.shape
    own = table[np.arange(num_samples), noisy].astype(np.float64)
    thresholds = class_thresholds(own, noisy, num_classes)
    several = (table >= thresholds).sum(axis=1) > 1
    latent = np.where(several, table.argmax(axis=1), latent_classes(table, thresholds))
    counts = _whole_counts(joint_of(noisy, latent, num_classes) * num_samples, noisy, min_examples_per_class)
    is_issue = np.zeros(num_samples, bool)
    for label, row in enumerate(counts):
        members = np.flatnonzero(noisy == label)
        for other in np.flatnonzero(row):
            if other != label:
                margin = table[members, other].astype(np.float64) - own[members]
                is_issue[members[np.argsort(-margin, kind="stable")[: row[other]]]] = True
    is_issue &= own < table.max(axis=1)
    found = np.flatnonzero(is_issue)
    found = found[np.argsort(own[found], kind="stable")]
    return LabelIssues(found, noisy[found], table[found].argmax(axis=1), own[found])


def _whole_counts(counts: NDArray[np.float64], noisy: NDArray[np.int64], kept: int) -> NDArray[np.int64]:
    """Return whole counts by label (rows) and latent class; rows keep their sums, and diagonals at least ``kept``."""
    found = np.zeros(counts.shape, np.int64)
    for label, total in enumerate(np.bincount(noisy, minlength=len(counts)).tolist()):
        others = counts[label].copy()
        others[label] = 0
        most = max(0, total - kept)
        if others.sum() > most:
            others *= most / others.sum()
        exact = others.copy()
        exact[label] = total - others.sum()
        exact = np.round(exact, 9)  # or the rounding of products would decide remainders that are equal
        whole = np.floor(exact).astype(np.int64)
        order = np.argsort(exact - whole, kind="stable")
        whole[order[len(order) - (total - whole.sum()) :]] += 1
        found[label] = whole
    return found
