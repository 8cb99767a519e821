"""Estimates the noise of a dataset from its noisy labels alone: trains the out-of-sample models that this needs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch

from nls_tune.datasets import NoisyDataset
from nls_tune.datasets.splits import stratified_order
from nls_tune.errors import InputError
from nls_tune.metrics import best_epoch
from nls_tune.noise import noise_cancelling_rate, noise_rate, transition_matrix
from nls_tune.noise.anchors import Z95, estimate_from_anchors
from nls_tune.noise.confident_learning import DEFAULT_FOLDS, NoiseEstimate, as_tuples, estimate_transition
from nls_tune.spaces.reading import load_space
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.devices import empty_cache, fastest_kernels
from nls_tune.training.training import Training

_FOLD_STREAM = 0xF01D
#: Epochs without a new best one, as a share of all and at least, after which a model has begun to memorise the noise.
_PATIENCE, _MIN_PATIENCE = 0.25, 3

Report = Callable[[int], None]


def estimate_noise(
    dataset: NoisyDataset,
    settings: TrainingSettings | None = None,
    *,
    folds: int = DEFAULT_FOLDS,
    device: torch.device | str | None = None,
    report: Report | None = None,
) -> NoiseEstimate:
    """Estimate noise rate and transition matrix from noisy labels, by the labels of the models' surest samples.

    The labelled samples, training and validation together, are cut into folds, stratified by noisy label. For each
    fold a model is trained on the others with cross-entropy, and predicts the fold at its best epoch: the one of the
    highest accuracy on the fold's noisy labels, smoothed over three epochs, whose probabilities are averaged. Test
    samples take no part. ``noise.anchors.estimate_from_anchors`` counts the labels, and
    ``noise.confident_learning.estimate_transition`` gives the upper end; both say what biases them. Clean labels, where
    known, are only compared with the result.

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
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    samples = np.sort(np.concatenate([dataset.train_indices, dataset.val_indices]))
    check_folds(folds, len(samples))
    if settings is None:
        space = load_space(dataset.name, preset="gpu" if device.type == "cuda" else "cpu")
        settings = space.settings(space.default(smooth_rate=0.0), seed=0)
    noisy = dataset.noisy_labels[samples]
    with fastest_kernels(device):  # as in a trial
        probabilities, best_epochs = _out_of_sample(dataset, samples, settings, folds, device, report)
    empty_cache(device)  # the trials of a search that follows need it
    anchors = estimate_from_anchors(probabilities, noisy)
    upper = estimate_transition(probabilities, noisy, seed=settings.seed)
    margin = Z95 * anchors.error
    clean = None if dataset.clean_labels is None else dataset.clean_labels[samples]
    return NoiseEstimate(
        dataset=dataset.name,
        noise_level=dataset.noise_level,
        num_classes=dataset.num_classes,
        num_samples=len(samples),
        noise_rate=anchors.noise_rate,
        low=max(0.0, anchors.noise_rate - margin),
        high=min(1.0, max(anchors.noise_rate + margin, upper.high)),
        matrix=as_tuples(anchors.matrix),
        noise_cancelling_rate=_rate_or_none(anchors.noise_rate, dataset.num_classes),
        accuracy=float((probabilities.argmax(axis=1) == noisy).mean()),
        true_noise_rate=None if clean is None else noise_rate(clean, noisy),
        true_matrix=None if clean is None else as_tuples(transition_matrix(clean, noisy, dataset.num_classes)),
        model=settings.model,
        folds=folds,
        best_epochs=best_epochs,
        seconds=time.perf_counter() - start,
        is_weak=anchors.is_weak,
    )


def _out_of_sample(
    dataset: NoisyDataset,
    samples: np.ndarray,
    settings: TrainingSettings,
    folds: int,
    device: torch.device,
    report: Report | None,
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return each sample's probabilities from a model that has not seen it, (N, K), and the models' best epochs."""
    # Not the generator of the split: where the seeds are equal, the folds would follow it.
    rng = np.random.Generator(np.random.PCG64([_FOLD_STREAM, settings.seed]))
    parts = [np.sort(part) for part in np.array_split(stratified_order(dataset.noisy_labels[samples], rng), folds)]
    probabilities = np.empty((len(samples), dataset.num_classes), dtype=np.float32)
    best_epochs = []
    for number, part in enumerate(parts):

        def report_epoch(epoch: int, done: int = number * settings.epochs) -> None:
            if report:
                report(done + epoch)

        others = np.setdiff1d(np.arange(len(samples)), part, assume_unique=True)
        fold = dataclasses.replace(
            dataset, train_indices=samples[others], val_indices=samples[part], test_inputs=None, test_labels=None
        )
        probabilities[part], epoch = _predict_fold(fold, settings, device, report_epoch)
        best_epochs.append(epoch)
    return probabilities, tuple(best_epochs)


def check_folds(folds: int, num_samples: int) -> None:
    """Raise an InputError if the number of folds is out of range."""
    if not 2 <= folds <= min(20, num_samples):
        raise InputError(f"--folds must be from 2 to {min(20, num_samples)}, got {folds}; 3 is usual")


def _rate_or_none(noise: float, num_classes: int) -> float | None:
    try:
        return noise_cancelling_rate(noise, num_classes)
    except InputError:  # no signal left
        return None


def _predict_fold(
    dataset: NoisyDataset, settings: TrainingSettings, device: torch.device, report: Report
) -> tuple[np.ndarray, int]:
    """Train on one split; return the probabilities of its validation samples at the best epoch, and that epoch."""
    batch_size = min(settings.batch_size, dataset.num_train)  # of a small dataset, a part may be smaller than a batch
    training = Training(dataset, settings.model_copy(update={"batch_size": batch_size}), device)
    patience = max(_MIN_PATIENCE, round(_PATIENCE * settings.epochs))
    probabilities: list[np.ndarray] = []
    while not training.finished:
        training.run_epoch()
        if training.diverged:
            break
        probabilities.append(training.predict_probabilities(training.data.val_inputs).cpu().numpy())
        report(training.epoch)
        best = best_epoch(training.val_accuracies())
        # The learning rate of the warm-up may hold a model back that the next phase lets go on.
        if best and training.epoch > settings.warmup_epochs and training.epoch - best.epoch >= patience:
            break
    best = best_epoch(training.val_accuracies())
    if best is None:
        raise InputError(
            f"the noise cannot be estimated: cross-entropy with {settings.model} diverged in its first epoch at "
            f"learning rate {settings.learning_rate(1):g}; lower warmup_lr, or search with --no-estimate-noise"
        )
    report(settings.epochs)
    window = probabilities[max(0, best.epoch - 2) : best.epoch + 1]
    return np.mean(window, axis=0), best.epoch
