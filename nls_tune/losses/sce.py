"""Symmetric cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from nls_tune.losses.base import NoisyLabelLoss, log_probabilities, of_labels

#: log 0 in the paper. The authors' code clips at 1e-4, whose logarithm is -9.21: there beta counts 2.3 times.
_LOG_ZERO = -4.0


class SCE(NoisyLabelLoss):
    """``alpha * CE + beta * RCE``, of Wang et al. (ICCV 2019).

    The reverse cross-entropy of a one-hot label is ``-sum_k p_k log onehot_k``, and log 0 counts as -4: it is
    ``4 * (1 - p_y)``.
    """

    def __init__(self, alpha: float = 0.1, beta: float = 1.0) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch."""
        log_p = of_labels(log_probabilities(logits), targets)
        wrong = -torch.expm1(log_p)
        return self.mean(-self.alpha * log_p - self.beta * _LOG_ZERO * wrong, targets)
