"""Labels of several annotators per sample, and what the noise levels make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from nls_tune.datasets.samples import Samples, counted, listed, number_classes
from nls_tune.errors import InputError
from nls_tune.noise import NoiseLevel
from nls_tune.noise.annotators import GAP, AnnotatorEstimate, estimate_annotators, majority_vote, vote_shares


class LevelLabels(NamedTuple):
    """The labels of a noise level, (N,); class probabilities (N, K) to train on, if any; and the samples it has, (N,).

    Labels of samples that the level does not have stand for nothing.
    """

    labels: np.ndarray
    soft: np.ndarray | None
    kept: np.ndarray


@dataclass(frozen=True, eq=False)
class Annotations:
    """The labels that A annotators gave N samples with K classes.

    ``votes`` (N, A) are -1 where there is none. A sample without any has a label of another kind, as in a validation
    file with clean labels: every level has that.
    """

    names: tuple[str, ...]
    votes: np.ndarray
    num_classes: int

    @cached_property
    def voted(self) -> np.ndarray:
        """The rows of the samples that have a label of an annotator, in rising order."""
        return np.flatnonzero((self.votes != GAP).any(axis=1))

    @cached_property
    def estimate(self) -> AnnotatorEstimate:
        """The errors of the annotators and the probabilities of the right classes, one row for each of ``voted``."""
        return estimate_annotators(self.votes[self.voted], self.num_classes)

    def labels_at(self, level: NoiseLevel, labels: np.ndarray) -> LevelLabels:
        """Return what a level makes of the votes; ``labels`` are the majority's, and those of samples without votes."""
        labels, kept = labels.copy(), np.ones(len(labels), dtype=bool)
        soft: np.ndarray | None = None
        match level.kind:
            case "soft":
                soft = np.eye(self.num_classes, dtype=np.float32)[labels]
                soft[self.voted] = vote_shares(self.votes[self.voted], self.num_classes)
            case "dawid-skene":
                labels[self.voted] = self.estimate.probabilities.argmax(axis=1)
            case "annotator":
                own = self.votes[:, self.names.index(str(level.source))]
                kept[self.voted] = own[self.voted] != GAP
                labels = np.where(own == GAP, labels, own)
        return LevelLabels(labels, soft, kept)


def number_labels(
    samples: Samples, numbers: Mapping[str, int], digests: Sequence[bytes], people: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples' labels (N,) as numbers of classes, and their votes, (N, people), -1 where there is none.

    The label of votes is the majority's; of several as frequent one that the sample's content decides by its digest.

    Raises:
        InputError: For labels without a number.
    """
    votes = np.full((len(samples), people), GAP)
    if samples.votes is None:
        return number_classes(samples.labels, numbers, samples.where), votes
    known = np.array([[text is not None for text in row] for row in samples.votes], dtype=bool)
    votes[known] = number_classes(samples.votes[known], numbers, samples.where)
    ties = np.array([int.from_bytes(digest[:4], "little") for digest in digests], dtype=np.int64)
    return majority_vote(votes, len(numbers), ties), votes


def without_unlabelled(samples: Samples) -> tuple[Samples, tuple[str, ...]]:
    """Leave out the samples that no annotator labelled, and say how many.

    Raises:
        InputError: If none is left.
    """
    if samples.votes is None:
        return samples, ()
    labelled = np.array([any(text is not None for text in row) for row in samples.votes], dtype=bool)
    if labelled.all():
        return samples, ()
    if not labelled.any():
        raise InputError(f"no item of {samples.where} has a label of an annotator; fill in the columns")
    number = int((~labelled).sum())
    note = f"{counted(number, 'item')} of {samples.where} left out, which no annotator labelled"
    return samples.take(np.flatnonzero(labelled)), (note,)


def notes_on_votes(found: Annotations, lacking: Sequence[str]) -> list[str]:
    """Return what to know of the votes before a search starts; ``lacking`` classes are no training sample's label."""
    notes = []
    shares = vote_shares(found.votes[found.voted], found.num_classes)
    ties = int(((shares == shares.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
    if ties:
        notes.append(
            f"{counted(ties, 'item')} have no majority: one of the most frequent labels is taken, by the content"
        )
    if len(found.names) == 2:
        notes.append("of two annotators nobody can tell which errs: their estimated errors are about the same")
    if lacking:
        what = "class is the majority's" if len(lacking) == 1 else "classes are the majority's"
        notes.append(f"{len(lacking)} {what} for no training item ({listed(lacking)})")
    return notes
