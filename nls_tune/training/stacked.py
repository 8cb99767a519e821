"""Several small networks of one shape as one: their weights stacked, a batched or grouped product a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

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


def stacked_logits(model: nn.Module, state: Mapping[str, Tensor], inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the logits of stacked networks, (S, B, K).

    Images of all networks go through as the channels of one: convolutions in as many groups as there are networks,
    and a batch norm over all channels is that of each. Nothing is left to ``torch.vmap``, whose batch norm fails on
    CUDA in bfloat16, and whose convolutions autocast does not see on a CPU.

    Args:
        model: One of them, for its layers and whether it trains: layers of ``small_cnn`` and ``mlp``.
        state: Parameters and buffers by the name that they have in it: (S, ...), contiguous. Running statistics are
            updated in place while it trains.
        inputs: (S, B, ...), or (1, B, ...) if all of them get the same.
        dtype: In which products are computed, as autocast does.
    """
    members = len(next(iter(state.values())))
    hidden = inputs.to(dtype)
    is_grouped = False  # images: (B, S * C, H, W) after the first convolution
    for name, layer in model.named_children():
        if isinstance(layer, nn.Conv2d):
            weight = state[f"{name}.weight"].flatten(0, 1).to(dtype)
            if not is_grouped:
                hidden = hidden.transpose(0, 1).flatten(1, 2) if len(inputs) > 1 else hidden[0]
            # The same images for all: one convolution with the filters of all of them.
            groups = members if is_grouped or len(inputs) > 1 else 1
            hidden = functional.conv2d(hidden, weight, None, layer.stride, layer.padding, layer.dilation, groups)
            is_grouped = True
        elif isinstance(layer, nn.BatchNorm2d):
            hidden = _batch_norm(layer, state, name, hidden)
        elif isinstance(layer, nn.Flatten):
            if is_grouped:  # of each network alone, in its own order
                hidden = hidden.view(len(hidden), members, -1, *hidden.shape[2:]).transpose(0, 1)
            hidden = hidden.flatten(2)
        elif isinstance(layer, nn.Linear):
            weight, bias = (state[f"{name}.{kind}"].to(dtype) for kind in ("weight", "bias"))
            hidden = _Linear.apply(hidden.expand(members, -1, -1), weight, bias)
        else:
            hidden = layer(hidden)  # ReLU and pooling know nothing of networks
    return hidden


def _batch_norm(layer: nn.BatchNorm2d, state: Mapping[str, Tensor], name: str, hidden: Tensor) -> Tensor:
    """Normalise (B, S * C, H, W), and while training update the running statistics."""
    if layer.training:
        state[f"{name}.num_batches_tracked"].add_(1)
    mean, var, weight, bias = (
        state[f"{name}.{kind}"].view(-1) for kind in ("running_mean", "running_var", "weight", "bias")
    )
    momentum = 0.0 if layer.momentum is None else layer.momentum
    return functional.batch_norm(hidden, mean, var, weight, bias, layer.training, momentum, layer.eps)


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
