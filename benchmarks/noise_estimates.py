"""Measures how well the noise is estimated from noisy labels alone and writes the evidence.

Run ``python benchmarks/noise_estimates.py`` in the repository; ``NLS_TUNE_DATA`` names the folder with CIFAR-10 and its
human labels, and without it that part is left out (``--skip-cifar`` does the same). Every estimate is what ``nls-tune
estimate`` prints with the same flags: cross-entropy at the defaults of the space, three folds, the best epoch by noisy
labels. Truth is looked at afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nls_tune.machine.provenance import provenance
from nls_tune.noise.confident_learning import NoiseEstimate
from nls_tune.plan.plan import make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.session.estimating import estimate_level

TARGET = 0.05
SEEDS = (0, 1)
DIGITS = ("clean", "symmetric:0.2", "symmetric:0.4")
CIFAR = ("human:aggre", "human:worst")
BIAS = (
    "a model that errs where it is surest makes the estimate too high; where that shows, it is called too weak",
    "where people err on the samples that models find hard the surest ones have less noise: too low",
    "the upper end is what confident learning finds, which takes the models' errors for noise",
)


def estimates(skip_cifar: bool, cifar_size: int) -> Iterator[tuple[int, NoiseEstimate]]:
    """Yield one estimate after another, and its seed."""
    for seed in SEEDS:
        for estimate in levels("digits", DIGITS, seed, None):
            yield seed, estimate
    if not skip_cifar and os.environ.get("NLS_TUNE_DATA"):
        for estimate in levels("cifar10n", CIFAR, 0, cifar_size):
            yield 0, estimate


def levels(dataset: str, noise: tuple[str, ...], seed: int, train_size: int | None) -> Iterator[NoiseEstimate]:
    """Yield the estimate of each noise level of a dataset; the seed is that of noise, split and training."""
    settings = check_search_settings(
        dataset=dataset, noise=noise, seed=seed, noise_seed=seed, train_size=train_size, preset="cpu"
    )
    plan = make_plan(settings, 0, progress=False)
    for level in plan.levels:
        yield estimate_level(plan, level, progress=False)


def row(estimate: NoiseEstimate) -> dict[str, Any]:
    """Return the evidence of one estimate; matrices are summarised by how far they are from the truth."""
    values = asdict(estimate)
    matrix, truth = np.array(values.pop("matrix")), np.array(values.pop("true_matrix"))
    error = estimate.noise_rate - float(values["true_noise_rate"])
    return {
        **values,
        "error": error,
        "interval_holds_truth": bool(estimate.low <= values["true_noise_rate"] <= estimate.high),
        "matrix_error": {
            "mean": float(np.abs(matrix - truth).mean()),
            "largest": float(np.abs(matrix - truth).max()),
        },
        "diagonal": {"estimated": np.diag(matrix).tolist(), "true": np.diag(truth).tolist()},
        **({"target": TARGET, "met": abs(error) <= TARGET} if estimate.dataset == "digits" else {}),
    }


def show(one: dict[str, Any]) -> None:
    """Print one estimate as a line."""
    weak = " too weak" if one["is_weak"] else ""
    sys.stdout.write(
        f"{one['dataset']:<10}{one['noise_level']:<15}{one['num_samples']:>7} samples  "
        f"estimated {one['noise_rate']:.3f} "
        f"[{one['low']:.3f}, {one['high']:.3f}]{weak}  true {one['true_noise_rate']:.3f}  error {one['error']:+.3f}  "
        f"{one['seconds']:.0f} s\n"
    )
    sys.stdout.flush()


def main() -> None:
    """Estimate, print a line each and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--skip-cifar", action="store_true", help="digits only")
    parser.add_argument(
        "--cifar-size", type=int, default=5_000, help="CIFAR training samples, besides 5,000 of validation"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "evidence" / "noise_estimates.json",
        help="where the evidence goes (default: benchmarks/evidence/noise_estimates.json)",
    )
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "what": "noise rate and transition matrix from noisy labels alone against the truth",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "threads": torch.get_num_threads(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "bias": BIAS,
        "measurements": [],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for seed, estimate in estimates(arguments.skip_cifar, arguments.cifar_size):
        result["measurements"].append({"seed": seed, **row(estimate)})
        show(result["measurements"][-1])
        # After each: what is measured is kept if a later one is cut short.
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
