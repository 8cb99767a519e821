"""What is known of a noise level before its first trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from nls_tune.allocation.allocator import Config
from nls_tune.datasets import NoisyDataset
from nls_tune.noise import noise_cancelling_rate, parse_noise_level
from nls_tune.noise.confident_learning import NoiseEstimate
from nls_tune.plan.start_points import WarmPoint
from nls_tune.spaces.space import Arm

Prior = Literal["true noise", "estimate", "unknown", "none"]


@dataclass(frozen=True)
class LevelPlan:
    """What is known of a noise level before its first trial.

    Attributes:
        dataset: The data with this level's labels.
        noise_rate: Share of wrong labels before ``train_size``, None where unknown.
        noise_cancelling_rate: r* of the true noise, None where it does not exist or is unknown.
        quotas: Trials by arm.
        start: Start points by arm.
        weight: Trials relative to those of a level of weight 1.
        warm: What an earlier run gave to the start points.
        needs_estimate: Whether the noise is to be estimated before the trials.
        estimate: What that found; None before, and where it is not done.
    """

    dataset: NoisyDataset
    noise_rate: float | None
    noise_cancelling_rate: float | None
    quotas: dict[Arm, int]
    start: dict[Arm, tuple[Config, ...]]
    weight: float = 1.0
    warm: tuple[WarmPoint, ...] = ()
    needs_estimate: bool = False
    estimate: NoiseEstimate | None = None

    @property
    def level(self) -> str:
        """The noise level in its stored spelling."""
        return self.dataset.noise_level

    @property
    def prior(self) -> Prior:
        """Where the noise-cancelling rate among the start points comes from; ``unknown`` before an estimate."""
        if self.noise_rate is not None:
            return "true noise"
        if self.estimate is not None:
            return "estimate"
        return "unknown" if self.needs_estimate else "none"


class GroupKey(NamedTuple):
    """A group: its noise level in the stored spelling, and its arm. Its text, ``level/arm``, seeds the sampler."""

    noise_level: str
    arm: Arm

    def __str__(self) -> str:
        return f"{self.noise_level}/{self.arm}"


def cancelling_rate(dataset: NoisyDataset) -> float | None:
    """Return the noise-cancelling rate of a dataset's noise.

    Of symmetric noise it is that of its nominal rate, of other noise the symmetric equivalent of the observed
    share of wrong labels.

    Args:
        dataset: With clean labels, or with symmetric noise.

    Returns:
        The rate, or None where the noise is unknown or the rate does not exist.
    """
    level = parse_noise_level(dataset.noise_level)
    noise_rate = dataset.noise_rate
    if noise_rate is not None and level.rate is not None and level.kind == "symmetric":
        noise_rate = level.rate
    if noise_rate is None or noise_rate >= (dataset.num_classes - 1) / dataset.num_classes:
        return None
    return noise_cancelling_rate(noise_rate, dataset.num_classes)
