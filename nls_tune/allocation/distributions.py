"""A search space that is nothing but Optuna distributions, for users of the allocator with a task of their own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nls_tune.allocation.allocator import Config, Params

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class DistributionSpace:
    """A ``ConfigSpace`` of at least one Optuna distribution by name: configurations are the sampled parameters."""

    def __init__(self, **distributions: BaseDistribution) -> None:
        if not distributions:
            raise ValueError("a space must have at least one distribution, got none; name them as keywords")
        self._distributions = distributions

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the distributions by name."""
        return dict(self._distributions)

    def decode(self, params: Mapping[str, Any]) -> Config:
        """Return the configuration of sampled parameters."""
        return {name: params[name] for name in self._distributions}

    def encode(self, config: Config) -> Params:
        """Return the parameters of a configuration; raise ValueError if one is missing, unknown or out of range."""
        if config.keys() != self._distributions.keys():
            raise ValueError(f"a configuration must have {sorted(self._distributions)}, got {sorted(config)}")
        for name, distribution in self._distributions.items():
            if not distribution._contains(distribution.to_internal_repr(config[name])):
                raise ValueError(f"{name} must lie in {distribution}, got {config[name]!r}")
        return self.decode(config)

    def points(self) -> list[Params] | None:
        """Return every combination of values, or None where a parameter is real."""
        return combinations({name: _values(distribution) for name, distribution in self._distributions.items()})


def combinations(values: Mapping[str, Sequence[Any] | None]) -> list[Params] | None:
    """Return every combination of the values by name, or None where those of a name are infinitely many."""
    finite = [found for found in values.values() if found is not None]
    if len(finite) < len(values):
        return None
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*finite)]


def _values(distribution: BaseDistribution) -> list[Any] | None:
    """Return the values of a distribution, or None where they are real numbers."""
    choices: tuple[Any, ...] | None = getattr(distribution, "choices", None)
    if choices is not None:
        return list(choices)
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined] # int or float
    step = distribution.step  # type: ignore[attr-defined]
    if distribution.single():
        return [low]
    return None if step is None else [low + i * step for i in range(round((high - low) / step) + 1)]
