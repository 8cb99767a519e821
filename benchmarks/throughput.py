"""Measures the speed of one training against the loop that everybody writes first, side by side.

Run ``python benchmarks/throughput.py`` in the repository on an idle machine. Either side lives in a process of its own
and they take turns epoch by epoch, so that a machine that slows down slows both; what is reported is the median over
rounds of the ratio within a round. The images are random: speed does not depend on what they show.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reference_loop import ReferenceLoop
from torch.utils.flop_counter import FlopCounterMode

from nls_tune.datasets import NoisyDataset
from nls_tune.losses import gls_loss
from nls_tune.machine.provenance import provenance
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.devices import keep_freed_memory, peak_memory_bytes, resolve_precision
from nls_tune.training.models import build_model
from nls_tune.training.training import Training

#: Network: training images an epoch on a CPU. An epoch takes some seconds.
CPU_IMAGES = {"small_cnn": 8_192, "resnet18": 512, "fast_cnn": 4_096}
#: Network: its batch where none is asked for; the others have 128.
BATCH_SIZES = {"fast_cnn": 1_024}
#: Seconds that a side may say nothing: its first epoch, with its start, is the longest.
PATIENCE = 600.0
SMALLEST_RATIO = {"small_cnn": 2.5, "resnet18": 1.5, "fast_cnn": 3.0}


def random_images(num_train: int, num_test: int = 256) -> NoisyDataset:
    """Return random images of CIFAR-10's shape, so that nothing has to be downloaded."""
    rng = np.random.default_rng(0)
    total = num_train + num_test
    inputs = rng.integers(0, 256, (total + num_test, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, total + num_test)
    return NoisyDataset(
        name="random", noise_level="given", noise_seed=0, num_classes=10, inputs=inputs[:total],
        noisy_labels=labels[:total], clean_labels=None, train_indices=np.arange(num_train),
        val_indices=np.arange(num_train, total), test_inputs=inputs[total:], test_labels=labels[total:],
        input_mean=np.full(3, 0.5, np.float32), input_std=np.full(3, 0.25, np.float32), noise_rate=None,
        fingerprint="random",
    )  # fmt: skip


def settings_of(model: str, batch_size: int, precision: str = "auto") -> TrainingSettings:
    """Return a configuration with the augmentation of CIFAR; the rate is negative and the learning rate small."""
    return TrainingSettings(
        model=model, epochs=1_000, smooth_rate=-0.4, lr=1e-3, batch_size=batch_size, crop_padding=4, flip=True,
        precision=precision,
    )  # fmt: skip


def _side(name: str, settings: TrainingSettings, num_train: int, device: str, pipe: Connection) -> None:
    """One side: says how long its first step took, then trains an epoch at every word."""
    start = time.perf_counter()
    dataset = random_images(num_train)
    if name == "reference":
        loop = ReferenceLoop(dataset, settings, device)
        epoch = loop.train_epoch
    else:
        # As every trial does.
        if device == "cpu":
            keep_freed_memory()
        else:
            torch.backends.cudnn.benchmark = True
        # Its own evaluation after an epoch is not what is measured: 256 samples of it are left.
        training = Training(replace(dataset, test_inputs=None, test_labels=None), settings, device)
        epoch = training.run_epoch
    epoch()  # caches, workers and the allocator warm up
    pipe.send(time.perf_counter() - start)
    while pipe.recv() == "epoch":
        start = time.perf_counter()
        epoch()
        pipe.send(num_train / (time.perf_counter() - start))
    own = peak_memory_bytes(torch.device(device))
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    pipe.send(
        {
            "peak_memory_bytes": own,
            "largest_worker_bytes": workers,
            "cudnn_benchmark": torch.backends.cudnn.benchmark if device == "cuda" else None,
        }
    )


def _send(pipe: Connection, word: str) -> None:
    with suppress(BrokenPipeError):  # who does not listen any more will not answer either
        pipe.send(word)


def _answer(name: str, process: SpawnProcess, pipe: Connection, patience: float) -> Any:
    """What a side says next.

    Raises:
        RuntimeError: If it has ended, or says nothing for so many seconds.
    """
    try:
        if pipe.poll(patience):
            return pipe.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        raise RuntimeError(f"{name} ended with exit code {process.exitcode}") from None
    raise RuntimeError(f"{name} said nothing for {patience:g} s")


def race(
    settings: TrainingSettings, num_train: int, device: str, rounds: int, patience: float = PATIENCE
) -> dict[str, Any]:
    """Let both sides take turns.

    Returns:
        Images a second of either side, the ratio of every round, and what else was seen.

    Raises:
        RuntimeError: If a side ends early, or says nothing for ``patience`` seconds; neither lives on.
    """
    context = multiprocessing.get_context("spawn")
    sides = {}
    found: dict[str, Any] = {"images_per_second": {}, "first_epoch_seconds": {}, "memory": {}, "cudnn_benchmark": {}}
    try:
        for name in ("reference", "nls_tune"):  # one after another: both measure their start alone
            here, there = context.Pipe()
            process = context.Process(target=_side, args=(name, settings, num_train, device, there))
            process.start()
            there.close()  # or the end of the process would not be the end of what it says
            sides[name] = (name, process, here)
            found["first_epoch_seconds"][name] = _answer(*sides[name], patience)
            found["images_per_second"][name] = []
        for round_ in range(rounds):
            for name in sorted(sides, reverse=bool(round_ % 2)):
                _send(sides[name][2], "epoch")
                found["images_per_second"][name].append(_answer(*sides[name], patience))
        for name, side in sides.items():
            _send(side[2], "stop")
            end = _answer(*side, patience)
            # None on a CPU, which has no cuDNN; the plain loop has torch's default.
            found["cudnn_benchmark"][name] = end.pop("cudnn_benchmark")
            found["memory"][name] = end
            side[1].join(patience)
    finally:
        for _, process, pipe in sides.values():
            process.kill()
            process.join()
            pipe.close()
    ours, theirs = found["images_per_second"]["nls_tune"], found["images_per_second"]["reference"]
    found["ratios"] = [a / b for a, b in zip(ours, theirs, strict=True)]
    found["median"] = {name: statistics.median(v) for name, v in found["images_per_second"].items()}
    found["median"]["ratio"] = statistics.median(found["ratios"])
    return found


def flops_per_image(settings: TrainingSettings, batch: int = 8) -> float:
    """Return the floating-point operations of a training step, a sample, by torch's counter (convolutions, matmuls)."""
    model = build_model(settings.model, num_classes=10, input_shape=(3, 32, 32))
    inputs, labels = torch.randn(batch, 3, 32, 32), torch.zeros(batch, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        gls_loss(model(inputs), labels, settings.smooth_rate).backward()
    return counter.get_total_flops() / batch


def _product(a: torch.Tensor, b: torch.Tensor, device: str) -> None:
    a @ b
    if device == "cuda":
        torch.cuda.synchronize()


def matmul_flops(device: str, precision: str, seconds: float = 1.5) -> float:
    """Return the rate of a large matrix product, in floating-point operations a second: the best of many."""
    size = 8192 if device == "cuda" else 1536
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    _product(a, b, device)  # chooses the kernel and makes the workspace
    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        _product(a, b, device)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def measure(model: str, batch_size: int, num_train: int, device: str, rounds: int) -> dict[str, Any]:
    """Race one network and put its speed into proportion."""
    settings = settings_of(model, batch_size)
    precision = resolve_precision(settings.precision, torch.device(device), images=True)
    found = race(settings, num_train, device, rounds)
    flops, limit = flops_per_image(settings), matmul_flops(device, precision)
    return {
        "model": model,
        "batch_size": batch_size,
        "train_images": num_train,
        "precision": precision,
        **found,
        "flops_per_image": flops,
        "matmul_flops_per_second": limit,
        "share_of_matmul": found["median"]["nls_tune"] * flops / limit,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table, for the console and for README."""
    lines = [
        "| network | batch | precision | images/s | reference loop | ratio | share of matmul |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        median = row["median"]
        lines.append(
            f"| {row['model']} | {row['batch_size']} | {row['precision']} | {median['nls_tune']:,.0f} "
            f"| {median['reference']:,.0f} | {median['ratio']:.2f} | {100 * row['share_of_matmul']:.0f} % |"
        )
    return "\n".join(lines)


def readme_table(evidence: dict[str, Any]) -> list[str]:
    """Return README's table of the evidence."""
    return table(evidence["rows"]).splitlines()


def main() -> None:
    """Measure, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+", default=list(CPU_IMAGES))
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="by default that of the network's recipe")
    parser.add_argument("--images", type=int, help="training images an epoch; by default a few seconds' worth")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "throughput.json")
    options = parser.parse_args()
    rows = []
    for model in options.models:
        for batch_size in options.batch_sizes or [BATCH_SIZES.get(model, 128)]:
            images = options.images or (CPU_IMAGES.get(model, 512) if options.device == "cpu" else 50_000)
            rows.append(measure(model, batch_size, images, options.device, options.rounds))
            print(table(rows[-1:]), flush=True)
    evidence = {
        "what": "training images per second, beside a DataLoader loop on the same machine in the same minutes",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "device": options.device,
        "cores": len(os.sched_getaffinity(0)),
        "goals": SMALLEST_RATIO,
        "rows": rows,
    }
    options.out.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
