"""What a machine or a cluster has for trials: how many fit, and whether every node sees the folders."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nls_tune.errors import InputError
from nls_tune.machine import hardware
from nls_tune.machine.limits import usable_cpus
from nls_tune.plan.settings import SearchSettings
from nls_tune.spaces.space import SearchSpace, setting_values


@dataclass(frozen=True)
class Slots:
    """The number of trials that run at once, and the CPUs and GPUs of each."""

    count: int
    cpus_per_trial: int
    gpus_per_trial: float

    @property
    def trials_per_gpu(self) -> int:
        """Trials that share a GPU; 1 without GPUs."""
        return round(1 / self.gpus_per_trial) if self.gpus_per_trial else 1


def local_resources() -> dict[str, float]:
    """Return the CPUs and GPUs of this machine that this process may use, in Ray's words."""
    return {"CPU": usable_cpus(), "GPU": len(hardware.find_gpus().found)}


def assumed_resources(num_gpus: int, settings: SearchSettings) -> dict[str, float]:
    """Return the resources of a machine with so many GPUs, and with CPUs for all trials on them."""
    cpus = num_gpus * settings.trials_per_gpu * settings.cpus_per_trial
    return {"CPU": max(cpus, local_resources()["CPU"]), "GPU": num_gpus}


def slots_of(resources: Mapping[str, float], settings: SearchSettings, trials_per_gpu: int | None = None) -> Slots:
    """Return how many trials run at once and what each gets; ``trials_per_gpu`` is by default that of the settings.

    Raises:
        InputError: If not even one trial fits.
    """
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    by_cpu = cpus // settings.cpus_per_trial
    most = settings.max_concurrent or by_cpu
    if by_cpu < 1:
        raise InputError(
            f"--cpus-per-trial must be at most the {cpus} CPUs there are, got {settings.cpus_per_trial}; lower it"
        )
    if not gpus:
        if settings.trials_per_gpu != 1:
            raise InputError(f"--trials-per-gpu {settings.trials_per_gpu} needs a GPU, there is none; leave it out")
        return Slots(min(by_cpu, most), settings.cpus_per_trial, 0.0)
    if trials_per_gpu is None:
        trials_per_gpu = settings.trials_per_gpu
    count = min(by_cpu, gpus * trials_per_gpu, most)
    # Where CPUs run short the trials are spread over all GPUs, and each gets the larger part of one.
    return Slots(count, settings.cpus_per_trial, 1 / math.ceil(count / gpus))


def check_machine(space: SearchSpace, settings: SearchSettings, slots: Slots) -> str | None:
    """Check that what trials run on can do what they need; a cluster's precision and compilers only its workers know.

    Return the note on the machine for the plan, None if there is none.

    Raises:
        InputError: If it cannot.
    """
    if settings.address is not None:
        import ray

        nodes = ray.nodes()  # type: ignore[no-untyped-call] # Ray's
        check_node(slots, [node["Resources"] for node in nodes if node["Alive"]])
        return None
    gpus = hardware.find_gpus()
    hardware.check_precision(setting_values(space, "precision"), gpus.found)
    hardware.check_compile(settings.compile, gpus.found)
    return gpus.note()


def check_preset(settings: SearchSettings, slots: Slots) -> None:
    """Check that there is a GPU where the preset for GPUs was asked for: its trials would take days on a CPU.

    Raises:
        InputError: If there is none.
    """
    if settings.preset == "gpu" and not slots.gpus_per_trial:
        raise InputError("--preset gpu needs a GPU, there is none; use cpu or auto (or --dry-run, to see its plan)")


def check_node(slots: Slots, nodes: Iterable[Mapping[str, float]]) -> None:
    """Check that one of the nodes, given by their resources, has room for a trial: else Ray would wait for ever.

    Raises:
        InputError: If none has.
    """
    candidates = [node for node in nodes if node.get("GPU", 0) >= slots.gpus_per_trial]
    most = int(max((node.get("CPU", 0) for node in candidates), default=0))
    if most < slots.cpus_per_trial:
        kind = "one node with a GPU" if slots.gpus_per_trial else "one node"
        raise InputError(
            f"--cpus-per-trial must be at most the {most} CPUs of {kind}, got {slots.cpus_per_trial}; lower it"
        )
