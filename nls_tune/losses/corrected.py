"""Losses that know the noise: corrected by a transition matrix, forward or backward."""

from __future__ import annotations

import torch
from torch import Tensor

from nls_tune.errors import InputError
from nls_tune.losses.base import NoisyLabelLoss, log_probabilities

#: Above this condition number the inverse says more of rounding than of the noise.
_LARGEST_CONDITION = 1e6


class Forward(NoisyLabelLoss):
    """``-log (T' p)_y``: cross-entropy of what the noise makes of the network's probabilities.

    Patrini et al. (CVPR 2017), theorem 2. A label that T gives no probability at all has an infinite loss.

    Args:
        matrix: The transition matrix T, (K, K); rows are clean classes and sum to 1.
    """

    log_matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_matrix", matrix.double().log().float(), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch."""
        log_p = log_probabilities(logits)
        noisy = log_p + self.log_matrix.to(log_p.dtype).T[targets]
        return -self.mean(torch.logsumexp(noisy, 1), targets)


class Backward(NoisyLabelLoss):
    """``sum_k (T^-1)_yk * -log p_k``: its mean over the noise is the cross-entropy of the clean label.

    Patrini et al. (CVPR 2017), theorem 1. The inverse has negative entries, so that the loss has no lower bound.

    Args:
        matrix: The transition matrix T, (K, K); rows are clean classes and sum to 1.

    Raises:
        InputError: T has no inverse that could be computed.
    """

    inverse: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        matrix = matrix.double()
        if not torch.linalg.cond(matrix) < _LARGEST_CONDITION:
            raise InputError(
                "loss backward needs a transition matrix that can be inverted, and rows of this one are (nearly) "
                "the same mixture of the others; use loss forward"
            )
        self.register_buffer("inverse", torch.linalg.inv(matrix).float(), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch."""
        log_p = log_probabilities(logits)
        return -self.mean((self.inverse.to(log_p.dtype)[targets] * log_p).sum(1), targets)
