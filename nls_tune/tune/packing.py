"""How many trials share a GPU: chosen from measurements, and lowered when one of them runs out of memory.

When a trial runs out of memory and others share its GPU, no further trial starts; those that run go on to their end.
The search then goes on in a fresh experiment with half as many trials on a GPU, and what ran out runs again there. Its
row says ``out_of_memory`` meanwhile and its folder in ``checkpoints/`` stays: by that a later session knows that it is
to run again. With the GPU to itself the outcome stands: the folder is removed, and no session runs it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nls_tune.plan.settings import SearchSettings
from nls_tune.tune.cluster import Slots, slots_of

#: More trials on a GPU must be worth this much of the throughput: each of them costs memory and takes longer.
WORTH = 0.05
#: Memory that the measured trials may fill: their peaks are of a slice of the data, and networks may be searched.
_USABLE_MEMORY = 0.9


def choose_packing(throughputs: Mapping[int, float]) -> int:
    """Return how many trials should share a GPU.

    Args:
        throughputs: By number of trials: samples per second of all of them together.

    Returns:
        The smallest number whose throughput is within ``WORTH`` of the highest; 1 if nothing was measured.
    """
    enough = (1 - WORTH) * max(throughputs.values(), default=0.0)
    return min((n for n, throughput in throughputs.items() if throughput >= enough), default=1)


def fits_in_memory(free: int, total: int) -> int:
    """Return how many trials fit on a GPU, at least 1.

    Args:
        free: Bytes that are free while one trial is there.
        total: Bytes of the GPU. What is in use counts as that trial's, whoever uses it.
    """
    return max(1, int(_USABLE_MEMORY * total / max(1, total - free)))


def measure_throughputs(measure: Callable[[int], float | None], fits: Callable[[], int], most: int) -> dict[int, float]:
    """Measure with 1, 2, 4, ... trials until no more fit, or more are no faster.

    Args:
        measure: Returns the throughput of so many trials together; None if it cannot be measured.
        fits: How many fit in memory; asked once the first one is there.
        most: How many are allowed.

    Returns:
        The throughputs by number of trials; empty if not even one could be measured.
    """
    found: dict[int, float] = {}
    trials = 1
    while trials <= most and (throughput := measure(trials)) is not None:
        if trials == 1:
            most = min(most, fits())
        gains = throughput > (1 + WORTH) * max(found.values(), default=0.0)
        found[trials] = throughput
        if not gains:
            break
        trials *= 2
    return found


def packing_note(resources: Mapping[str, float], slots: Slots, settings: SearchSettings) -> str | None:
    """Return what a plan has to say of trials that share a GPU; None if that is nothing.

    Args:
        resources: Of the machine or the cluster.
        slots: What follows from them.
        settings: With ``trials_per_gpu``.
    """
    wanted = settings.trials_per_gpu
    if wanted == "auto":
        return "How many trials share a GPU is measured before the first one starts"
    if slots.gpus_per_trial and slots.trials_per_gpu < wanted:
        cpus = wanted * int(resources["GPU"]) * settings.cpus_per_trial
        return (
            f"--trials-per-gpu {wanted} needs {cpus} CPUs, there are {int(resources['CPU'])}: "
            f"{slots.count} at a time, at most {slots.trials_per_gpu} on a GPU"
        )
    return None


class Packing:
    """How many trials share a GPU now.

    Args:
        resources: Of the machine or the cluster.
        settings: What the user asked for.
        slots: What a search starts with.
        lowered: Called with the trials a GPU before and the new slots whenever they are lowered.

    Attributes:
        slots: What a trial gets and how many run at once.
    """

    def __init__(
        self,
        resources: Mapping[str, float],
        settings: SearchSettings,
        slots: Slots,
        lowered: Callable[[int, Slots], Any] = lambda before, slots: None,
    ) -> None:
        self.slots = slots
        self.lowered = lowered
        self._resources, self._settings = resources, settings
        self._ran_out = False

    def use(self, trials_per_gpu: int) -> None:
        """Let so many trials share a GPU, as far as there are CPUs for them."""
        self.slots = slots_of(self._resources, self._settings, trials_per_gpu)

    def out_of_memory(self) -> str | None:
        """Note that a trial ran out of memory; return how it will run again, None if it had the GPU to itself."""
        if self.slots.trials_per_gpu == 1:
            return None
        self._ran_out = True
        return "it runs again with fewer on its GPU"

    def is_draining(self) -> bool:
        """Whether no trial should start before fewer share a GPU."""
        return self._ran_out

    def lower(self) -> bool:
        """If a trial ran out of memory, halve the trials per GPU.

        Returns:
            Whether there is something to run again.
        """
        if not self._ran_out:
            return False
        self._ran_out = False
        before = self.slots.trials_per_gpu
        self.use(before // 2)
        self.lowered(before, self.slots)
        return True
