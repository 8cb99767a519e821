"""Running averages of a network's weights, which are judged beside the weights themselves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: Averages take in the weights of every fourth step: the steps between differ little, and this costs little.
_EVERY = 4


class WeightAverages:
    """Polynomial-decay averages, one for each span: the k-th update counts with ``1 / (1 + span * (k - 1))``.

    That is ``(eta + 1) / (eta + k)`` of Shamir and Zhang, "Stochastic Gradient Descent for Non-smooth Optimization",
    ICML 2013, at ``span = 1 / (eta + 1)``. An average with span 1 is the mean of all updates; one with span 0.2 reaches
    back over about the last fifth, however many there were: nothing has to be known of the training's length. The
    statistics of batch norm are averaged like the weights. Until its first update an average is the network as it is.

    ``models`` are copies of the network with the averaged weights, in the order of the spans.
    """

    def __init__(self, model: nn.Module, spans: Sequence[float]) -> None:
        self.models = [copy.deepcopy(model) for _ in spans]
        self._spans, self._steps = tuple(spans), 0
        self._now, self._means = _changing(model), [_changing(average) for average in self.models]
        for average in self.models:
            average.requires_grad_(False)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew from the network's present weights."""
        self._steps = 0
        for means in self._means:
            self._move(means, 1.0)

    @torch.no_grad()
    def update(self) -> None:
        """Take note of a step of the network."""
        self._steps += 1
        if self._steps < _EVERY:
            for means in self._means:
                self._move(means, 1.0)
        elif self._steps % _EVERY == 0:
            for span, means in zip(self._spans, self._means, strict=True):
                self._move(means, 1 / (1 + span * (self._steps // _EVERY - 1)))

    def _move(self, means: Sequence[Tensor], weight: float) -> None:
        """Move an average towards the network by a share of the way."""
        pairs = list(zip(means, self._now, strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in real], [now for _, now in real], weight)  # as torch's own averages do
        for mean, now in pairs:
            if not mean.is_floating_point():  # a counter of batch norm
                mean.copy_(now)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue."""
        return {"steps": self._steps, "models": [model.state_dict() for model in self.models]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        self._steps = state["steps"]
        for model, values in zip(self.models, state["models"], strict=True):
            model.load_state_dict(values)


def floating_state(model: nn.Module) -> list[Tensor]:
    """Return what is finite as long as a training does not diverge, in place: parameters, and buffers but for masks."""
    state = [*(p.detach() for p in model.parameters()), *(b for b in model.buffers() if _is_finite(b))]
    return [one for one in state if one.is_floating_point()]


def _changing(model: nn.Module) -> list[Tensor]:
    """The tensors that training changes, in place: parameters with a gradient, and buffers, but for constants."""
    return [p.detach() for p in model.parameters() if p.requires_grad] + [b for b in model.buffers() if _is_finite(b)]


def _is_finite(buffer: Tensor) -> bool:
    """Whether a buffer may be averaged, and tells of divergence: a mask of attention holds -inf, and is a constant."""
    return not buffer.is_floating_point() or bool(buffer.isfinite().all())
