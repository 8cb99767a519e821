"""Measures how many trials should share a GPU: short trainings side by side, as processes of Ray like the trials.

What is measured is the default configuration at the first noise level, on a slice of the data: one process first,
whose memory says how many can fit, then 2, 4, ... until more are no faster. With several kinds of GPUs each kind is
measured, and the smallest number counts, because Ray gives every trial the same part of a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from nls_tune.datasets import NoisyDataset
from nls_tune.errors import error_line, is_out_of_memory
from nls_tune.plan.settings import MAX_TRIALS_PER_GPU
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.tune.packing import choose_packing, fits_in_memory, measure_throughputs

if TYPE_CHECKING:
    from nls_tune.plan.plan import SearchPlan
    from nls_tune.training.compiling import CompileMode
    from nls_tune.training.training import Training

#: Batches of an epoch that is measured; evaluation has its usual part in it.
_BATCHES = 20
#: How long the trainings run side by side.
_MEASURE_SECONDS = 2.0
#: A GPU that is not free for so long is somebody else's; a process that takes so long does not start any more.
_PATIENCE_SECONDS = 60.0
#: How much longer a process may take to start if it may have to compile its steps first.
_COMPILE_SECONDS = 240.0
#: Part of a GPU that a measuring process asks for: so small that any number of them fits on the one that is held.
_SLIVER = 0.001


@dataclass(frozen=True)
class GpuMeasurement:
    """What was measured on one kind of GPU.

    Attributes:
        gpu: Its kind.
        samples_per_second: Of all trials together, by the number of trials.
        memory_bytes: In use on the GPU with one trial, whoever uses it; None where torch cannot tell.
        problem: Why the measurement ended early, None if it did not.
    """

    gpu: str
    samples_per_second: dict[int, float]
    memory_bytes: int | None
    problem: str | None = None


@dataclass(frozen=True)
class PackingMeasurement:
    """What a search measured before it started.

    Attributes:
        trials_per_gpu: The number to take.
        kinds: One a kind of GPU.
        seconds: Wall time of the measurement.
    """

    trials_per_gpu: int
    kinds: tuple[GpuMeasurement, ...]
    seconds: float

    def line(self) -> str:
        """Say in one line what was measured."""
        parts = []
        for kind in self.kinds:
            found = [f"{n}: {value:,.0f}" for n, value in kind.samples_per_second.items()]
            text = f"{kind.gpu}: samples/s with {', '.join(found)}" if found else f"{kind.gpu}: nothing measured"
            if kind.memory_bytes is not None:
                text += f"; {kind.memory_bytes / 2**30:.1f} GiB used by one"
            parts.append(text + (f"; ended by {kind.problem}" if kind.problem else ""))
        return f"Trials that share a GPU: {self.trials_per_gpu} ({' | '.join(parts)}; {self.seconds:.0f} s)"

    def facts(self) -> dict[str, Any]:
        """What goes into run.json."""
        return asdict(self)


class Probe:
    """One process as a trial has it: all data on the device, and a training of its own, on a slice of the data.

    Args:
        dataset: Of the noise level.
        settings: What to train.
        cpus: Threads.
        device: Where.
        compile_mode: Of the search: steps are compiled where those of its trials are.
    """

    def __init__(
        self, dataset: NoisyDataset, settings: TrainingSettings, cpus: int, device: str, compile_mode: CompileMode
    ) -> None:
        import torch

        from nls_tune.training.compiling import Compiler
        from nls_tune.training.data import DeviceData

        torch.set_num_threads(cpus)
        if device == "cuda":
            torch.backends.cudnn.benchmark = True
        self._device = torch.device(device)
        self._dataset, self._settings = dataset, settings
        data, part = DeviceData.load(dataset, device), _BATCHES * settings.batch_size
        # Views: what is left out stays in memory, as in a trial.
        val = max(1, round(len(data.val_labels) * min(1.0, part / len(data.train_labels))))
        self._data = replace(
            data,
            train_inputs=data.train_inputs[:part],
            train_labels=data.train_labels[:part],
            val_inputs=data.val_inputs[:val],
            val_labels=data.val_labels[:val],
            test_inputs=None if data.test_inputs is None else data.test_inputs[:val],
            test_labels=None if data.test_labels is None else data.test_labels[:val],
        )
        self._compiler = Compiler(compile_mode)
        self._training = self._new_training()
        self._run_epoch()  # the first one chooses algorithms and fills the allocator

    def _new_training(self) -> Training:
        from nls_tune.training.training import Training

        return Training(self._dataset, self._settings, self._device, data=self._data, compiler=self._compiler)

    def _run_epoch(self) -> None:
        if self._training.finished:
            self._training = self._new_training()
        self._training.run_epoch()

    def memory(self) -> tuple[int, int] | None:
        """Return the free and total bytes of the GPU; None on a CPU."""
        from nls_tune.training.devices import memory_room

        return memory_room(self._device)

    def samples_per_second(self, seconds: float) -> float:
        """Train for so long, at least an epoch, and return the training samples per second."""
        begin, samples = time.perf_counter(), 0
        while (gone := time.perf_counter() - begin) < seconds or not samples:
            self._run_epoch()
            samples += len(self._data.train_labels)
        return samples / gone


def measure_packing(
    plan: SearchPlan, cpus_per_trial: int, *, device: str = "cuda", seconds: float = _MEASURE_SECONDS
) -> PackingMeasurement:
    """Measure in the Ray session that is open how many trials should share a GPU.

    Args:
        plan: Whose first noise level and default configuration are trained.
        cpus_per_trial: Of every trial.
        device: Where the processes compute.
        seconds: How long they train side by side.

    Returns:
        The measurement; where it fails, one trial a GPU and the reason.
    """
    begin = time.monotonic()
    kinds = tuple(
        _measure_kind(kind, node, plan, cpus_per_trial, device, seconds) for kind, node in _gpu_nodes().items()
    )
    trials = min((choose_packing(kind.samples_per_second) for kind in kinds), default=1)
    return PackingMeasurement(trials, kinds, time.monotonic() - begin)


def _gpu_nodes() -> dict[str, dict[str, Any]]:
    """One node of each kind of GPU."""
    import ray

    found: dict[str, dict[str, Any]] = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call] # Ray's
        resources = node["Resources"]
        if node["Alive"] and resources.get("GPU", 0) >= 1:
            kinds = [name.partition(":")[2] for name in resources if name.startswith("accelerator_type:")]
            found.setdefault(kinds[0] if kinds else "GPU", node)
    return found


def _measure_kind(
    kind: str,
    node: dict[str, Any],
    plan: SearchPlan,
    cpus: int,
    device: str,
    seconds: float,
) -> GpuMeasurement:
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    settings, mode = plan.training_settings(plan.space.default()), plan.settings.compile
    patience = _PATIENCE_SECONDS + (0 if mode == "off" else _COMPILE_SECONDS)
    # As many as there will be at most: trials are limited by CPUs, too.
    by_cpu = int(node["Resources"].get("CPU", 1)) // int(node["Resources"]["GPU"]) // cpus
    most = max(1, min(MAX_TRIALS_PER_GPU, by_cpu))
    problem: str | None = None
    room: tuple[int, int] | None = None
    found: dict[int, float] = {}
    with suppress(GetTimeoutError), _held_gpu(node, most * cpus) as start:
        data = ray.put(plan.levels[0].dataset)
        probes: list[Any] = []

        def measure(trials: int) -> float | None:
            nonlocal problem, room
            try:
                probes.extend(start(data, settings, cpus, device, mode) for _ in range(trials - len(probes)))
                rooms = ray.get([probe.memory.remote() for probe in probes], timeout=patience)
                room = rooms[0] if trials == 1 else room
                refs = [probe.samples_per_second.remote(seconds) for probe in probes]
                return float(sum(ray.get(refs, timeout=_PATIENCE_SECONDS + seconds)))
            except RayError as error:
                problem = _reason(error, shared_gpu=len(probes) > 1)
                return None

        def fits() -> int:
            return most if room is None else fits_in_memory(*room)

        found = measure_throughputs(measure, fits, most)
        return GpuMeasurement(kind, found, None if room is None else room[1] - room[0], problem)
    return GpuMeasurement(kind, found, None, f"no GPU being free within {_PATIENCE_SECONDS:.0f} s")


@contextmanager
def _held_gpu(node: dict[str, Any], cpus: int) -> Iterator[Any]:
    """Hold one GPU of a node; yields what starts a measuring process on it.

    Raises:
        GetTimeoutError: If none is free.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    here = f"node:{node['NodeManagerAddress']}"
    group = placement_group([{"CPU": cpus, "GPU": 1, here: 0.001}])
    probes: list[Any] = []
    try:
        ray.get(group.ready(), timeout=_PATIENCE_SECONDS)
        worker = ray.remote(Probe)

        def start(data: Any, settings: TrainingSettings, threads: int, *where: str) -> Any:
            strategy = PlacementGroupSchedulingStrategy(group)
            options = {"num_cpus": threads, "num_gpus": _SLIVER, "scheduling_strategy": strategy}
            probes.append(worker.options(**options).remote(data, settings, threads, *where))
            return probes[-1]

        yield start
    finally:
        for probe in probes:
            ray.kill(probe)
        remove_placement_group(group)


def _reason(error: Exception, *, shared_gpu: bool) -> str:
    """Why measuring ended, in a few words."""
    cause = getattr(error, "cause", None) or error
    if any(is_out_of_memory(e, shared_gpu=shared_gpu) for e in (cause, str(error))):
        return "memory"
    return error_line(cause)[:200]
