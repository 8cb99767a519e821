"""Measures whether the fast path trains as well as the loop that everybody writes first: test accuracy, seed by seed.

Run ``python benchmarks/same_quality.py`` in the repository on an idle machine with the real CIFAR-10
(``NLS_TUNE_DATA``). Both train the same configuration on the same images for the same epochs. Initial weights, order
and augmentation are drawn by each in its own way: a pair shares its labels and images, and the interval is that of a
paired t test.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
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


def accuracies(seed: int, train_size: int, settings: TrainingSettings) -> dict[str, float]:
    """Train both with one seed; returns their test accuracies after the last epoch."""
    dataset = load_dataset("cifar10", "symmetric:0.2", train_size=train_size, noise_seed=seed)
    settings = settings.model_copy(update={"seed": seed})
    training = Training(dataset, settings)
    while not training.finished:
        last = training.run_epoch()
    loop = ReferenceLoop(dataset, settings)
    for _ in range(settings.epochs):
        loop.train_epoch()
    return {"nls_tune": float(last.test_accuracy or 0.0), "reference": loop.test_accuracy()}


def main() -> None:
    """Measure, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--train-size", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "same_quality.json")
    options = parser.parse_args()
    keep_freed_memory()
    settings = TrainingSettings(
        model="small_cnn", epochs=options.epochs, warmup_epochs=options.epochs // 3, warmup_lr=0.01, smooth_rate=-0.2,
        lr=0.01, schedule="cosine", crop_padding=4, flip=True,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        rows.append({"seed": seed, **accuracies(seed, options.train_size, settings)})
        print(
            f"seed {seed}: {100 * rows[-1]['nls_tune']:.2f} %, reference {100 * rows[-1]['reference']:.2f} %",
            flush=True,
        )
    found = sample_mean([row["nls_tune"] - row["reference"] for row in rows])
    print(
        f"difference {100 * found.mean:+.2f} points, 95 % interval [{100 * found.low:+.2f}, {100 * found.high:+.2f}] "
        f"over {found.num_seeds} seeds"
    )
    evidence = {
        "what": "test accuracy of the fast path minus that of the reference loop, CIFAR-10 with 20 % symmetric noise",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "settings": settings.model_dump(mode="json"),
        "precision": resolve_precision(settings.precision, torch.device("cpu"), images=True),
        "train_size": options.train_size,
        "rows": rows,
        "difference": {"mean": found.mean, "low": found.low, "high": found.high, "limit_points": LIMIT},
    }
    options.out.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
