"""What the losses share: how a training calls them, and the steps that all of them begin with."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class NoisyLabelLoss(nn.Module, ABC):
    """A loss of a batch of samples with noisy labels.

    Buffers belong to the state of a training: one that is saved and loaded goes on exactly as without the stop.

    Attributes:
        class_weights: One weight per class, shape (K,), which a sample's loss counts with by its label; None: all
            alike.
    """

    class_weights: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("class_weights", None, persistent=False)

    def mean(self, losses: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of samples (N,), weighted by their labels and divided by the sum of the weights.

        ``targets`` are labels, (N,), or class probabilities, (N, K), whose mean weight counts.
        """
        if self.class_weights is None:
            return losses.mean()
        of_class = self.class_weights.to(losses.dtype)
        # No matmul: autocast would compute it in bfloat16.
        weights = (targets * of_class).sum(1) if targets.is_floating_point() else of_class[targets]
        return (losses * weights).sum() / weights.sum()

    @abstractmethod
    def forward(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch, 0-dim: float32, or float64 for float64 logits.

        Args:
            logits: Shape (N, K), floating; bfloat16 and float16 are computed in float32.
            targets: Classes, int64 of shape (N,), 0 to K - 1; not checked. Some losses also take class probabilities,
                float32 of shape (N, K): see ``takes_probabilities`` in the registry.
            indices: Which training samples they are, int64 of shape (N,); only some losses look at them.
        """


def log_probabilities(logits: Tensor) -> Tensor:
    """Return log softmax of logits (N, K), in float32 at least."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return torch.log_softmax(logits, 1)


def of_labels(values: Tensor, targets: Tensor) -> Tensor:
    """Return each row's value at its label, shape (N,)."""
    return values.gather(1, targets.long().unsqueeze(1)).squeeze(1)
