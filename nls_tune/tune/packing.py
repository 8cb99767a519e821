"""How many trials share a GPU: as many as the user wants, halved when one of them runs out of memory.

When a trial runs out of memory and others share its GPU, no further trial starts; those that run go on to their end.
The search then goes on in a fresh experiment with half as many trials per GPU, and the trial that ran out runs again.
Until then its row says ``out_of_memory`` and its folder in ``checkpoints/`` stays, which tells a later session to run
it again. With the GPU to itself the outcome stands: the folder is removed, and no session runs it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nls_tune.plan.settings import SearchSettings
from nls_tune.tune.cluster import Slots, slots_of


def packing_note(resources: Mapping[str, float], slots: Slots, settings: SearchSettings) -> str | None:
    """Return the plan's note on trials that share a GPU; None where as many as wanted do."""
    wanted = settings.trials_per_gpu
    cpus = wanted * int(resources.get("GPU", 0)) * settings.cpus_per_trial
    if not slots.gpus_per_trial or slots.trials_per_gpu >= wanted or cpus <= int(resources["CPU"]):
        return None
    return (
        f"--trials-per-gpu {wanted} needs {cpus} CPUs, there are {int(resources['CPU'])}: "
        f"{slots.count} at a time, at most {slots.trials_per_gpu} on a GPU"
    )


class Packing:
    """How many trials share a GPU now: its ``slots``, at first those that a search starts with.

    ``lowered`` is called with the trials per GPU before and the new slots whenever they are lowered.
    """

    def __init__(
        self,
        resources: Mapping[str, float],
        settings: SearchSettings,
        slots: Slots,
        lowered: Callable[[int, Slots], None] = lambda before, slots: None,
    ) -> None:
        self.slots = slots
        self._resources, self._settings, self._lowered = resources, settings, lowered
        self._ran_out = False

    def out_of_memory(self) -> str | None:
        """Note that a trial ran out of memory; return how it will run again, None if it had the GPU to itself."""
        if self.slots.trials_per_gpu == 1:
            return None
        self._ran_out = True
        return "it runs again with fewer on its GPU"

    def may_start(self) -> bool:
        """Whether a trial may start before fewer share a GPU."""
        return not self._ran_out

    def lower(self) -> bool:
        """If a trial ran out of memory, halve the trials per GPU; return whether there is something to run again."""
        if not self._ran_out:
            return False
        self._ran_out = False
        before = self.slots.trials_per_gpu
        self.slots = slots_of(self._resources, self._settings, before // 2)
        self._lowered(before, self.slots)
        return True
