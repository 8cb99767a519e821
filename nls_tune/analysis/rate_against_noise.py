"""How the rate to use depends on the noise, beside the noise-cancelling rate of theory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nls_tune.analysis.choices import Choice
from nls_tune.analysis.rows import by_level, number
from nls_tune.analysis.verdicts import Verdict
from nls_tune.noise import noise_cancelling_rate
from nls_tune.spaces.settings import RATE_ARMS, Arm

if TYPE_CHECKING:
    import pandas as pd

#: Points of the line of theory.
_LINE = 50
#: It ends at this rate: towards a noise of (K - 1) / K it falls without end.
_LOWEST_RATE = -20.0


@dataclass(frozen=True)
class BestRate:
    """The rate that the verdict says to use at one noise level."""

    noise_level: str
    noise_rate: float | None
    estimated_noise_rate: float | None
    noise_cancelling_rate: float | None
    arm: Arm
    smooth_rate: float

    @property
    def known_or_estimated(self) -> float | None:
        """The noise rate, or else its estimate."""
        return self.estimated_noise_rate if self.noise_rate is None else self.noise_rate


@dataclass(frozen=True)
class RateAgainstNoise:
    """The rates to use of all levels whose verdict names one, and the line of theory.

    ``theory_noise_rates`` are symmetric noise rates, ascending, from 0 to a little over the largest one seen, and
    ``theory_rates`` their noise-cancelling rates.
    """

    num_classes: int
    levels: tuple[BestRate, ...]
    theory_noise_rates: tuple[float, ...]
    theory_rates: tuple[float, ...]


def rate_against_noise(trials: pd.DataFrame, verdicts: Sequence[Verdict]) -> RateAgainstNoise | None:
    """Return the rates to use; None if no verdict names one."""
    rows = dict(by_level(trials))
    best = tuple(
        _best_rate(v, v.use, rows[v.noise_level]) for v in verdicts if v.use is not None and v.use.arm in RATE_ARMS
    )
    if not best:
        return None
    num_classes = int(trials["num_classes"].iloc[0])
    known = [rate for found in best if (rate := found.known_or_estimated) is not None]
    noise_rates = _symmetric_noise(known, num_classes)
    return RateAgainstNoise(
        num_classes=num_classes,
        levels=best,
        theory_noise_rates=noise_rates,
        theory_rates=tuple(noise_cancelling_rate(rate, num_classes) for rate in noise_rates),
    )


def _best_rate(verdict: Verdict, use: Choice, rows: pd.DataFrame) -> BestRate:
    return BestRate(
        noise_level=verdict.noise_level,
        noise_rate=verdict.noise_rate,
        estimated_noise_rate=verdict.estimated_noise_rate,
        noise_cancelling_rate=number(rows["noise_cancelling_rate"].iloc[0]),
        arm=use.arm,
        smooth_rate=float(use.config["smooth_rate"]),
    )


def _symmetric_noise(known: Sequence[float], num_classes: int) -> tuple[float, ...]:
    """Return noise rates from 0 to a little over the largest one, or to where the rate of theory is far too low.

    ``1 - r = 1 / c`` with c the signal share, see ``noise.noise_cancelling_rate``.
    """
    if not known:
        return ()
    end = (1 - 1 / (1 - _LOWEST_RATE)) * (num_classes - 1) / num_classes
    return tuple(np.linspace(0, min(max(0.05, 1.1 * max(known)), end), _LINE).tolist())
