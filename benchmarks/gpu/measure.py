"""Measures the speed of training on one GPU in one run of less than nine minutes.

Run ``PYTHONPATH=. python benchmarks/gpu/measure.py`` in the repository. Every result is one line of JSON, printed as
soon as it is measured, and all of them stand in ``$OUT/measure.json`` if OUT is set: whatever ends the run, nothing
that was measured is lost. The images are random and of CIFAR-10's shape: speed does not depend on what they show.
``--small`` is a rehearsal with a tiny network on the CPU. It needs neither Ray nor Optuna.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the other benchmarks, here and in the processes that are started

import loss
import throughput
import torch

from nls_tune.files import write_atomically
from nls_tune.machine.provenance import provenance
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.compiling import CompileMode, Compiler
from nls_tune.training.data import DeviceData
from nls_tune.training.devices import peak_memory_bytes, resolve_precision
from nls_tune.training.training import Training

#: What a section may take at most, in seconds; later ones are left out when less is left.
SECTION_SECONDS = 75.0
#: Seconds that a process waits for the others, and that this one waits for them.
_PATIENCE = 240.0
#: What is said of each of the processes that train at once.
EACH = ("epoch_seconds", "first_step_seconds", "first_epoch_seconds", "peak_memory_bytes")


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        device: ``cuda`` or ``cpu``.
        model: Name of the network.
        batch_sizes: Samples a step.
        num_train: Training images an epoch.
        num_held_out: Images of the validation and of the test set each, which every epoch evaluates.
        race_train: Training images an epoch in the race against the reference loop.
        rounds: Epochs that are measured.
        processes: How many trainings at once.
        loss_sizes: Samples and classes.
        loss_rounds: Of the loss benchmark.
    """

    device: str = "cuda"
    model: str = "resnet34"
    batch_sizes: tuple[int, ...] = (128, 512)
    num_train: int = 45_000
    num_held_out: int = 7_500  # 5,000 and 10,000 in CIFAR-10
    race_train: int = 20_000
    rounds: int = 3
    processes: tuple[int, ...] = (1, 2, 4)
    loss_sizes: tuple[tuple[int, int], ...] = loss.SIZES
    loss_rounds: int = 50


SMALL = Scale("cpu", "small_cnn", (32,), 96, 32, 64, 1, (1, 2), ((1024, 1000),), 2)


def _process(barrier: Barrier, pipe: Connection, *arguments: Any) -> None:
    """A process that trains, and says what it has measured or why it could not."""
    try:
        pipe.send(_epochs(barrier, *arguments))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _epochs(
    barrier: Barrier, scale: Scale, settings: TrainingSettings, mode: CompileMode, began: float
) -> dict[str, Any]:
    """Train the first step alone, then whole epochs beside the others."""
    if scale.device == "cpu":
        torch.set_num_threads(1)
    else:
        torch.backends.cudnn.benchmark = True  # as the trials of a search
    compiler = Compiler(mode)
    device = torch.device(scale.device)
    one_step = replace(throughput.random_images(settings.batch_size), test_inputs=None, test_labels=None)
    Training(one_step, settings, device, compiler=compiler).run_epoch()
    first = time.time() - began
    dataset = throughput.random_images(scale.num_train, scale.num_held_out)
    data = DeviceData.load(dataset, device)
    training = Training(dataset, settings, device, data=data, compiler=compiler)
    # The last, smaller batch and evaluation are other shapes, for which cuDNN looks for kernels again.
    first_epoch = training.run_epoch().seconds
    barrier.wait(_PATIENCE)
    start = time.time()
    seconds = [training.run_epoch().seconds for _ in range(scale.rounds)]
    return {
        "first_step_seconds": first,
        "first_epoch_seconds": first_epoch,
        "start": start,
        "stop": time.time(),
        "epoch_seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes(device),
    }


