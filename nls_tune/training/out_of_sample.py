"""Class probabilities of every labelled sample from models that have not seen it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from nls_tune.datasets import NoisyDataset
from nls_tune.datasets.splits import cut_into_folds
from nls_tune.errors import InputError
from nls_tune.metrics import Judging, Metric, best_epoch
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.devices import default_device, empty_cache, fastest_kernels
from nls_tune.training.training import Training

_FOLD_STREAM = 0xF01D
#: Epochs without a new best one, as a share of all and at least, after which a model has begun to memorise the noise.
_PATIENCE, _MIN_PATIENCE = 0.25, 3

#: Called with the epochs that are done, of ``folds * settings.epochs`` (all, of models that stop early).
Report = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class OutOfSample:
    """What models say of samples that they have not seen.

    ``rows`` (N,) are the labelled samples' places in the dataset, training and validation, in rising order, and
    ``probabilities`` (N, K) those of their classes. ``best_epochs`` are the models' epochs that predicted, by fold.
    """

    rows: np.ndarray
    probabilities: np.ndarray
    best_epochs: tuple[int, ...]


def check_folds(folds: int, num_samples: int) -> None:
    """Raise an InputError if the number of folds is out of range."""
    if not 2 <= folds <= min(20, num_samples):
        raise InputError(f"--folds must be from 2 to {min(20, num_samples)}, got {folds}; 3 is usual")


def predict_out_of_sample(
    dataset: NoisyDataset,
    settings: TrainingSettings,
    *,
    folds: int,
    device: torch.device | str | None = None,
    report: Report | None = None,
    metric: Metric = "accuracy",
    way_out: str = "lower {}",
) -> OutOfSample:
    """Predict every labelled sample with a model that was trained on others.

    The labelled samples, training and validation together, are cut into folds, stratified by noisy label; what no split
    divides, equal images and the samples of a group, is in one of them. For each
    fold a model is trained on the others and predicts the fold at its best epoch: the one of the highest accuracy, or
    another ``metric``, on the fold's noisy labels, smoothed as for a trial, with the probabilities of three epochs
    averaged. Test samples take no part.

    ``way_out`` is what the message says of a training that diverges; {} stands for its learning rate's setting.

    Raises:
        InputError: For folds out of range, settings that do not fit the data, or a training that diverges.
    """
    device = default_device() if device is None else torch.device(device)
    samples = np.sort(np.concatenate([dataset.train_indices, dataset.val_indices]))
    units = None if dataset.units is None else dataset.units[samples]
    check_folds(folds, len(samples if units is None else np.unique(units)))
    # Not the generator of the split: where the seeds are equal, the folds would follow it.
    rng = np.random.Generator(np.random.PCG64([_FOLD_STREAM, settings.seed]))
    parts = cut_into_folds(dataset.noisy_labels[samples], units, folds, rng)
    probabilities = np.empty((len(samples), dataset.num_classes), dtype=np.float32)
    best_epochs = []
    with fastest_kernels(device):  # as in a trial
        for number, part in enumerate(parts):

            def report_epoch(epoch: int, done: int = number * settings.epochs) -> None:
                if report:
                    report(done + epoch)

            others = np.setdiff1d(np.arange(len(samples)), part, assume_unique=True)
            fold = dataclasses.replace(
                dataset, train_indices=samples[others], val_indices=samples[part], test_inputs=None, test_labels=None
            )
            probabilities[part], epoch = _predict_fold(fold, settings, device, report_epoch, metric, way_out)
            best_epochs.append(epoch)
    empty_cache(device)  # the trials of a search that follows need it
    return OutOfSample(samples, probabilities, tuple(best_epochs))


def _predict_fold(
    dataset: NoisyDataset,
    settings: TrainingSettings,
    device: torch.device,
    report: Report,
    metric: Metric,
    way_out: str,
) -> tuple[np.ndarray, int]:
    """Train on one split; return the probabilities of its validation samples at the best epoch, and that epoch."""
    batch_size = min(settings.batch_size, dataset.num_train)  # of a small dataset, a part may be smaller than a batch
    fitting = settings.model_copy(update={"batch_size": batch_size})
    training = Training(dataset, fitting, device, judging=Judging(metric=metric))
    patience = max(_MIN_PATIENCE, round(_PATIENCE * settings.epochs))
    first = settings.first_counting_epoch
    probabilities: list[np.ndarray] = []
    while not training.finished:
        training.run_epoch()
        if training.diverged:
            break
        probabilities.append(training.predict_probabilities(training.data.val_inputs).cpu().numpy())
        report(training.epoch)
        best = best_epoch(training.curve(), first)
        # The learning rate of the warm-up may hold a model back that the next phase lets go on.
        if best and training.epoch > settings.warmup_epochs and training.epoch - best.epoch >= patience:
            break
    best = best_epoch(training.curve(), first)
    if best is None:
        what = "cross-entropy" if settings.arm == "ce" else settings.loss_text()
        when = "first epoch" if first == 1 else "warm-up or in the first epoch after it"
        raise InputError(
            f"the labels cannot be judged: {what} with {settings.model} diverged in its {when} at learning rate "
            f"{settings.learning_rate(first):g}; {way_out.format('warmup_lr' if first == 1 else 'lr')}"
        )
    report(settings.epochs)
    window = probabilities[max(first - 1, best.epoch - 2) : best.epoch + 1]
    return np.mean(window, axis=0), best.epoch
