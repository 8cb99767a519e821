"""Measures on one GPU how fast networks train and how well a search uses the machine, in less than ten minutes.

Run ``PYTHONPATH=. python benchmarks/gpu/measure.py`` in the repository; no data are needed. Every result is one line of
JSON, printed as soon as it is measured, and all of them are in ``$OUT/measure.json`` if OUT is set: whatever ends the
run, nothing that was measured is lost. ``--small`` measures tiny settings on the CPU, to try the program out.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the other benchmarks, here and in the processes that are started

import loss
import throughput
import torch
from utilisation import utilisation

from nls_tune.files import write_atomically
from nls_tune.machine.provenance import provenance
from nls_tune.runs.reading import read_trials
from nls_tune.training.compiling import CompileMode, Compiler
from nls_tune.training.data import DeviceData
from nls_tune.training.devices import peak_memory_bytes, resolve_precision
from nls_tune.training.training import Training

#: Seconds that a section may take; a section is left out when less of --minutes is left.
SECTION_SECONDS = 75.0


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        device: ``cuda`` or ``cpu``.
        models: Names of the networks; the first is also compiled and raced against the reference loop.
        batch_sizes: Samples per step.
        num_train: Training images per epoch.
        num_held_out: Images of the validation and of the test set each, which every epoch evaluates.
        race_train: Training images per epoch of the race.
        rounds: Epochs that are measured.
        loss_rounds: Rounds of the loss's measurement.
        search: Arguments of the search, which needs no data.
        packings: Trials per GPU that are tried in the search.
    """

    device: str = "cuda"
    models: tuple[str, ...] = ("resnet34", "resnet18", "small_cnn")
    batch_sizes: tuple[int, ...] = (128, 512)
    num_train: int = 45_000
    num_held_out: int = 7_500  # 5,000 and 10,000 in CIFAR-10
    race_train: int = 20_000
    rounds: int = 3
    loss_rounds: int = 50
    search: tuple[str, ...] = ("--dataset", "digits", "--noise", "symmetric:0.4", "--num-trials", "24")
    packings: tuple[int, ...] = (1, 4)


SMALL = Scale(
    "cpu", ("small_cnn",), (32,), 96, 32, 64, 1, 2,
    ("--noise", "symmetric:0.4", "--num-trials", "4", "--epochs", "2", "--train-size", "200"), (1,),
)  # fmt: skip


def train(scale: Scale, model: str, batch_size: int, mode: CompileMode) -> dict[str, Any]:
    """Train one network on random images of CIFAR-10's shape.

    Returns:
        Seconds of the first epoch (with compiling and the choice of kernels) and of the epochs after it, evaluation
        included; training images per second; the share of a large matrix product's rate; peak memory.
    """
    device = torch.device(scale.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # as the trials of a search
        torch.cuda.reset_peak_memory_stats()
    settings = throughput.settings_of(model, batch_size)
    dataset = throughput.random_images(scale.num_train, scale.num_held_out)
    data = DeviceData.load(dataset, device)
    training = Training(dataset, settings, device, data=data, compiler=Compiler(mode))
    first, *seconds = (training.run_epoch().seconds for _ in range(1 + scale.rounds))
    speed = scale.num_train / statistics.median(seconds)
    flops = throughput.flops_per_image(throughput.settings_of(model, 2))
    return {
        "model": model,
        "batch_size": batch_size,
        "compile": mode,
        "precision": training.precision,
        "train_images": scale.num_train,
        "evaluated_images": 2 * scale.num_held_out,
        "first_epoch_seconds": first,
        "epoch_seconds": seconds,
        "images_per_second": speed,
        "flops_per_image": flops,
        "share_of_matmul": speed * flops / _matmul(scale.device)["flops_per_second"],
        "peak_memory_bytes": peak_memory_bytes(device),
    }


def search(scale: Scale, per_gpu: int) -> dict[str, Any]:
    """Run a search and return its wall time, and the share of its slots' time that was training."""
    packing = ("--trials-per-gpu", str(per_gpu)) if scale.device == "cuda" else ()
    command = [sys.executable, "-m", "nls_tune.search", *scale.search, *packing, "--confirm-seeds", "0", "--out"]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run([*command, folder + "/run"], capture_output=True, text=True)  # noqa: S603 (our program)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError((done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1])
        trials = read_trials(Path(folder) / "run")
        (session,) = json.loads(Path(folder, "run", "run.json").read_text(encoding="utf-8"))["sessions"]
    slots = session["slots"]["count"]
    return {
        "arguments": [*scale.search, *packing],
        "trials": len(trials),
        "slots": slots,
        "seconds": seconds,
        "median_train_seconds": float(trials["train_seconds"].median()),
        "utilisation": utilisation(trials, slots),
    }


@functools.cache
def _matmul(device: str) -> dict[str, Any]:
    precision = resolve_precision("auto", torch.device(device), images=True)
    return {"precision": precision, "flops_per_second": throughput.matmul_flops(device, precision)}


def sections(scale: Scale) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what is measured by name, the most important first."""
    first = scale.models[0]
    found: dict[str, Callable[[], dict[str, Any]]] = {"matmul": lambda: _matmul(scale.device)}
    for model in scale.models:
        for size in scale.batch_sizes:
            found[f"training-{model}-{size}"] = functools.partial(train, scale, model, size, "off")
    for count in scale.packings:
        found[f"search-{count}"] = functools.partial(search, scale, count)
    size = scale.batch_sizes[0]
    found[f"compiled-{first}-{size}"] = functools.partial(train, scale, first, size, "on")
    found[f"reference-{first}-{size}"] = functools.partial(
        throughput.race, throughput.settings_of(first, size), scale.race_train, scale.device, scale.rounds,
        patience=SECTION_SECONDS,
    )  # fmt: skip
    found["loss"] = functools.partial(loss.measure_size, torch.device(scale.device), 1024, 1000, scale.loss_rounds)
    return found


def main() -> int:
    """Measure section after section; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tiny settings on the CPU")
    parser.add_argument("--minutes", type=float, default=9.0, help="no section begins when too little of it is left")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="sections by the first part of their names")
    options = parser.parse_args()
    scale = SMALL if options.small else Scale()
    if scale.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --small measures tiny settings on the CPU")
    todo = {k: v for k, v in sections(scale).items() if not options.only or k.partition("-")[0] in options.only}
    # A first epoch that finds compiled code on the disk says nothing of one that does not.
    os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    lines: list[dict[str, Any]] = []

    def say(**line: Any) -> None:
        print(json.dumps(line), flush=True)
        lines.append(line)
        if out := os.environ.get("OUT"):
            Path(out).mkdir(parents=True, exist_ok=True)
            write_atomically(Path(out) / "measure.json", (json.dumps(lines, indent=1) + "\n").encode())

    deadline = time.monotonic() + 60 * options.minutes
    say(section="machine", date_utc=datetime.now(UTC).isoformat(timespec="seconds"), **provenance())
    for name, measure in todo.items():
        start = time.monotonic()
        if not options.small and deadline - start < SECTION_SECONDS:
            say(section=name, left_out=f"less than {SECTION_SECONDS:g} s of --minutes was left")
            continue
        try:
            found = measure()
        except Exception as error:  # the other sections can still be measured
            found = {"error": f"{type(error).__name__}: {error}"}
        say(section=name, wall_seconds=time.monotonic() - start, **found)
    return int(any("error" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
