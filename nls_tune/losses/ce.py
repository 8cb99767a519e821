"""Cross-entropy, and generalised label smoothing with one rate, as trainings call them."""

from __future__ import annotations

import torch
from torch import Tensor

from nls_tune.losses.base import NoisyLabelLoss
from nls_tune.losses.gls import gls_loss


class GLS(NoisyLabelLoss):
    """``gls_loss`` at a smooth rate, which is a tensor on the device of the logits."""

    smooth_rate: Tensor

    def __init__(self, smooth_rate: float) -> None:
        super().__init__()
        self.register_buffer("smooth_rate", torch.tensor(float(smooth_rate)), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch."""
        if self.class_weights is None:
            return gls_loss(logits, targets, self.smooth_rate, ignore_index=None)
        # Not the weights of ``gls_loss``, which weigh the smoothing term of each class with its own, as torch does.
        return self.mean(gls_loss(logits, targets, self.smooth_rate, ignore_index=None, reduction="none"), targets)


class CE(GLS):
    """Cross-entropy: GLS at rate 0, the same arithmetic as every warm-up."""

    def __init__(self) -> None:
        super().__init__(0.0)
