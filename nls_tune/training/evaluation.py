"""Evaluates networks on the samples of a dataset that lie on a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nls_tune.training.augment import normalise
from nls_tune.training.data import DeviceData
from nls_tune.training.devices import Precision
from nls_tune.training.streaming import Inputs

#: On CPUs the activations of a small batch of images stay in the cache: twice the speed of 1,000 a batch.
_BATCH_IMAGES_CPU = 250
#: Everything else wants large products: flat inputs on a CPU take a fifth less time than at 250 a batch.
_BATCH = 2000


@dataclass(frozen=True)
class Evaluator:
    """Runs networks in evaluation mode; ``memory_format`` is that of batches of images.

    ``inputs`` are as in ``DeviceData``, on the device: uint8 images, or standardised float32 features, (N, ...).
    """

    data: DeviceData
    precision: Precision
    memory_format: torch.memory_format

    @torch.inference_mode()
    def correct(self, model: nn.Module, inputs: Inputs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed cross-entropy, 0-dim float64, and which samples are right, bool (N,), on the device."""
        loss_sum = torch.zeros((), dtype=torch.float64, device=inputs.device)
        correct, begin = [], 0
        for logits in self._logits(model, inputs):
            target = labels[begin : begin + len(logits)]
            loss_sum += functional.cross_entropy(logits, target, reduction="sum")
            correct.append(logits.argmax(1) == target)
            begin += len(logits)
        return loss_sum, torch.cat(correct)

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
