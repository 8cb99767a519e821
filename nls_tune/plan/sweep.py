"""What a sweep tries: rates from one end of the searched range to the other, and settings for each."""

from __future__ import annotations

import math
from collections.abc import Set

import numpy as np

from nls_tune.allocation.allocator import Config
from nls_tune.errors import InputError
from nls_tune.spaces.parameters import ChoiceParameter, FloatParameter, rounded
from nls_tune.spaces.settings import Arm, arm_of
from nls_tune.spaces.space import SearchSpace

#: Settings that are tried for each rate.
DEFAULT_TRIALS = 6
#: log(1 - r) ends at 1: nearer rates count as this one.
_LARGEST = 0.99


def sweep_rates(space: SearchSpace, num: int) -> tuple[float, ...]:
    """Return up to ``num`` rates, ascending and evenly spaced in log(1 - r), 0 among them where it is searched.

    Of a list of rates as many are taken, evenly by their order, or all where there are fewer. Rates of arms that the
    space leaves out are left out.

    Raises:
        InputError: If that leaves fewer than three.
    """
    parameter, arms = space.rate, set(space.used_arms())
    if isinstance(parameter, ChoiceParameter):
        values = sorted(float(value) for value in parameter.values if arm_of(float(value)) in arms)
    else:
        values = [value for value in _even(parameter, num, arms) if arm_of(value) in arms]
    if len(values) < 3:
        raise InputError(
            f"--sweep needs three rates or more, the arms {', '.join(sorted(arms))} of space {space.name} leave "
            f"{len(values)}; leave it out, or search gls and ce over a range of rates"
        )
    if len(values) <= num:
        return tuple(values)
    chosen = {round(i * (len(values) - 1) / (num - 1)) for i in range(num)}
    found = [values[i] for i in sorted(chosen)]
    return tuple(_with_zero(found) if 0.0 in values else found)


def spread_settings(space: SearchSpace, num: int, seed: int) -> tuple[Config, ...]:
    """Return ``num`` configurations of rate 0 whose searched settings are spread over their ranges.

    A Latin hypercube: every range is cut into ``num`` parts on its scale, and each part's middle is used once.
    Settings that few values make equal stand there once.
    """
    rng, parameters = np.random.default_rng(seed), space.parameters("ce")
    columns = {
        name: [parameters[name].at((part + 0.5) / num) for part in rng.permutation(num)]
        for name in parameters
        if name != "smooth_rate"
    }
    found = [space.default(smooth_rate=0.0, **{name: columns[name][i] for name in columns}) for i in range(num)]
    return tuple(config for i, config in enumerate(found) if config not in found[:i])


def _even(parameter: FloatParameter, num: int, arms: Set[Arm]) -> list[float]:
    """Return rates from end to end of the range that the arms cover."""
    low = parameter.low if "negative" in arms else max(parameter.low, 0.0)
    high = min(parameter.high if "positive" in arms else min(parameter.high, 0.0), _LARGEST)
    ends = [math.log1p(-rate) for rate in (low, high)]
    steps = [ends[0] + i * (ends[1] - ends[0]) / (num - 1) for i in range(num)]
    values = [rounded(-math.expm1(step)) for step in steps]
    values[0], values[-1] = low, high
    return sorted(set(_with_zero(values) if low <= 0 <= high and "ce" in arms else values))


def _with_zero(values: list[float]) -> list[float]:
    """Put 0 in the place of the rate that is nearest to it on the scale of log(1 - r)."""
    nearest = min(range(len(values)), key=lambda i: abs(math.log1p(-min(values[i], _LARGEST))))
    return [*values[:nearest], 0.0, *values[nearest + 1 :]]
