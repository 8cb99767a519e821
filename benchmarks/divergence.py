"""Counts trainings that diverge, with the clipping that the search spaces ship and without: the same ones, in pairs.

Run ``python benchmarks/divergence.py`` in the repository; it takes three quarters of an hour on one core.
Configurations are drawn at random from the whole space, with equal shares for cross-entropy and both signs of the
rate. That is harsher than a search, whose sampler leaves the places where trainings diverge. What clipping costs is
the test accuracy of the configuration with the highest noisy validation accuracy, with clipping less without.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice, product
from pathlib import Path
from typing import Any

import optuna
import torch

from nls_tune.datasets import NoisyDataset, load_source, make_noisy
from nls_tune.files import write_atomically
from nls_tune.machine.provenance import provenance
from nls_tune.noise import parse_noise_level
from nls_tune.spaces.reading import load_space
from nls_tune.spaces.space import Config, SearchSpace
from nls_tune.training.training import Training

EVIDENCE = Path(__file__).parent / "evidence" / "divergence.json"
#: Space, dataset, noise levels. ``own_features`` ships the same space as waveform.
SPACES = (
    ("digits", "digits", ("symmetric:0.2", "pairflip:0.3")),
    ("own_small_images", "digits", ("symmetric:0.2", "pairflip:0.3")),
    ("twonorm", "twonorm", ("clean", "symmetric:0.4")),
    ("waveform", "waveform", ("clean", "symmetric:0.4")),
)
ARMS = ("ce", "positive", "negative")
COUNTS = ("diverged", "diverged_unclipped")


def configurations(space: SearchSpace, arm: str, seed: int) -> Iterator[Config]:
    """Yield configurations of an arm, drawn at random on the scales of the space."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    arm_space = space.arm(arm)
    while True:
        yield arm_space.decode(study.ask(arm_space.distributions()).params)


def train(dataset: NoisyDataset, space: SearchSpace, config: Config, clip_norm: float, seed: int) -> Training:
    """Train a configuration to its end."""
    settings = space.settings(config, seed)
    training = Training(dataset, settings.model_copy(update={"clip_norm": clip_norm}))
    while not training.finished:
        training.run_epoch()
    return training


def best_of(trainings: list[Training]) -> float:
    """Return the test accuracy of the epoch with the highest validation accuracy among some trainings."""
    epochs = [epoch for training in trainings for epoch in training.history if not epoch.diverged]
    test = max(epochs, key=lambda epoch: epoch.val.accuracy).test
    if test is None:
        raise SystemExit("the dataset has no test set")
    return test.accuracy


def measure(space: SearchSpace, dataset: NoisyDataset, arm: str, number: int) -> dict[str, Any]:
    """Return how many trainings of an arm diverge with and without clipping, and what clipping costs, in points."""
    clip = space.fixed["clip_norm"]
    drawn = list(islice(configurations(space, arm, 0), number))
    clipped = [train(dataset, space, config, clip, seed) for seed, config in enumerate(drawn)]
    plain = [train(dataset, space, config, 0.0, seed) for seed, config in enumerate(drawn)]
    return {
        "trainings": number,
        **{
            key: sum(training.diverged for training in trainings)
            for key, trainings in zip(COUNTS, (clipped, plain), strict=True)
        },
        "gain": 100 * (best_of(clipped) - best_of(plain)),
    }


def readme_table(found: dict[str, Any]) -> list[str]:
    """Return a Markdown table with a row per space."""
    lines = [
        "| space | trainings | diverged | diverged without clipping | gain of clipping in test accuracy, points |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["space"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["space"] == name]
        total, clipped, plain = (sum(row[key] for row in rows) for key in ("trainings", *COUNTS))
        gain = statistics.fmean(row["gain"] for row in rows)
        lines.append(f"| {name} | {total} | {clipped} | {plain} | {gain:+.2f} |".replace("-", "−"))
    return lines


def main() -> None:
    """Measure, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=int, default=35, help="per arm and noise level")
    parser.add_argument("--out", type=Path, default=EVIDENCE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    for name, dataset, levels in SPACES:
        space, source = load_space(name), load_source(dataset)
        for level, arm in product(levels, ARMS):
            noisy = make_noisy(source, parse_noise_level(level), noise_seed=0, split_seed=0)
            found = measure(space, noisy, arm, arguments.trainings)
            rows.append({"space": name, "noise_level": level, "arm": arm, **found})
            print(json.dumps(rows[-1]), flush=True)
    content = {
        "what": "trainings of random configurations that diverge, with and without clipping; gain in points",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "command": "divergence.py",
        "rows": rows,
    }
    write_atomically(arguments.out, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
