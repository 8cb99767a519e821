"""Measures how well the noise is estimated from noisy labels alone and writes the evidence.

Run ``python benchmarks/noise_estimates.py`` in the repository; for CIFAR and its human labels ``NLS_TUNE_DATA`` names
the folder that holds them. Every estimate is what ``nls-tune estimate`` prints with the same flags: cross-entropy at
the defaults of the space, three folds, the best epoch by noisy labels. Truth is looked at afterwards. Estimates that
the evidence holds of other levels stay in it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
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

#: How near an estimate is to be.
TARGET = 0.05
LEVELS = ("digits/clean", "digits/symmetric:0.2", "digits/symmetric:0.4")
EVIDENCE = Path(__file__).parent / "evidence" / "noise_estimates.json"


def estimate(level: str, seed: int, arguments: argparse.Namespace) -> NoiseEstimate:
    """Return the estimate of a noise level, ``dataset/level``; the seed is that of noise, split and training."""
    dataset, noise = level.split("/")
    given = {name: value for name in ("preset", "epochs", "train_size") if (value := getattr(arguments, name))}
    settings = check_search_settings(dataset=dataset, noise=(noise,), seed=seed, noise_seed=seed, **given)
    plan = make_plan(settings, 0, progress=False)
    return estimate_level(plan, plan.levels[0], progress=False)


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
        "target": TARGET,
        "met": estimate.is_weak or abs(error) <= TARGET,
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
    parser.add_argument("--levels", nargs="+", default=LEVELS, help="dataset/level")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--preset", default="cpu", help="of the space")
    parser.add_argument("--epochs", type=int, default=None, help="per network (default: those of the space)")
    parser.add_argument("--train-size", type=int, default=None, help="(default: that of the space)")
    parser.add_argument("--out", type=Path, default=EVIDENCE)
    arguments = parser.parse_args()
    before = json.loads(arguments.out.read_text())["measurements"] if arguments.out.exists() else []
    rows = {(one["dataset"], one["noise_level"], one["seed"]): one for one in before}
    for level in arguments.levels:
        for seed in arguments.seeds:
            one = {"seed": seed, **row(estimate(level, seed, arguments)), "threads": torch.get_num_threads()}
            rows[one["dataset"], one["noise_level"], seed] = one
            show(one)
            result = {
                "what": "noise rate and transition matrix from noisy labels alone against the truth",
                "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": "noise_estimates.py",
                **provenance(),
                "load_average": round(os.getloadavg()[0], 2),
                "measurements": list(rows.values()),
            }
            # After each: what is measured is kept if a later one is cut short.
            arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
