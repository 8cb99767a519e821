"""Measures whether the fast path trains as well as the loop that everybody writes first: test accuracy, seed by seed.

Run ``python benchmarks/same_quality.py`` in the repository with the real CIFAR-10 (``NLS_TUNE_DATA``); it takes about
40 seconds a seed on 2 cores. Both train the same configuration on the same images for the same epochs. Initial
weights, order and augmentation are drawn by each in its own way: a pair shares its labels and images, and the
interval is that of a paired t test. Seeds that the evidence file has already, with the same settings, are not trained
again.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from reference_loop import ReferenceLoop

from nls_tune.analysis.statistics import sample_mean
from nls_tune.datasets import load_dataset
from nls_tune.devices import keep_freed_memory, resolve_precision
from nls_tune.provenance import provenance
from nls_tune.settings import TrainingSettings
from nls_tune.training import Training

#: The interval of the paired difference must lie within this many points of 0.
LIMIT = 1.0


def accuracies(seed: int, train_size: int, settings: TrainingSettings) -> dict[str, Any]:
    """Train both with one seed, on one thread; returns their test accuracies after the last epoch."""
    torch.set_num_threads(1)
    keep_freed_memory()
    dataset = load_dataset("cifar10", "symmetric:0.2", train_size=train_size, noise_seed=seed)
    settings = settings.model_copy(update={"seed": seed})
    training = Training(dataset, settings)
    while not training.finished:
        last = training.run_epoch()
    loop = ReferenceLoop(dataset, settings)
    for _ in range(settings.epochs):
        loop.train_epoch()
    return {"seed": seed, "nls_tune": float(last.test_accuracy or 0.0), "reference": loop.test_accuracy()}


def known_rows(file: Path, same: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an evidence file whose settings are the same; none if there is no such file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return list(found["rows"]) if all(found.get(key) == value for key, value in same.items()) else []


def main() -> None:
    """Measure, print and write the evidence after every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--train-size", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "same_quality.json")
    options = parser.parse_args()
    settings = TrainingSettings(
        model="small_cnn", epochs=options.epochs, warmup_epochs=options.epochs // 3, warmup_lr=0.01, smooth_rate=-0.2,
        lr=0.01, schedule="cosine", crop_padding=4, flip=True,
    )  # fmt: skip
    same = {
        "settings": settings.model_dump(mode="json"),
        "precision": resolve_precision(settings.precision, torch.device("cpu"), images=True),
        "train_size": options.train_size,
    }
    rows = [row for row in known_rows(options.out, same) if row["seed"] < options.seeds]
    missing = sorted(set(range(options.seeds)) - {row["seed"] for row in rows})
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        running = [pool.submit(accuracies, seed, options.train_size, settings) for seed in missing]
        for done in as_completed(running):
            row = done.result()
            rows = sorted([*rows, row], key=lambda r: int(r["seed"]))
            fast, slow = 100 * row["nls_tune"], 100 * row["reference"]
            print(f"seed {row['seed']}: {fast:.2f} %, reference {slow:.2f} %", flush=True)
            if len(rows) > 1:
                options.out.write_text(json.dumps(evidence(rows, same), indent=1) + "\n", encoding="utf-8")
    found = sample_mean([row["nls_tune"] - row["reference"] for row in rows])
    print(
        f"difference {100 * found.mean:+.2f} points, 95 % interval [{100 * found.low:+.2f}, {100 * found.high:+.2f}] "
        f"over {found.num_seeds} seeds"
    )


def evidence(rows: list[dict[str, Any]], same: dict[str, Any]) -> dict[str, Any]:
    """Return what is written: the rows, their difference and where they come from."""
    found = sample_mean([row["nls_tune"] - row["reference"] for row in rows])
    return {
        "what": "test accuracy of the fast path minus that of the reference loop, CIFAR-10 with 20 % symmetric noise",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        **same,
        "rows": rows,
        "difference": {"mean": found.mean, "low": found.low, "high": found.high, "limit_points": LIMIT},
    }


if __name__ == "__main__":
    main()
