"""The plan of a noise level: its data, its trials by arm, and its start points."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from nls_tune.allocation.allocator import Config
from nls_tune.datasets import DatasetInfo, NoisyDataset, check_level
from nls_tune.errors import InputError
from nls_tune.noise import NoiseLevel, noise_cancelling_rate, parse_noise_level, parse_noise_levels
from nls_tune.noise.confident_learning import NoiseEstimate
from nls_tune.plan.start_points import WarmPoint
from nls_tune.spaces.settings import Arm

Prior = Literal["true noise", "estimate", "weak estimate", "unknown", "none"]


@dataclass(frozen=True)
class LevelPlan:
    """A noise level before its first trial.

    ``noise_rate`` is the share of wrong labels before ``train_size``, ``noise_cancelling_rate`` r* of the true noise;
    both are None where unknown. ``quotas`` (trials) and ``start`` points are by arm; ``warm`` are the start points of
    an earlier run. ``estimate`` is None where the noise is not estimated, and before that is done.
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
    def knows_noise(self) -> bool:
        """Whether the search uses the true noise: not where people have made it, even where clean labels would tell."""
        return self.noise_rate is not None and parse_noise_level(self.level).is_known

    @property
    def prior(self) -> Prior:
        """Where the noise-cancelling rate among the start points comes from; ``unknown`` before an estimate."""
        if self.knows_noise:
            return "true noise"
        if self.estimate is not None:
            return "weak estimate" if self.estimate.is_weak else "estimate"
        return "unknown" if self.needs_estimate else "none"


class GroupKey(NamedTuple):
    """A group: its noise level in the stored spelling, and its arm. Its text, ``level/arm``, seeds the sampler."""

    noise_level: str
    arm: Arm

    def __str__(self) -> str:
        return f"{self.noise_level}/{self.arm}"


def read_levels(texts: Sequence[str] | None, info: DatasetInfo) -> tuple[NoiseLevel, ...]:
    """Return the noise levels that texts name, by default those of the dataset, which can have all of them.

    Raises:
        InputError: For a text that names no level, with the level that was meant, or a level that the dataset lacks.
    """
    names = ",".join(info.default_levels if texts is None else texts)
    for name in names.split(","):
        _check_spelling(name.strip(), info)
    levels = parse_noise_levels(names)
    for level in levels:
        check_level(info, level)
    return levels


def _check_spelling(name: str, info: DatasetInfo) -> None:
    """Refuse a rate without its kind, and human labels without ``human:``, with the level that was meant."""
    if number := re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(%?)", name, re.ASCII):
        rate = float(number[1])
        meant = f"symmetric:{rate / 100 if number[2] or rate > 1 else rate:g}"
    else:
        meant = f"{'annotator' if name in info.annotators else 'human'}:{name}"
    try:
        level = parse_noise_level(meant)
    except InputError:
        return  # another mistake, or none
    check_level(info, level)  # says which datasets have human labels
    raise InputError(f"a noise level must be written with its kind, got {name!r}; did you mean {level}?")


def cancelling_rate(dataset: NoisyDataset) -> float | None:
    """Return the noise-cancelling rate of a dataset's noise; None where the noise is unknown or it does not exist.

    For symmetric noise on clean labels it is that of the nominal rate, for other noise, and on a user's own labels, the
    symmetric equivalent of the observed share of wrong labels.
    """
    level = parse_noise_level(dataset.noise_level)
    noise_rate = dataset.noise_rate
    if noise_rate is not None and level.rate is not None and level.kind == "symmetric" and not dataset.is_own:
        noise_rate = level.rate
    if noise_rate is None or noise_rate >= (dataset.num_classes - 1) / dataset.num_classes:
        return None
    return noise_cancelling_rate(noise_rate, dataset.num_classes)
