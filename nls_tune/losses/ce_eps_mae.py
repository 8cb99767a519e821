"""Cross-entropy of the epsilon-softmax with the mean absolute error."""

from __future__ import annotations

import torch
from torch import Tensor

from nls_tune.losses.base import NoisyLabelLoss, log_probabilities, of_labels

#: The authors' code takes smaller probabilities for this one: they have no gradient.
_SMALLEST = 1e-8


class CEEpsAndMAE(NoisyLabelLoss):
    """``alpha * CE_eps + beta * MAE``, of Wang et al. (NeurIPS 2024).

    The epsilon-softmax adds m to the probability of the likeliest class and divides by m + 1, which brings predictions
    within 1 / (m + 1) of a one-hot vector; CE_eps is its cross-entropy. ``MAE = 2 * (1 - p_y)`` of the usual softmax.
    """

    def __init__(self, alpha: float = 0.01, beta: float = 5.0, m: float = 1e5) -> None:
        super().__init__()
        self.alpha, self.beta, self.m = alpha, beta, m

    def forward(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch."""
        log_p = log_probabilities(logits)
        p = of_labels(log_p, targets).exp()
        likeliest = log_p.argmax(1) == targets
        near_one_hot = (p + self.m * likeliest) / (self.m + 1)
        losses = -self.alpha * torch.log(near_one_hot.clamp_min(_SMALLEST)) + self.beta * 2 * (1 - p)
        return self.mean(losses, targets)
