"""Compiles the forward pass of training steps: one graph for all trials of a process."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, nn

from nls_tune.errors import CompileError, is_out_of_memory
from nls_tune.training.devices import seeded

CompileMode = Literal["auto", "on", "off"]
Forward = Callable[[nn.Module, Tensor], Tensor]

#: ``auto`` compiles trials of at least this many steps. An assumption that has not been measured on a GPU: compiling
#: costs a process about a minute, and a compiled step is some milliseconds shorter.
AUTO_MIN_STEPS = 10_000


def run_network(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return the logits of a batch.

    This function is compiled, not a network: weights are then inputs of the graph, which the networks of one trial
    after another share.
    """
    logits: Tensor = network(inputs)
    return logits


class Compiler:
    """Compiles for the trainings of one process.

    Loss, optimiser and evaluation stay outside the graph: smooth rate and learning rate cannot recompile it. Dropout
    draws the random numbers that it would draw otherwise, so results differ in rounding alone.

    The mode ``auto`` compiles on CUDA, for trials of at least ``AUTO_MIN_STEPS`` steps, and only if compiling works; on
    the CPU never, where a compiled ``small_cnn`` is slower. ``warning`` says in one line why ``auto`` compiles nothing
    from now on; None while nothing went wrong.
    """

    def __init__(self, mode: CompileMode) -> None:
        self.mode = mode
        self.warning: str | None = None
        self._compiled: Forward | None = None
        self._rehearsed: set[tuple[object, ...]] = set()

    def wants(self, device_type: str, steps: int) -> bool:
        """Whether a trial of so many steps is to be compiled on a kind of device."""
        if self.mode == "auto":
            return device_type == "cuda" and steps >= AUTO_MIN_STEPS and self.warning is None
        return self.mode == "on"

    def forward(
        self, name: str, network: nn.Module, inputs: Tensor, autocast: Callable[[], AbstractContextManager[object]]
    ) -> Forward | None:
        """Return ``run_network`` compiled for networks and batches of this shape; None if ``auto`` fails to.

        It is compiled now, in a rehearsal on a copy of the network, which is in training mode: whatever can fail fails
        here. ``autocast`` makes the context of the forward pass.

        Raises:
            CompileError: If compiling fails and the mode is ``on``.
            torch.OutOfMemoryError: In any mode: with less on the device it would work.
        """
        if self._compiled is None:
            self._compiled = torch.compile(run_network, dynamic=False, options={"fallback_random": True})
        shapes = tuple(parameter.shape for parameter in network.parameters())
        kind = (name, shapes, inputs.shape, inputs.stride(), inputs.dtype, inputs.device)
        if kind in self._rehearsed:
            return self._compiled
        try:
            rehearsed = copy.deepcopy(network)
            with seeded(0, inputs.device):
                with autocast():
                    logits = self._compiled(rehearsed, inputs)
                torch.autograd.backward(logits.float().sum())
        except Exception as error:  # a missing C++ compiler or Triton, an unsupported GPU: as many types as reasons
            if is_out_of_memory(error):
                raise
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            text = f"{name} cannot be compiled here ({type(error).__name__}: {reason[:200]})"
            if self.mode == "on":
                raise CompileError(f"{text}; use --compile off") from error
            self.warning = f"{text}; it is trained without"
            warnings.warn(self.warning, RuntimeWarning, stacklevel=2)
            return None
        self._rehearsed.add(kind)
        return self._compiled
