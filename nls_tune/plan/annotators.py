"""What the labels of several annotators tell of them, and of the noise of a level that is made of their labels."""

from __future__ import annotations

import time

import numpy as np

from nls_tune.datasets import NoisyDataset, Source
from nls_tune.errors import InputError
from nls_tune.noise import noise_cancelling_rate
from nls_tune.noise.anchors import Z95
from nls_tune.noise.annotators import GAP
from nls_tune.noise.confident_learning import NoiseEstimate, as_tuples
from nls_tune.runs.run_json import RunAnnotator

#: The name of the method in place of a network's.
METHOD = "dawid-skene"
#: Matrices of more classes or annotators are not kept: run.json is to stay small.
MOST_CLASSES, MOST_ANNOTATORS = 20, 20


def estimate_of_annotators(source: Source, dataset: NoisyDataset) -> NoiseEstimate | None:
    """Return the noise of a level that is made of annotators' labels, by Dawid and Skene; None for another level.

    It needs no network. The interval holds the sampling error alone: mistakes that annotators share are not seen.
    """
    own = source.own
    if own is None or own.annotations is None or not dataset.is_of_annotators:
        return None
    start, found, num_classes = time.perf_counter(), own.annotations, dataset.num_classes
    judged = np.isin(found.voted, np.concatenate([dataset.train_indices, dataset.val_indices]))
    rows, right = found.voted[judged], found.estimate.probabilities[judged]
    labels = _probabilities(dataset, rows)
    rate = float(1 - (right * labels).sum(axis=1).mean())
    margin = Z95 * np.sqrt(rate * (1 - rate) / len(rows))
    clean = None if dataset.clean_labels is None else np.eye(num_classes)[dataset.clean_labels[rows]]
    return NoiseEstimate(
        dataset=dataset.name,
        noise_level=dataset.noise_level,
        num_classes=num_classes,
        num_samples=len(rows),
        noise_rate=rate,
        low=max(0.0, rate - margin),
        high=min(1.0, rate + margin),
        matrix=as_tuples(_transition(right, labels)),
        noise_cancelling_rate=_rate_or_none(rate, num_classes),
        accuracy=float((right.argmax(axis=1) == dataset.noisy_labels[rows]).mean()),
        true_noise_rate=None if clean is None else float(1 - (clean * labels).sum(axis=1).mean()),
        true_matrix=None if clean is None else as_tuples(_transition(clean, labels)),
        model=METHOD,
        folds=0,
        best_epochs=(),
        seconds=time.perf_counter() - start,
    )


def annotator_facts(source: Source) -> list[RunAnnotator]:
    """Return what run.json says of each annotator of a source; nothing where there are none."""
    if source.own is None or source.own.annotations is None:
        return []
    found, clean = source.own.annotations, source.own.clean_labels
    estimate, keeps_matrices = found.estimate, found.num_classes <= MOST_CLASSES and len(found.names) <= MOST_ANNOTATORS
    facts = []
    for place, name in enumerate(found.names):
        given = np.flatnonzero(found.votes[:, place] != GAP)
        agreement = [None if np.isnan(share) else round(float(share), 6) for share in estimate.agreement[place]]
        facts.append(
            RunAnnotator(
                name=name,
                num_labels=len(given),
                error_rate=round(float(estimate.error_rates[place]), 6),
                true_error_rate=None if clean is None else float(np.mean(found.votes[given, place] != clean[given])),
                agreement=agreement if len(found.names) <= MOST_ANNOTATORS else [],
                matrix=[list(row) for row in as_tuples(estimate.matrices[place])] if keeps_matrices else None,
            )
        )
    return facts


def _probabilities(dataset: NoisyDataset, rows: np.ndarray) -> np.ndarray:
    """Return the class probabilities that some samples are trained on: 0 and 1 where these are labels."""
    if dataset.soft_labels is not None:
        return np.asarray(dataset.soft_labels[rows], dtype=np.float64)
    return np.asarray(np.eye(dataset.num_classes)[dataset.noisy_labels[rows]])


def _transition(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the transition matrix from right classes to labels, both as probabilities; identity for an empty class."""
    joint = right.T @ labels
    sums = joint.sum(axis=1, keepdims=True)
    return np.where(sums > 0, joint / np.where(sums > 0, sums, 1), np.eye(len(joint)))


def _rate_or_none(noise: float, num_classes: int) -> float | None:
    try:
        return noise_cancelling_rate(noise, num_classes)
    except InputError:  # no signal left
        return None
