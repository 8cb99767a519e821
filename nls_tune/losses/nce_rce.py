"""Normalised cross-entropy with reverse cross-entropy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nls_tune.losses.base import NoisyLabelLoss, log_probabilities, of_labels

#: log 0 of the authors' code, which clips one-hot labels at 1e-4.
_LOG_ZERO = math.log(1e-4)


class NCEAndRCE(NoisyLabelLoss):
    """``alpha * NCE + beta * RCE``, an active and a passive loss, of Ma et al. (ICML 2020).

    ``NCE = log p_y / sum_k log p_k`` is cross-entropy over its sum for all possible labels, and
    ``RCE = -log(1e-4) * (1 - p_y)``.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch."""
        all_logs = log_probabilities(logits)
        log_p = of_labels(all_logs, targets)
        normalised = log_p / all_logs.sum(1)
        wrong = -torch.expm1(log_p)
        return self.mean(self.alpha * normalised - self.beta * _LOG_ZERO * wrong, targets)
