"""The batches of an epoch: which samples, in which order, augmented and normalised."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from nls_tune.augment import Augmentation, AugmentationDraws, normalise
from nls_tune.devices import DeviceData
from nls_tune.settings import TrainingSettings


class Batches:
    """Makes the batches of a training.

    Args:
        data: On the device where it trains.
        settings: With batch size and augmentation.
        memory_format: In which images come.
    """

    def __init__(self, data: DeviceData, settings: TrainingSettings, memory_format: torch.memory_format) -> None:
        self._data = data
        self._size = settings.batch_size
        self._memory_format = memory_format
        self._augmentation = Augmentation(settings.crop_padding, settings.flip, settings.cutout)

    def of_epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch; every sample once, the last batch may be smaller."""
        order, draws = self.draw(generator)
        for span in self.spans():
            yield self.take(order[span], None if draws is None else draws[span])

    def draw(self, generator: torch.Generator) -> tuple[Tensor, AugmentationDraws | None]:
        """Return the order of an epoch's samples, int64 (N,), and for images the draws of their augmentation."""
        inputs, num_train = self._data.train_inputs, len(self._data.train_labels)
        order = torch.randperm(num_train, generator=generator).to(inputs.device)
        if inputs.dtype != torch.uint8:
            return order, None
        height, width = inputs.shape[-2:]
        return order, self._augmentation.draw(num_train, height, width, generator).to(inputs.device)

    def spans(self) -> list[slice]:
        """Return which part of an epoch's order each batch takes."""
        num_train = len(self._data.train_labels)
        stops = [*range(self._size, num_train, self._size), num_train]
        if len(stops) > 1 and stops[-1] - stops[-2] == 1:
            del stops[-2]  # batch norm cannot train on one sample: it joins the batch before
        return [slice(begin, stop) for begin, stop in pairwise([0, *stops])]

    def take(self, index: Tensor, draws: AugmentationDraws | None) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of training samples, images augmented as drawn and normalised.

        Args:
            index: Which samples, int64 (B,), or of any shape without images.
            draws: How they are augmented; None without images.
        """
        data = self._data
        inputs, labels = data.train_inputs[index], data.train_labels[index]
        if draws is not None:
            inputs = self._augmentation.apply(inputs, draws)
            # Reordered while a value is one byte, not four.
            inputs = normalise(inputs.to(memory_format=self._memory_format), data.mean, data.std)
            inputs = self._augmentation.apply_cutout(inputs, draws)
        return inputs, labels
