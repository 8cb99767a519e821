"""Bootstrapping: labels mixed with the network's own predictions."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from nls_tune.losses.base import NoisyLabelLoss, log_probabilities, of_labels


class Bootstrap(NoisyLabelLoss):
    """Cross-entropy against ``beta * onehot(y) + (1 - beta) * t``, of Reed et al. (2015, equations 6 and 8).

    ``hard``: t is the likeliest class; the paper uses beta = 0.8. ``soft``: t is p, through which the gradient flows as
    well (it is entropy regularisation); the paper uses beta = 0.95.
    """

    def __init__(self, beta: float = 0.8, kind: Literal["hard", "soft"] = "hard") -> None:
        super().__init__()
        self.beta, self.kind = beta, kind

    def forward(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch."""
        log_p = log_probabilities(logits)
        # The likeliest class's own log-probability, or minus the entropy.
        own = log_p.amax(1) if self.kind == "hard" else (log_p.exp() * log_p).sum(1)
        return -self.mean(self.beta * of_labels(log_p, targets) + (1 - self.beta) * own, targets)
