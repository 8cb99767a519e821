"""Measures what averaged weights gain when they are judged beside the weights: the same trainings, in pairs.

Run ``python benchmarks/averages.py`` in the repository; on one core it takes a quarter of an hour for the small
datasets, and as long for images on a processor that computes bfloat16 (``--only cifar``; rows of other levels stay in
the file). Trainings are those of the search spaces at two learning rates, for images those of the preset ``quick`` at
its own. The learning rate, the epoch, and whether to take the weights or an average of them, are chosen by noisy
validation; what is reported is the test accuracy of that choice minus that of the choice without averages, in points,
with a 95 % interval over the seeds. Every seed has its own split, and its own noise where people did not make it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from nls_tune.datasets import NoisyDataset, load_source, make_noisy
from nls_tune.files import write_atomically
from nls_tune.machine.provenance import cpu_name, provenance
from nls_tune.metrics import ReadoutScore
from nls_tune.noise import parse_noise_level
from nls_tune.spaces.reading import load_space
from nls_tune.spaces.space import SearchSpace
from nls_tune.training.devices import keep_freed_memory
from nls_tune.training.training import Training

EVIDENCE = Path(__file__).parent / "evidence" / "averages.json"
LEVELS = (
    ("digits", "symmetric:0.4"),
    ("digits", "pairflip:0.3"),
    ("waveform", "symmetric:0.4"),
    ("twonorm", "symmetric:0.4"),
    ("cifar10n", "human:worst"),
    ("cifar100n", "human:noisy"),
)
RATES = (0.0, 0.5, -0.5)
LEARNING_RATES = (3e-3, 3e-2)


#: Trained as the preset of few and small trainings does.
QUICK = ("cifar10n", "cifar100n")


def space_of(name: str) -> SearchSpace:
    """Return the search space of a dataset."""
    return load_space(name, preset="quick" if name in QUICK else None)


def measure(dataset: NoisyDataset, name: str, rate: float, seed: int) -> dict[str, Any]:
    """Return the test accuracy of what is chosen without averages and with them, and its readout."""
    space = space_of(name)
    own = space.default(smooth_rate=rate)
    plain, every = list[ReadoutScore](), list[ReadoutScore]()
    for lr in (own["lr"],) if name in QUICK else LEARNING_RATES:
        training = Training(dataset, space.settings({**own, "lr": lr}, seed))
        while not training.finished:
            training.run_epoch()
        found = training.readouts.scores(training.history)
        plain += [score for score in found[:1] if score is not None]
        every += [score for score in found if score is not None]
    # The weights as they are come first: they are taken on ties.
    without, chosen = (max(scores, key=lambda score: score.val.accuracy) for scores in (plain, every))
    before, after = (None if score.test is None else score.test.accuracy for score in (without, chosen))
    return {"without": before, "chosen": after, "readout": chosen.readout}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean gain of some pairs in points, half of its 95 % interval, and how often an average was taken."""
    gains = [100 * (row["chosen"] - row["without"]) for row in rows]
    half = stats.t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / len(gains) ** 0.5
    averaged = sum(row["readout"] != "plain" for row in rows)
    return {"gain": statistics.fmean(gains), "half_interval": float(half), "averaged": averaged, "pairs": rows}


def readme_table(found: dict[str, Any]) -> list[str]:
    """Return a Markdown table with a row per noise level and rate."""
    lines = ["| level | rate | gain, points | an average taken |", "|---|---|---|---|"]
    for row in found["rows"]:
        gain, half = row["gain"], row["half_interval"]
        ends = f"{gain:+.2f} [{gain - half:+.2f}, {gain + half:+.2f}]"
        rate = f"{row['smooth_rate']:g}" if row["smooth_rate"] else "cross-entropy"
        taken = f"{row['averaged']} of {len(row['pairs'])}"
        shown = f"| {row['dataset']}, `{row['noise_level']}` | {rate} | {ends} | {taken} |"
        lines.append(shown.replace("-0.5", "−0.5").replace(" -", " −").replace("[-", "[−"))
    return lines


def main() -> None:
    """Measure, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="datasets whose name holds the text")
    parser.add_argument("--out", type=Path, default=EVIDENCE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for name, level in LEVELS:
        if arguments.only not in name:
            continue
        source, size = load_source(name), space_of(name).budget.train_size
        noisy = [
            make_noisy(source, parse_noise_level(level), train_size=size, noise_seed=seed, split_seed=seed)
            for seed in range(arguments.seeds)
        ]
        for rate in RATES:
            found = summary([measure(dataset, name, rate, seed) for seed, dataset in enumerate(noisy)])
            rows.append({"dataset": name, "noise_level": level, "smooth_rate": rate, "cpu": cpu_name(), **found})
            gain = f"{found['gain']:+.2f} ± {found['half_interval']:.2f}"
            print(f"{name} {level} r = {rate:g}: {gain} points, an average taken in {found['averaged']}", flush=True)
    known = json.loads(arguments.out.read_text(encoding="utf-8"))["rows"] if arguments.out.exists() else []
    rows += [row for row in known if arguments.only not in row["dataset"]]
    rows.sort(key=lambda row: LEVELS.index((row["dataset"], row["noise_level"])))
    content = {
        "what": "test accuracy with averaged weights judged beside the weights, less that without, in pairs; points",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "command": "averages.py",
        "rows": rows,
    }
    write_atomically(arguments.out, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
