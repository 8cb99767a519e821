"""Estimates the noise of a dataset from its noisy labels alone."""

from __future__ import annotations

import time

import torch

from nls_tune.datasets import NoisyDataset
from nls_tune.errors import InputError
from nls_tune.noise import noise_cancelling_rate, noise_rate, transition_matrix
from nls_tune.noise.anchors import bracket, estimate_from_anchors
from nls_tune.noise.confident_learning import DEFAULT_FOLDS, NoiseEstimate, as_tuples, estimate_transition
from nls_tune.spaces.reading import load_space
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.devices import default_device
from nls_tune.training.out_of_sample import Report, predict_out_of_sample


def estimate_noise(
    dataset: NoisyDataset,
    settings: TrainingSettings | None = None,
    *,
    folds: int = DEFAULT_FOLDS,
    device: torch.device | str | None = None,
    report: Report | None = None,
) -> NoiseEstimate:
    """Estimate noise rate and transition matrix from noisy labels, by the labels of the models' surest samples.

    ``predict_out_of_sample`` trains the models, with cross-entropy. ``noise.anchors.estimate_from_anchors`` counts the
    labels, and ``noise.confident_learning.estimate_transition`` gives the upper end; both say what biases them, and
    take probabilities of your own. Clean labels, where known, are only compared with the result; validation samples
    whose labels are taken as clean train the models, and are not counted.

    Args:
        dataset: A dataset with noisy labels.
        settings: What to train; by default the dataset's own search space with cross-entropy at its defaults.
        folds: The number of folds, 2 to 20.
        device: Where to train; by default CUDA where there is a GPU.
        report: Called with the epochs that are done, of ``folds * settings.epochs`` (all, of models that stop early).

    Raises:
        InputError: For folds out of range, settings that do not fit the data, or a training that diverges.
    """
    start = time.perf_counter()
    device = default_device() if device is None else torch.device(device)
    if settings is None:
        space = load_space(dataset.name, preset="gpu" if device.type == "cuda" else "cpu")
        settings = space.settings(space.default(smooth_rate=0.0), seed=0)
    way_out = "lower {}, or search with --no-estimate-noise"
    said = predict_out_of_sample(dataset, settings, folds=folds, device=device, report=report, way_out=way_out)
    judged = dataset.may_be_wrong(said.rows)
    samples, probabilities = said.rows[judged], said.probabilities[judged]
    noisy = dataset.noisy_labels[samples]
    anchors = estimate_from_anchors(probabilities, noisy)
    upper = estimate_transition(probabilities, noisy, seed=settings.seed)
    ends = bracket(anchors, upper)
    clean = None if dataset.clean_labels is None else dataset.clean_labels[samples]
    return NoiseEstimate(
        dataset=dataset.name,
        noise_level=dataset.noise_level,
        num_classes=dataset.num_classes,
        num_samples=len(samples),
        noise_rate=anchors.noise_rate,
        low=ends.low,
        high=ends.high,
        matrix=as_tuples(anchors.matrix),
        noise_cancelling_rate=_rate_or_none(anchors.noise_rate, dataset.num_classes),
        accuracy=float((probabilities.argmax(axis=1) == noisy).mean()),
        true_noise_rate=None if clean is None else noise_rate(clean, noisy),
        true_matrix=None if clean is None else as_tuples(transition_matrix(clean, noisy, dataset.num_classes)),
        model=settings.model,
        folds=folds,
        best_epochs=said.best_epochs,
        seconds=time.perf_counter() - start,
        is_weak=ends.is_weak,
    )


def _rate_or_none(noise: float, num_classes: int) -> float | None:
    try:
        return noise_cancelling_rate(noise, num_classes)
    except InputError:  # no signal left
        return None
