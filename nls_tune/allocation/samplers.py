"""Optuna samplers by name."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import optuna

SamplerName = Literal["tpe", "random", "gp", "cmaes", "grid"]
SAMPLER_NAMES: tuple[SamplerName, ...] = get_args(SamplerName)


def make_sampler(name: SamplerName, seed: int, group: str, num_trials: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of a group's study.

    Model-based samplers draw at random first: a third of a small budget, at most Optuna's usual 10. ``gp`` ignores
    trials that were stopped, and is much slower than the others. For ``grid`` the allocator lists the points itself;
    the sampler that it gets here is never asked. It is seeded with the search's ``seed`` and the ``group``, the key as
    text: groups must not draw the same numbers.
    """
    from optuna import samplers

    stream = zlib.crc32(f"{seed}/{group}".encode())
    startup = max(2, min(10, num_trials // 3))
    if name == "tpe":
        return samplers.TPESampler(seed=stream, n_startup_trials=startup)
    if name == "gp":
        return samplers.GPSampler(seed=stream, n_startup_trials=startup)
    if name == "cmaes":
        return samplers.CmaEsSampler(seed=stream, n_startup_trials=startup, warn_independent_sampling=False)
    return samplers.RandomSampler(seed=stream)
