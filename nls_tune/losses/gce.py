"""Generalised cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from nls_tune.losses.base import NoisyLabelLoss, log_probabilities, of_labels


class GCE(NoisyLabelLoss):
    """``(1 - p_y^q) / q``, the L_q loss of Zhang and Sabuncu (NeurIPS 2018, equation 6), without its truncation.

    Cross-entropy at q = 0; at q = 1 it is ``1 - p_y``, half the mean absolute error.
    """

    def __init__(self, q: float = 0.7) -> None:
        super().__init__()
        self.q = q

    def forward(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch."""
        log_p = of_labels(log_probabilities(logits), targets)
        if self.q == 0:
            return -self.mean(log_p, targets)
        return -self.mean(torch.expm1(self.q * log_p), targets) / self.q  # exact for small q, where 1 - p_y^q cancels
