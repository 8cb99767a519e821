"""The batches of an epoch: which samples, in which order, augmented and normalised."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nls_tune.datasets import NoisyDataset
from nls_tune.datasets.mapped import InputArray, MappedImages
from nls_tune.errors import InputError
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.augment import Augmentation, AugmentationDraws, normalise
from nls_tune.training.streaming import Inputs, StreamedImages, must_stream, place_images

#: Makes the generator of an epoch, or of another stream of a training.
Generators = Callable[[int], torch.Generator]
#: The stream of the flips of ``alternate_flip``; epochs begin at 1, and 0 is the initialisation.
FLIP_STREAM = 2**32


class Batches:
    """Makes the batches of a training; ``memory_format`` is that of batches of images."""

    def __init__(self, data: DeviceData, settings: TrainingSettings, memory_format: torch.memory_format) -> None:
        self._data = data
        self._size = settings.batch_size
        self._memory_format = memory_format
        self._alternates = settings.flip and settings.alternate_flip
        self._augmentation = Augmentation(
            settings.crop_padding, settings.flip, settings.cutout, settings.padding_mode == "reflect"
        )

    def of_epoch(self, epoch: int, generators: Generators) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the batches of a 1-based epoch, shuffled, augmented, normalised; every sample once.

        A batch is its inputs, its labels, and which training samples they are.
        """
        order, draws = self.draw(epoch, generators)
        spans, data = self._spans(), self._data
        for span, inputs in zip(spans, data.batches(order, spans), strict=True):
            if draws is not None:
                inputs = self._prepare(inputs, draws[span])
            yield inputs, data.train_labels[order[span]], order[span]

    def draw(self, epoch: int, generators: Generators) -> tuple[Tensor, AugmentationDraws | None]:
        """Return the order of an epoch's samples, int64 (N,), and for images the draws of their augmentation."""
        inputs, num_train, generator = self._data.train_inputs, len(self._data.train_labels), generators(epoch)
        order = torch.randperm(num_train, generator=generator)
        if inputs.dtype != torch.uint8:
            return order.to(inputs.device), None
        height, width = inputs.shape[-2:]
        draws = self._augmentation.draw(num_train, height, width, generator)
        if self._alternates:
            # Each sample's own flip in the first epoch, from there on every second epoch.
            first = torch.randint(2, (num_train,), generator=generators(FLIP_STREAM)).bool()
            draws = replace(draws, flip=first[order] ^ (epoch % 2 == 0))
        return order.to(inputs.device), draws.to(inputs.device)

    @property
    def num_batches(self) -> int:
        """The batches of an epoch."""
        return len(self._spans())

    def _spans(self) -> list[slice]:
        """Which part of an epoch's order each batch takes; the last one may be smaller."""
        num_train = len(self._data.train_labels)
        stops = [*range(self._size, num_train, self._size), num_train]
        if len(stops) > 1 and stops[-1] - stops[-2] == 1:
            del stops[-2]  # batch norm cannot train on one sample: it joins the batch before
        return [slice(begin, stop) for begin, stop in pairwise([0, *stops])]

    def _prepare(self, images: Tensor, draws: AugmentationDraws) -> Tensor:
        """Images augmented as drawn and normalised."""
        images = self._augmentation.apply(images, draws)
        # Reordered while a value is one byte, not four.
        images = normalise(images.to(memory_format=self._memory_format), self._data.mean, self._data.std)
        return self._augmentation.apply_cutout(images, draws)


@dataclass(frozen=True)
class DeviceData:
    """A dataset as tensors on a device, which all trainings share: uint8 images, or standardised float32 features.

    ``train_probabilities`` (N, K) are class probabilities to train on in place of the labels, if the dataset has them.
    Mapped images that are too large for the device are streamed to it.
    """

    train_inputs: Inputs
    train_labels: Tensor
    val_inputs: Inputs
    val_labels: Tensor
    test_inputs: Inputs | None
    test_labels: Tensor | None
    mean: Tensor
    std: Tensor
    fingerprint: str
    train_probabilities: Tensor | None = None

    @classmethod
    def load(cls, dataset: NoisyDataset, device: torch.device | str, *, sharing: int = 1) -> DeviceData:
        """Copy a dataset to a device, of which ``sharing`` processes hold one; mapped images may stay in their file.

        Labels are checked here: in a step, a GPU would end the process.
        """
        for labels in (dataset.noisy_labels, dataset.test_labels):
            if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() < dataset.num_classes:
                raise InputError(
                    f"labels of {dataset.name} must be 0 to {dataset.num_classes - 1}, got {labels.min()} to "
                    f"{labels.max()}; renumber them"
                )
        device = torch.device(device)
        mean, std = (torch.from_numpy(np.array(a)).to(device) for a in (dataset.input_mean, dataset.input_std))

        def tensor(array: np.ndarray) -> Tensor:
            # Fancy indexing has copied already; arrays from Ray's object store are read-only.
            return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)

        num_bytes = math.prod(dataset.input_shape) * (
            dataset.num_train + dataset.num_val + len(dataset.test_inputs if dataset.test_inputs is not None else ())
        )
        mapped = isinstance(dataset.inputs, MappedImages)
        stream = mapped and must_stream(num_bytes, device, sharing)

        def inputs(array: InputArray) -> Inputs:
            if isinstance(array, MappedImages):
                return place_images(array, device, stream=stream)
            values = tensor(array)
            return values if values.dtype == torch.uint8 else normalise(values, mean, std)

        return cls(
            train_inputs=inputs(dataset.inputs[dataset.train_indices]),
            train_labels=tensor(dataset.noisy_labels[dataset.train_indices]),
            val_inputs=inputs(dataset.inputs[dataset.val_indices]),
            val_labels=tensor(dataset.noisy_labels[dataset.val_indices]),
            test_inputs=None if dataset.test_inputs is None else inputs(dataset.test_inputs),
            test_labels=None if dataset.test_labels is None else tensor(dataset.test_labels),
            mean=mean,
            std=std,
            fingerprint=dataset.fingerprint,
            train_probabilities=(
                None if dataset.soft_labels is None else tensor(dataset.soft_labels[dataset.train_indices])
            ),
        )

    def batches(self, order: Tensor, spans: Sequence[slice]) -> Iterator[Tensor]:
        """Yield the inputs of training samples: those of an order, on the device, span by span."""
        if isinstance(self.train_inputs, StreamedImages):
            order = order.cpu()
            yield from self.train_inputs.batches(order[span] for span in spans)
        else:
            for span in spans:
                yield self.train_inputs[order[span]]

    def normalised(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the images of one index tensor after the other, normalised."""
        for index in indices:
            yield normalise(self.train_inputs[index.to(self.mean.device)], self.mean, self.std)

    @classmethod
    def without_samples(cls, mean: Tensor, std: Tensor) -> DeviceData:
        """Return what a network needs to predict: the constants of the normalisation, on the device."""
        none, labels = mean.new_empty(0), mean.new_empty(0, dtype=torch.int64)
        return cls(none, labels, none, labels, None, None, mean, std, fingerprint="")
