"""Evaluates networks on the samples of a dataset that lie on a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nls_tune.metrics import ClassCounts, Scores
from nls_tune.training.augment import normalise
from nls_tune.training.data import DeviceData
from nls_tune.training.devices import Precision
from nls_tune.training.streaming import Inputs

#: On CPUs the activations of a small batch of images stay in the cache: twice the speed of 1,000 a batch.
_BATCH_IMAGES_CPU = 250
#: Everything else wants large products: flat inputs on a CPU take a fifth less time than at 250 a batch.
_BATCH = 2000


@dataclass(frozen=True, eq=False)
class Judged:
    """What a network makes of labelled samples.

    ``bits`` say which ones it gets right, one per sample, the first in the most significant bit (``numpy.packbits``).
    ``counts`` are None in states of early versions.
    """

    bits: np.ndarray
    num_samples: int
    counts: ClassCounts | None

    @classmethod
    def of(cls, predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> Judged:
        """Return what predicted classes (N,) are worth against labels (N,)."""
        right = predicted == labels
        counts = (np.bincount(c, minlength=num_classes).tolist() for c in (labels, predicted, labels[right]))
        return cls(np.packbits(right), len(labels), ClassCounts(*map(tuple, counts)))

    @property
    def scores(self) -> Scores:
        """The metrics of the predictions."""
        if self.counts is not None:
            return self.counts.scores()
        return Scores(float(np.unpackbits(self.bits, count=self.num_samples).mean()))

    def state(self) -> tuple[Tensor, Tensor | None]:
        """Return bits and counts as a saved state holds them."""
        return torch.from_numpy(self.bits), None if self.counts is None else torch.tensor(self.counts.flat())

    @classmethod
    def of_state(cls, bits: Tensor, counts: Tensor | None, num_samples: int) -> Judged:
        """Return what ``state`` gave."""
        known = None if counts is None else ClassCounts.from_flat(counts.tolist())
        return cls(bits.cpu().numpy(), num_samples, known)


@dataclass(frozen=True)
class Evaluator:
    """Runs networks in evaluation mode; ``memory_format`` is that of batches of images.

    ``inputs`` are as in ``DeviceData``, on the device: uint8 images, or standardised float32 features, (N, ...).
    """

    data: DeviceData
    precision: Precision
    memory_format: torch.memory_format

    @torch.inference_mode()
    def judge(self, model: nn.Module, inputs: Inputs, labels: Tensor) -> tuple[Tensor, Judged]:
        """Return the summed cross-entropy, 0-dim float64 on the device, and what the predictions are worth."""
        loss_sum = torch.zeros((), dtype=torch.float64, device=inputs.device)
        predicted, begin, num_classes = [], 0, 0
        for logits in self._logits(model, inputs):
            target = labels[begin : begin + len(logits)]
            loss_sum += functional.cross_entropy(logits, target, reduction="sum")
            predicted.append(logits.argmax(1))
            begin, num_classes = begin + len(logits), logits.shape[1]
        found = torch.cat(predicted).cpu().numpy()
        return loss_sum, Judged.of(found, labels.cpu().numpy(), num_classes)

    @torch.inference_mode()
    def probabilities(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """Return class probabilities, float32 (N, K), whose rows sum to 1."""
        return torch.cat([logits.softmax(1) for logits in self._logits(model, inputs)])

    @torch.inference_mode()
    def mirrored_accuracy(self, model: nn.Module, images: Inputs, labels: Tensor) -> float:
        """Return the accuracy of the mean probability of each image (N, C, H, W) and its mirror image."""
        both = self.probabilities(model, images) + self.probabilities(model, images.flip(3))
        return int((both.argmax(1) == labels).sum()) / len(labels)

    def autocast(self) -> torch.autocast:
        """Return the context of the forward pass."""
        device = self.data.train_labels.device
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _logits(self, model: nn.Module, inputs: Inputs) -> Iterator[Tensor]:
        """The float32 logits of one batch after another."""
        model.eval()
        images = inputs.dtype == torch.uint8
        size = _BATCH_IMAGES_CPU if images and inputs.device.type == "cpu" else _BATCH
        for batch in inputs.split(size):
            if images:
                batch = batch.to(memory_format=self.memory_format)
                batch = normalise(batch, self.data.mean, self.data.std)
            with self.autocast():
                logits = model(batch)
            yield logits.float()
