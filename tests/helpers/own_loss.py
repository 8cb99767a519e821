"""A loss of a user's own, which remembers how often it has seen each sample."""

import torch
from torch import Tensor
from torch.nn import functional

from nls_tune.losses import NoisyLabelLoss


class RememberingLoss(NoisyLabelLoss):
    seen: Tensor

    def __init__(self, num_classes: int, num_samples: int) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(num_samples, dtype=torch.int64))

    def forward(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        if indices is not None:
            self.seen[indices] += 1
        return functional.cross_entropy(logits.float(), targets)
