"""How the best smooth rate depends on the noise, beside the noise-cancelling rate of theory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nls_tune.spaces import Arm

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class BestRate:
    """The best rate of one noise level.

    Attributes:
        noise_level: In its stored spelling.
        noise_rate: Share of wrong labels; None where unknown.
        estimated_noise_rate: From the noisy labels; None where not estimated.
        noise_cancelling_rate: Of the noise; None where it does not exist.
        arm: Of the recommended configuration of the search.
        smooth_rate: Of the recommended configuration of the search.
        low: Lower end of the plausible interval: 2.5 % of the rates that resampled validation samples would select.
        high: Its upper end, 97.5 %.
    """

    noise_level: str
    noise_rate: float | None
    estimated_noise_rate: float | None
    noise_cancelling_rate: float | None
    arm: Arm
    smooth_rate: float
    low: float
    high: float


@dataclass(frozen=True)
class RateAgainstNoise:
    """Best rates over noise levels, and the line of theory.

    Attributes:
        num_classes: K.
        levels: Those with a recommended configuration, in the order of the run.
        theory_noise_rates: Symmetric noise rates, ascending, from 0 to a little over the largest one seen.
        theory_rates: The noise-cancelling rate of each; of the same length.
    """

    num_classes: int
    levels: tuple[BestRate, ...]
    theory_noise_rates: tuple[float, ...]
    theory_rates: tuple[float, ...]


def rate_against_noise(trials: pd.DataFrame, levels: Sequence[str] = ()) -> RateAgainstNoise | None:
    """Return the best rates of a run; None if no level has a recommended configuration."""
    raise NotImplementedError
