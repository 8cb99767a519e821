"""Asynchronous successive halving (ASHA): which trials of a group go on at a rung."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Rungs:
    """Asynchronous successive halving with one bracket.

    From Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020. A trial that reaches a
    rung goes on if its value is among the best ``1 / reduction_factor`` of the values that the rung has seen so
    far, its own included. ``levels`` are the clock values of the rungs, increasing.
    """

    levels: tuple[int, ...]
    reduction_factor: float = 3.0
    _values: dict[int, list[float]] = field(default_factory=dict)

    @classmethod
    def geometric(cls, grace: int, longest: int, reduction_factor: float) -> Rungs:
        """Return rungs at ``grace * reduction_factor**k``, all below the longest trial's clock."""
        levels: list[int] = []
        level = float(grace)
        while round(level) < longest:
            levels.append(round(level))
            level *= reduction_factor
        return cls(tuple(dict.fromkeys(levels)), reduction_factor)  # small factors round to the same level

    def passes(self, clock: int, value: float) -> bool:
        """Record a value at a rung and say whether its trial goes on; off the rungs it always does."""
        if clock not in self.levels:
            return True
        values = self._values.setdefault(clock, [])
        values.append(value)
        keep = max(1, int(len(values) / self.reduction_factor))
        return value >= sorted(values, reverse=True)[keep - 1]
