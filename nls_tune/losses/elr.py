"""Early-learning regularisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own spelling)
from torch import Tensor

from nls_tune.losses.base import NoisyLabelLoss, log_probabilities

#: The authors' code keeps probabilities this far from 0 and 1.
_MARGIN = 1e-4


class ELR(NoisyLabelLoss):
    """``CE + lambda * log(1 - t'p)``, of Liu et al. (NeurIPS 2020, equations 7 and 9).

    Each training sample has a target t, the running mean of the probabilities p that the network gave it, from 0 at the
    start of the phase: ``t <- beta * t + (1 - beta) * p`` before each use. The regulariser holds predictions at
    their targets, which the network learned before it would memorise wrong labels.

    Attributes:
        targets: The targets, float32 of shape (number of samples, K): a buffer, so a part of the training's state.
    """

    targets: Tensor

    def __init__(self, num_classes: int, num_samples: int, lambda_: float = 3.0, beta: float = 0.7) -> None:
        super().__init__()
        self.lambda_, self.beta = lambda_, beta
        self.register_buffer("targets", torch.zeros(num_samples, num_classes))

    def forward(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch, and move the targets of its samples, the training samples ``indices``."""
        if indices is None:
            raise ValueError("loss elr needs the indices of the samples of a batch; pass them as the third argument")
        log_p = log_probabilities(logits)
        p = log_p.exp().clamp(_MARGIN, 1 - _MARGIN)
        seen = p.detach()
        moved = self.beta * self.targets[indices] + (1 - self.beta) * (seen / seen.sum(1, keepdim=True))
        self.targets[indices] = moved.to(self.targets.dtype)
        agreement = (moved * p).sum(1)
        weights = None if self.class_weights is None else self.class_weights.to(log_p.dtype)
        ce = F.nll_loss(log_p, targets, weight=weights)
        return ce + self.lambda_ * self.mean(torch.log(1 - agreement), targets)