def train_at_once(scale: Scale, batch_size: int, mode: CompileMode, processes: int) -> dict[str, Any]:
    """Train the same thing in several processes at once.

    Returns:
        Images a second of all together, from the first one's start to the last one's end; of each: epoch seconds,
        seconds from the start of the process to the end of its first step (with 256 validation images), seconds of
        the first epoch after that, which is not among the epochs, and peak memory in bytes (CUDA: what torch
        allocated).

    Raises:
        RuntimeError: If one of them fails; the others are ended.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    settings = throughput.settings_of(scale.model, batch_size)
    started: list[tuple[Any, Connection]] = []
    for _ in range(processes):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_process, args=(barrier, there, scale, settings, mode, time.time()))
        process.start()
        there.close()  # so that a process that dies ends the wait
        started.append((process, here))
    try:
        found = _all_of([here for _, here in started])
    except BaseException:
        # Not by the barrier: a process that was killed while it waited there would hold up whoever ends the wait.
        for process, _ in started:
            process.kill()
        raise
    finally:
        for process, _ in started:
            process.join()
    wall = max(f["stop"] for f in found) - min(f["start"] for f in found)
    return {
        "model": scale.model,
        "batch_size": batch_size,
        "compile": mode,
        "processes": processes,
        "images_per_second": processes * scale.rounds * scale.num_train / wall,
        **{key: [f[key] for f in found] for key in EACH},
    }


def _all_of(pipes: Sequence[Connection]) -> list[dict[str, Any]]:
    """What every process has measured, in their order, as soon as all have said it.

    Raises:
        RuntimeError: As soon as one of them says why it could not or is gone, or none says anything for long.
    """
    found: dict[int, dict[str, Any]] = {}
    while left := [pipe for i, pipe in enumerate(pipes) if i not in found]:
        ready = wait(left, _PATIENCE)
        if not ready:
            raise RuntimeError(f"{len(left)} of {len(pipes)} processes said nothing for {_PATIENCE:g} s")
        for pipe in ready:
            try:
                said = pipe.recv()  # type: ignore[union-attr] # they are what was waited for
            except EOFError:
                raise RuntimeError(f"one of {len(pipes)} processes was killed, perhaps for its memory") from None
            if isinstance(said, str):
                raise RuntimeError(said)  # noqa: TRY004 (what it says went wrong there)
            found[pipes.index(pipe)] = said  # type: ignore[arg-type]
    return [found[i] for i in range(len(pipes))]


def one_training(scale: Scale, batch_size: int, mode: CompileMode, matmul: float) -> dict[str, Any]:
    """Train alone, and put the speed into proportion to ``matmul``, a rate of matrix products in FLOP/s."""
    found = train_at_once(scale, batch_size, mode, 1)
    epoch = statistics.median(found["epoch_seconds"][0])
    flops = _flops_per_image(scale.model)
    return {
        **found,
        "train_images": scale.num_train,
        "evaluated_images": 2 * scale.num_held_out,
        "flops_per_image": flops,
        # The work is that of training alone; the time of an epoch has its evaluation in it.
        "share_of_matmul": scale.num_train / epoch * flops / matmul,
        "seconds_of_100_epochs": {
            "value": found["first_step_seconds"][0] + 100 * epoch,
            "extrapolated_from_epochs": scale.rounds,
        },
    }


@functools.cache
def _flops_per_image(model: str) -> float:
    return throughput.flops_per_image(throughput.settings_of(model, 2))


def against_reference(scale: Scale, batch_size: int) -> dict[str, Any]:
    """Race against the DataLoader loop of ``benchmarks/reference_loop.py``."""
    settings = throughput.settings_of(scale.model, batch_size)
    found = throughput.race(settings, scale.race_train, scale.device, scale.rounds, patience=SECTION_SECONDS)
    return {"model": scale.model, "batch_size": batch_size, "train_images": scale.race_train, **found}


def sections(scale: Scale) -> dict[str, Callable[[], dict[str, Any]]]:
    """Name what is measured, the most important first."""
    precision = resolve_precision("auto", torch.device(scale.device), images=True)
    rate = functools.cache(lambda: throughput.matmul_flops(scale.device, precision))
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "matmul": lambda: {"precision": precision, "flops_per_second": rate()}
    }
    for size in scale.batch_sizes:
        found[f"training-{size}"] = functools.partial(lambda s: one_training(scale, s, "off", rate()), size)
    for count in scale.processes:
        if count > 1:  # one alone is measured above
            found[f"packed-{count}"] = functools.partial(train_at_once, scale, scale.batch_sizes[0], "off", count)
    compiled = {
        f"compiled-{size}": functools.partial(lambda s: one_training(scale, s, "on", rate()), size)
        for size in scale.batch_sizes
    }
    first, *others = compiled
    found[first] = compiled[first]
    # What a search has to be told is measured by now.
    for size in scale.batch_sizes:
        found[f"reference-{size}"] = functools.partial(against_reference, scale, size)
    found |= {name: compiled[name] for name in others}
    for samples, classes in scale.loss_sizes:
        found[f"loss-{samples}x{classes}"] = functools.partial(
            loss.measure_size, torch.device(scale.device), samples, classes, scale.loss_rounds
        )
    for count in scale.processes:
        if count > 1 and len(scale.batch_sizes) > 1:
            name = f"packed-{count}-{scale.batch_sizes[1]}"
            found[name] = functools.partial(train_at_once, scale, scale.batch_sizes[1], "off", count)
    return found


class Log:
    """Says every result at once, and keeps all of them in ``$OUT/measure.json``."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []
        self._path = Path(os.environ["OUT"]) / "measure.json" if os.environ.get("OUT") else None

    def add(self, line: dict[str, Any]) -> None:
        """Print a line and write the file."""
        print(json.dumps(line), flush=True)
        self._lines.append(line)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, (json.dumps(self._lines, indent=1) + "\n").encode())


def main() -> int:
    """Measure section after section; exit code 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a rehearsal with a tiny network on the CPU")
    parser.add_argument("--minutes", type=float, default=8.5, help="no section begins when too little of it is left")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="sections by the first part of their names")
    options = parser.parse_args()
    scale = SMALL if options.small else Scale()
    if scale.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --small rehearses on the CPU")
    todo = sections(scale)
    if options.only:
        todo = {name: measure for name, measure in todo.items() if name.partition("-")[0] in options.only}
    if not todo:
        names = dict.fromkeys(name.partition("-")[0] for name in sections(scale))
        parser.error(f"--only takes {', '.join(names)}; got {' '.join(options.only)}")
    # A first step that finds compiled code on the disk says nothing of one that does not.
    os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    deadline, log, failed = time.monotonic() + 60 * options.minutes, Log(), False
    log.add({"section": "machine", "date_utc": datetime.now(UTC).isoformat(timespec="seconds"), **provenance()})
    for name, measure in todo.items():
        start = time.monotonic()
        if not options.small and deadline - start < SECTION_SECONDS:
            log.add({"section": name, "left_out": f"less than {SECTION_SECONDS:g} s of --minutes was left"})
            continue
        try:
            line = measure()
        except Exception as error:  # the other sections can still be measured
            failed = True
            line = {"error": f"{type(error).__name__}: {error}"}
        log.add({"section": name, "wall_seconds": time.monotonic() - start, **line})
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
