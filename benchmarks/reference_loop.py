"""The training loop that everybody writes first, to compare with: DataLoader workers, float32, torch's defaults.

It follows torchvision's and the paper's habits, written fairly: PIL images through torchvision's v2 transforms in
persistent workers, as many as cores, pinned memory on CUDA, contiguous layout, torch's default SGD and TF32
settings, the loss read after every step. Network, way to initialise it, batch size, epochs, learning rates and loss
are those of ``nls_tune.training.training``; no code is anybody else's.
"""

from __future__ import annotations

import os

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own spelling)
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from nls_tune.datasets import NoisyDataset
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.models import build_model


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's CIFAR datasets hand them out: decoded to PIL, then transformed."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: v2.Transform) -> None:
        self._images = images.transpose(0, 2, 3, 1)
        self._labels = labels
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), int(self._labels[index])


def soft_target_loss(logits: Tensor, labels: Tensor, smooth_rate: float) -> Tensor:
    """Return GLS as torch's cross-entropy with class probabilities."""
    num_classes = logits.shape[1]
    soft = F.one_hot(labels, num_classes).to(logits.dtype) * (1 - smooth_rate) + smooth_rate / num_classes
    return F.cross_entropy(logits, soft)


class ReferenceLoop:
    """Trains one configuration with a DataLoader.

    Args:
        dataset: Images with noisy labels and a clean test set.
        settings: What to train; SGD only.
        device: Where.
        workers: Of the DataLoader; by default one a core.
    """

    def __init__(
        self, dataset: NoisyDataset, settings: TrainingSettings, device: str = "cpu", workers: int | None = None
    ) -> None:
        self.settings, self.device, self.epoch = settings, torch.device(device), 0
        torch.manual_seed(settings.seed)
        self.model = build_model(settings.model, num_classes=dataset.num_classes, input_shape=dataset.input_shape).to(
            self.device
        )
        tail = [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(dataset.input_mean.tolist(), dataset.input_std.tolist()),
        ]
        self.tail = v2.Compose(tail)
        side = dataset.input_shape[-1]
        random = [v2.RandomCrop(side, padding=settings.crop_padding)] if settings.crop_padding else []
        random += [v2.RandomHorizontalFlip()] if settings.flip else []
        train = PilImages(
            dataset.inputs[dataset.train_indices],
            dataset.noisy_labels[dataset.train_indices],
            v2.Compose(random + tail),
        )
        if dataset.test_inputs is None or dataset.test_labels is None:
            raise ValueError("the reference loop needs a test set")
        test = PilImages(dataset.test_inputs, dataset.test_labels, self.tail)
        count = len(os.sched_getaffinity(0)) if workers is None else workers
        options = {
            "batch_size": settings.batch_size,
            "num_workers": count,
            "persistent_workers": count > 0,
            "pin_memory": self.device.type == "cuda",
        }
        self.train_loader = DataLoader(train, shuffle=True, **options)
        self.test_loader = DataLoader(test, **options)
        self.optimizer = self._new_optimizer(settings.learning_rate(1))

    def _new_optimizer(self, lr: float) -> torch.optim.SGD:
        s = self.settings
        return torch.optim.SGD(
            self.model.parameters(), lr=lr, momentum=s.momentum, nesterov=s.nesterov, weight_decay=s.weight_decay
        )

    def train_epoch(self) -> float:
        """Train the next epoch; returns the mean loss."""
        self.epoch += 1
        settings = self.settings
        if self.epoch == settings.warmup_epochs + 1:
            self.optimizer = self._new_optimizer(settings.learning_rate(self.epoch))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate(self.epoch)
        rate = 0.0 if settings.phase(self.epoch) == "warmup" else settings.smooth_rate
        self.model.train()
        total, count = 0.0, 0
        for inputs, labels in self.train_loader:
            inputs = inputs.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            loss = soft_target_loss(self.model(inputs), labels, rate)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(labels)
            count += len(labels)
        return total / count

    @torch.no_grad()
    def test_accuracy(self) -> float:
        """Return the accuracy on the clean test set."""
        self.model.eval()
        correct = 0
        for inputs, labels in self.test_loader:
            predicted = self.model(inputs.to(self.device)).argmax(1)
            correct += (predicted == labels.to(self.device)).sum().item()
        return correct / len(self.test_loader.dataset)  # type: ignore[arg-type]
