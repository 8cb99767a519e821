"""How much arithmetic a training takes: a figure that does not depend on the machine."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from nls_tune.training.models import build_model


def forward_flops(model: str, *, num_classes: int, input_shape: tuple[int, ...]) -> int:
    """Return the floating-point operations of one forward pass of one sample: products and sums, each counts as one."""
    network = build_model(model, num_classes=num_classes, input_shape=input_shape).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *input_shape))
    return int(counter.get_total_flops())
