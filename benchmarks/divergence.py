"""Counts trainings that diverge with the clipping that the search spaces ship, and what clipping costs.

Run ``python benchmarks/divergence.py`` in the repository; it takes an hour on one core, and ``--spaces`` counts some.
Configurations are drawn at random from the whole space, with equal shares for cross-entropy and both signs of the
rate. That is harsher than a search, whose sampler leaves the places where trainings diverge. Some are trained without
clipping too: what it costs is the test accuracy at the best epoch by noisy validation, with clipping less without,
over the pairs of which neither diverges.
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

from nls_tune.analysis.statistics import sample_mean
from nls_tune.datasets import NoisyDataset, load_source, make_noisy
from nls_tune.files import write_atomically
from nls_tune.machine.provenance import provenance
from nls_tune.noise import parse_noise_level
from nls_tune.spaces.reading import load_space
from nls_tune.spaces.space import Config, SearchSpace
from nls_tune.training.training import Training

EVIDENCE = Path(__file__).parent / "evidence" / "divergence.json"
#: Noise levels by space, which has the name of its dataset. ``own_features`` ships the same space as waveform.
SPACES = {
    "digits": ("symmetric:0.2", "pairflip:0.3"),
    "twonorm": ("clean", "symmetric:0.4"),
    "waveform": ("clean", "symmetric:0.4"),
}
ARMS = ("ce", "positive", "negative")


def configurations(space: SearchSpace, arm: str, seed: int) -> Iterator[Config]:
    """Yield configurations of an arm, drawn at random on the scales of the space."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    arm_space = space.arm(arm)
    while True:
        yield arm_space.decode(study.ask(arm_space.distributions()).params)


def train(dataset: NoisyDataset, space: SearchSpace, config: Config, seed: int, **changes: Any) -> Training:
    """Train a configuration to its end, with other settings where asked for."""
    training = Training(dataset, space.settings(config, seed).model_copy(update=changes))
    while not training.finished:
        training.run_epoch()
    return training


def reached(training: Training) -> float:
    """Return the test accuracy of the epoch with the highest validation accuracy."""
    test = max(training.history, key=lambda epoch: epoch.val.accuracy).test
    if test is None:
        raise SystemExit("the dataset has no test set")
    return test.accuracy


def measure(space: SearchSpace, dataset: NoisyDataset, arm: str, number: int, pairs: int) -> dict[str, Any]:
    """Return how many trainings of an arm diverge with clipping, and the pairs of some with those without."""
    drawn = list(islice(configurations(space, arm, 0), number))
    clipped = [train(dataset, space, config, seed) for seed, config in enumerate(drawn)]
    plain = [train(dataset, space, config, seed, clip_norm=0.0) for seed, config in enumerate(drawn[:pairs])]
    both = [pair for pair in zip(clipped, plain, strict=False) if not any(one.diverged for one in pair)]
    return {
        "trainings": number,
        "diverged": sum(training.diverged for training in clipped),
        "unclipped": pairs,
        "diverged_unclipped": sum(training.diverged for training in plain),
        "gains": [100 * (reached(with_clipping) - reached(without)) for with_clipping, without in both],
    }


def readme_table(found: dict[str, Any]) -> list[str]:
    """Return a Markdown table with a row per space."""
    lines = [
        "| space | diverged | diverged without clipping | gain of clipping in test accuracy, points |",
        "|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["space"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["space"] == name]
        counts = {key: sum(row[key] for row in rows) for key in rows[0] if isinstance(rows[0][key], int)}
        gain = sample_mean([gain for row in rows for gain in row["gains"]])
        lines.append(
            f"| {name} | {counts['diverged']} of {counts['trainings']} "
            f"| {counts['diverged_unclipped']} of {counts['unclipped']} "
            f"| {gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}] |".replace("-", "−")
        )
    return lines


def main() -> None:
    """Measure, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES), help="rows of others stay")
    parser.add_argument("--trainings", type=int, default=34, help="per arm and noise level")
    parser.add_argument("--pairs", type=int, default=10, help="of them, trained without clipping too")
    parser.add_argument("--out", type=Path, default=EVIDENCE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in arguments.spaces:
        space, source, rows = load_space(name), load_source(name), []
        for level, arm in product(SPACES[name], ARMS):
            noisy = make_noisy(source, parse_noise_level(level), noise_seed=0, split_seed=0)
            found = measure(space, noisy, arm, arguments.trainings, arguments.pairs)
            rows.append({"space": name, "noise_level": level, "arm": arm, **found})
            mean = statistics.fmean(found["gains"] or [0.0])
            print(f"{name} {level} {arm}: {found['diverged']} diverged, gain {mean:+.2f}", flush=True)
        # Read again: another process may have written its own.
        before = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
        rows += [row for row in before if row["space"] != name]
        content = {
            "what": "trainings of random configurations that diverge, and what clipping gains in test accuracy, points",
            "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            **provenance(),
            "command": "divergence.py",
            "rows": sorted(rows, key=lambda row: list(SPACES).index(row["space"])),
        }
        write_atomically(arguments.out, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
