"""Clocks that ASHA's rungs could count in: at which epoch of a trial does a rung judge it, and by what?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from table import Curve

from nls_tune.metrics import best_epoch


@dataclass(frozen=True)
class Clock:
    """When a rung judges a trial.

    Attributes:
        epoch: The epoch, from the rung, the warm-up's length, whether the trial is CE, and the training's length.
        by_ce: Whether a trial of which no epoch counts yet is judged by its CE warm-up; else it passes unjudged.
        by_length: Whether only trials of one warm-up length are compared.
    """

    epoch: Callable[[int, int, bool, int], int]
    by_ce: bool = False
    by_length: bool = False

    def value(self, curve: Curve, epoch: int) -> float | None:
        """Return what a rung sees of a training after an epoch; None for nothing."""
        first = 1 if self.by_ce and epoch < curve.first_counting else curve.first_counting
        best = best_epoch(curve.val[:epoch].tolist(), first)
        return None if best is None else best.value


#: The first is the package's.
CLOCKS = {
    "GLS epochs": Clock(lambda rung, warmup, ce, epochs: warmup + rung),
    "GLS epochs, for CE all": Clock(lambda rung, warmup, ce, epochs: rung if ce else warmup + rung),
    "all epochs, warm-ups pass": Clock(lambda rung, warmup, ce, epochs: rung),
    "all epochs, warm-ups by CE": Clock(lambda rung, warmup, ce, epochs: rung, by_ce=True),
    "all epochs, rates after 2 of GLS": Clock(lambda rung, warmup, ce, epochs: rung if ce else max(rung, warmup + 2)),
    "GLS epochs, equal warm-ups only": Clock(lambda rung, warmup, ce, epochs: warmup + rung, by_length=True),
    "share of the GLS phase": Clock(lambda rung, warmup, ce, epochs: warmup + ceil(rung * (epochs - warmup) / epochs)),
}
