"""Measures how many of the most suspicious labels are wrong, where human labels have clean ones beside them.

Run ``python benchmarks/suspects.py`` in the repository; ``NLS_TUNE_DATA`` names the folder with CIFAR and its human
labels. Networks that have not seen a sample say what it is, as ``nls-tune suspects`` lets them: cross-entropy at the
defaults of the space, their best epoch by noisy labels. From the same probabilities comes the estimate of the noise.
Clean labels are looked at afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nls_tune.machine.provenance import provenance
from nls_tune.noise.anchors import bracket, estimate_from_anchors
from nls_tune.noise.confident_learning import DEFAULT_FOLDS, estimate_transition
from nls_tune.noise.label_issues import find_label_issues
from nls_tune.plan.plan import make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.training.out_of_sample import predict_out_of_sample

SHARE = 0.1


def measure(dataset: str, noise: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the networks of one noise level and return what their predictions show."""
    given = {name: value for name in ("preset", "epochs", "train_size") if (value := getattr(arguments, name))}
    settings = check_search_settings(dataset=dataset, noise=(noise,), overrides=tuple(arguments.set), **given)
    plan = make_plan(settings, 0, progress=False)
    data, training = plan.levels[0].dataset, plan.training_settings(plan.space.default(smooth_rate=0.0))
    clean = data.clean_labels
    if clean is None:
        raise SystemExit(f"{dataset} has no clean labels")
    start = time.perf_counter()
    said = predict_out_of_sample(data, training, folds=arguments.folds, report=report)
    sys.stderr.write("\n")
    if arguments.keep:
        np.savez_compressed(arguments.keep / f"{dataset}_{noise.replace(':', '_')}.npz", **vars(said))
    return {
        "dataset": dataset,
        "noise_level": noise,
        "model": training.model,
        "preset": arguments.preset,
        "epochs": training.epochs,
        "folds": arguments.folds,
        "best_epochs": said.best_epochs,
        "seconds": round(time.perf_counter() - start),
        **finds(data.noisy_labels[said.rows], clean[said.rows], said.probabilities),
    }


def report(epochs: int) -> None:
    """Show the epochs that are done."""
    sys.stderr.write(f"\r{epochs} epochs")
    sys.stderr.flush()


def finds(noisy: NDArray[Any], clean: NDArray[Any], probabilities: NDArray[Any]) -> dict[str, Any]:
    """Return what is found among noisy labels (N,) by probabilities (N, K), against the clean ones."""
    wrong = noisy != clean
    issues = find_label_issues(noisy, probabilities)
    own = probabilities[np.arange(len(noisy)), noisy]
    others = probabilities.copy()
    others[np.arange(len(noisy)), noisy] = -1
    listed = np.zeros(len(noisy))
    listed[issues.indices] = 2  # before whatever is not listed
    anchors, upper = estimate_from_anchors(probabilities, noisy), estimate_transition(probabilities, noisy)
    return {
        "num_samples": len(noisy),
        "accuracy": float((probabilities.argmax(axis=1) == noisy).mean()),
        "wrong": float(wrong.mean()),
        "listed": len(issues),
        "listed_precision": float(wrong[issues.indices].mean()),
        "listed_recall": float(wrong[issues.indices].sum() / wrong.sum()),
        "suggested_right": float((issues.suggested == clean[issues.indices])[wrong[issues.indices]].mean()),
        "top_share": SHARE,
        "top_precision": float(wrong[issues.indices[: round(SHARE * len(noisy))]].mean()),
        "average_precision": {
            "listed first, then the label's probability": average_precision(wrong, listed - own),
            "the label's probability": average_precision(wrong, -own),
            "its margin to the most probable other class": average_precision(wrong, others.max(axis=1) - own),
        },
        "noise_rate": anchors.noise_rate,
        **bracket(anchors, upper)._asdict(),
    }


def average_precision(wrong: NDArray[np.bool_], scores: NDArray[Any]) -> float:
    """Return the area under the precision-recall curve: the mean precision at each wrong label."""
    order = np.argsort(-scores, kind="stable")
    hits = wrong[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def main() -> None:
    """Measure, print a line each and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--levels", nargs="+", default=["cifar10n/human:worst"], help="dataset/level")
    parser.add_argument("--preset", default=None, help="of the space")
    parser.add_argument("--epochs", type=int, default=None, help="per network (default: those of the space)")
    parser.add_argument("--train-size", type=int, default=None, help="(default: that of the space)")
    parser.add_argument("--set", nargs="*", default=[], help="settings, as of a search")
    parser.add_argument("--folds", type=int, default=DEFAULT_FOLDS)
    parser.add_argument("--keep", type=Path, help="a folder for the probabilities")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "suspects.json")
    arguments = parser.parse_args()
    before = json.loads(arguments.out.read_text())["measurements"] if arguments.out.exists() else []
    rows = {(row["dataset"], row["noise_level"], row["model"]): row for row in before}
    for level in arguments.levels:
        dataset, noise = level.split("/")
        row = measure(dataset, noise, arguments)
        row |= {"threads": torch.get_num_threads(), "load_average": round(os.getloadavg()[0], 2)}
        rows[row["dataset"], row["noise_level"], row["model"]] = row
        sys.stdout.write(f"{json.dumps(row)}\n")
        sys.stdout.flush()
        result = {
            "what": "labels that are probably wrong, against clean ones",
            "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": "suspects.py",
            **{key: value for key, value in provenance().items() if key in ("versions", "hardware")},
            "measurements": list(rows.values()),
        }
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
