"""Several MLPs of one shape as one: their weights stacked, a batched product a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

#: Samples that oneDNN evaluates at once; smaller products do not pay for its start.
_EVALUATED_AT_ONCE = 2000


class _Linear(torch.autograd.Function):
    """Linear layers side by side: inputs (S, B, I), weights (S, O, I) and biases (S, O) to outputs (S, B, O).

    Autograd's own gradients of a batched product with transposed weights come out transposed, and whatever follows
    walks over memory with strides: half of a step's time on a CPU.
    """

    @staticmethod
    def forward(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.baddbmm(bias.unsqueeze(1), inputs, weight.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        (gradient,) = gradients
        to_inputs = torch.bmm(gradient, weight) if ctx.needs_input_grad[0] else None
        return to_inputs, torch.bmm(gradient.mT, inputs), gradient.sum(1)


def stacked_logits(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the logits of stacked MLPs, (S, B, K).

    Args:
        model: One of them, for its layers.
        parameters: By the name that they have in it: (S, ...).
        inputs: (S, B, ...), or (1, B, ...) if all of them get the same.
        dtype: In which products are computed, as autocast does.
    """
    hidden = inputs.flatten(2).to(dtype)
    for name, layer in model.named_children():
        if isinstance(layer, nn.Linear):
            weight, bias = (parameters[f"{name}.{kind}"].to(dtype) for kind in ("weight", "bias"))
            hidden = _Linear.apply(hidden.expand(len(weight), -1, -1), weight, bias)
        elif isinstance(layer, nn.ReLU):
            hidden = hidden.relu_()
    return hidden


def has_fused_layers(inputs: Tensor, dtype: torch.dtype) -> bool:
    """Whether oneDNN can evaluate MLPs on these inputs in this precision, with bias and ReLU within the product."""
    if inputs.device.type != "cpu" or not inputs.dtype == dtype == torch.float32:
        return False
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call] # torch's
    # Private: without it the ordinary products do.
    return available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def fused_logits(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Return the logits of stacked MLPs, (S, N, K), one network after another; for evaluation on a CPU.

    oneDNN multiplies large float32 matrices at up to twice the rate of torch's batched product.

    Args:
        model: One of them, for its layers.
        parameters: By the name that they have in it: (S, ...).
        inputs: (N, ...).
    """
    layers = [name for name, layer in model.named_children() if isinstance(layer, nn.Linear)]
    members = len(next(iter(parameters.values())))
    networks = []
    for member in range(members):
        pieces = []
        for piece in torch.split(inputs.flatten(1), _EVALUATED_AT_ONCE):
            hidden = piece
            for name in layers:
                weight, bias = parameters[f"{name}.weight"][member], parameters[f"{name}.bias"][member]
                # After the last layer there are logits.
                attribute = "none" if name == layers[-1] else "relu"
                hidden = torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, attribute, [], "")
            pieces.append(hidden)
        networks.append(torch.cat(pieces))
    return torch.stack(networks)
