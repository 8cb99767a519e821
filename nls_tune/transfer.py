"""What one noise level learns from another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nls_tune.settings import arm_of
from nls_tune.spaces import Arm, SearchSpace


def translated(
    space: SearchSpace, arm: Arm, there: float | None, here: float | None, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return how a configuration of one noise level looks at another.

    Theory puts the optimum of every level at the same place in ``log(1 - r) - log(1 - r*)``. A rate that would
    leave its arm stays as it is.

    Args:
        space: That both levels search.
        arm: Of the configuration.
        there: Noise-cancelling rate r* of its level; None where it does not exist.
        here: That of the other level.
        config: The configuration.

    Returns:
        The configuration at the other level, inside the space.
    """
    arm_space, moved = space.arm(arm), dict(config)
    if there is not None and here is not None:
        rate = space.clip_rate(1 - (1 - moved["smooth_rate"]) * (1 - here) / (1 - there))
        if arm_of(rate) == arm:
            moved["smooth_rate"] = rate
    return arm_space.decode(arm_space.encode(moved))
