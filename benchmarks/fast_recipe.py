"""Trains the fast networks on whole training sets: accuracy against time and arithmetic, plain and averaged weights.

Run ``python benchmarks/fast_recipe.py --minutes 60 --threads 2`` in the repository, again and again: it goes on
where it was stopped, epoch by epoch, and writes a row of ``evidence/fast_recipe.json`` (``--out``) when a training
ends. A row says on which processor it ran. ``--only TEXT`` takes the trainings whose name holds the text,
``--list`` shows all of them.

The recipe is that of the dataset's search space, cross-entropy unless the name says otherwise. Validation takes a tenth
of the noisy labels, as in a search; where the name ends in ``all`` these are trained on too. The test set decides
nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from platformdirs import user_cache_path
from torch.utils.flop_counter import FlopCounterMode

from nls_tune.datasets import load_source, make_noisy
from nls_tune.files import write_atomically
from nls_tune.machine.provenance import cpu_name, provenance
from nls_tune.metrics import Judging, ReadoutScore
from nls_tune.noise import parse_noise_level
from nls_tune.spaces.reading import load_space
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.devices import keep_freed_memory
from nls_tune.training.models import build_model
from nls_tune.training.training import Training

EVIDENCE = Path(__file__).parent / "evidence" / "fast_recipe.json"
SEEDS = range(5)


class Job(NamedTuple):
    """A training."""

    dataset: str
    noise_level: str
    model: str
    epochs: int
    smooth_rate: float
    warmup_epochs: int
    seed: int
    all_labels: bool = False

    @property
    def name(self) -> str:
        """The name of its row and of its saved state."""
        rate = "ce" if self.smooth_rate == 0 else f"r{self.smooth_rate:g}-after{self.warmup_epochs}"
        on_all = "-all" if self.all_labels else ""
        level = self.noise_level.replace(":", "")
        return f"{self.dataset}-{level}-{self.model}-{self.epochs}-{rate}-seed{self.seed}{on_all}"


def jobs() -> list[Job]:
    """Return all trainings, the cheapest questions first, seed by seed."""
    levels = [("cifar10n", "human:worst"), ("cifar100n", "human:noisy"), ("cifar10", "clean")]
    lengths = {"fast_cnn_small": 10, "fast_cnn": 10, "fast_cnn_large": 15}
    found = [
        Job(*level, model, epochs, 0.0, 0, seed)
        for model, epochs in lengths.items()
        for seed in SEEDS
        for level in levels
    ]
    rates = [(0.2, 4), (-0.25, 4)]
    found += [
        Job(*level, "fast_cnn_small", 10, *rate, seed) for seed in SEEDS for level in levels[:2] for rate in rates
    ]
    # On all labels, with as many epochs as 0.4 and 0.5 PFLOP allow.
    found += [Job("cifar10", "clean", "fast_cnn", 11, 0.0, 0, seed, True) for seed in SEEDS]
    found += [Job("cifar10n", "human:worst", "fast_cnn", 14, 0.0, 0, seed, True) for seed in SEEDS]
    return sorted(found, key=lambda job: (list(lengths).index(job.model), job.seed))


def settings_of(job: Job) -> TrainingSettings:
    """Return the recipe of the search space with what the job changes."""
    space = load_space(job.dataset, epochs=job.epochs)
    config = space.default(smooth_rate=job.smooth_rate, warmup_epochs=job.warmup_epochs)
    return space.settings(config, job.seed).model_copy(update={"model": job.model})


def train(job: Job, state_folder: Path, end: float) -> Training | None:
    """Train until the end; None where the time is over before. The state is saved after every epoch."""
    source = load_source(job.dataset, data_dir=None)
    dataset = make_noisy(source, parse_noise_level(job.noise_level), split_seed=job.seed)
    dataset = dataset.on_all_labels() if job.all_labels else dataset
    training = Training(dataset, settings_of(job), judging=Judging(mirror=True))
    file = state_folder / f"{job.name}.pt"
    if file.exists():
        training.load_state_dict(torch.load(file, weights_only=True))
    while not training.finished:
        longest = max((metrics.seconds for metrics in training.history), default=0.0)
        if time.monotonic() + longest > end:
            return None
        metrics = training.run_epoch()
        print(f"{job.name} epoch {metrics.epoch}: val {metrics.val_accuracy:.4f}, {metrics.seconds:.0f} s", flush=True)
        torch.save(training.state_dict(), file.with_suffix(".tmp"))
        file.with_suffix(".tmp").rename(file)
    return training


def paper_pflop() -> float:
    """Return the arithmetic of a training of the paper's code in PFLOP: ResNet-34, its warm-up and its rate."""
    space = load_space("cifar10n", preset="paper")
    return pflop(space.settings(space.default(), 0), 10, 50_000)


def pflop(settings: TrainingSettings, num_classes: int, images: int) -> float:
    """Return the arithmetic of a training in PFLOP: three times that of the forward pass of every image."""
    model = build_model(settings.model, num_classes=num_classes, input_shape=(3, 32, 32))
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, 32, 32))
    return float(3 * counter.get_total_flops() * images * settings.epochs / 1e15)


def _score(score: ReadoutScore | None) -> dict[str, Any] | None:
    if score is None:
        return None
    test = None if score.test is None else score.test.accuracy
    return {"readout": score.readout, "epoch": score.epoch, "val_accuracy": score.val.accuracy, "test_accuracy": test}


def row(job: Job, training: Training) -> dict[str, Any]:
    """Return what a training reached."""
    plain, average = training.readouts.scores(training.history)
    images = len(training.data.train_labels)
    return {
        **job._asdict(),
        "images": images,
        "diverged": training.diverged,
        "plain": _score(plain),
        "average": _score(average),
        "mirrored_test_accuracy": training.readouts.mirrored(training.epoch),
        "pflop": pflop(training.settings, training.num_classes, images),
        "train_seconds": sum(metrics.seconds for metrics in training.history),
        "threads": torch.get_num_threads(),
        "precision": training.precision,
        "cpu": cpu_name(),
    }


def readme_table(found: dict[str, Any]) -> list[str]:
    """Return a Markdown table with a row for the seeds of a training on one kind of processor."""
    lines = [
        "| data | network, epochs | loss | seeds | weights | averaged | with the mirrored view | PFLOP | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [{"all_labels": False, **row} for row in found["rows"].values()]
    for same in dict.fromkeys(_kind(row) for row in rows):
        seeds = [row for row in rows if _kind(row) == same]
        one = seeds[0]
        rate = "cross-entropy" if one["smooth_rate"] == 0 else f"r {one['smooth_rate']:g}".replace("-", "−")
        labels = ", all labels" if one["all_labels"] else ""
        tests = (
            [row["plain"]["test_accuracy"] for row in seeds],
            [row["average"] and row["average"]["test_accuracy"] for row in seeds],
            [row["mirrored_test_accuracy"] for row in seeds],
        )
        minutes = statistics.median(row["train_seconds"] for row in seeds) / 60
        lines.append(
            f"| {one['dataset']}, `{one['noise_level']}`{labels} | {one['model']}, {one['epochs']} | {rate} "
            f"| {len(seeds)} | {' | '.join(map(_mean, tests))} | {one['pflop']:.2f} "
            f"| {minutes:.0f} in {one['precision']} |"
        )
    return lines


def _kind(row: dict[str, Any]) -> tuple[Any, ...]:
    """What the rows of a training have in common, whatever their seed."""
    return tuple(row[key] for key in (*(key for key in Job._fields if key != "seed"), "precision"))


def _mean(values: list[float | None]) -> str:
    """The mean of accuracies in percent, and of several the standard deviation."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    spread = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.2f}{spread}"


def main() -> None:
    """Train what is missing, and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--out", type=Path, default=EVIDENCE)
    parser.add_argument("--states", type=Path, default=user_cache_path("nls_tune") / "fast_recipe")
    arguments = parser.parse_args()
    out: Path = arguments.out
    end = time.monotonic() + 60 * arguments.minutes
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.exists() else {}
    missing = [job for job in jobs() if job.name not in rows and arguments.only in job.name]
    if arguments.list:
        print(*(job.name for job in missing), sep="\n")
        return
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    arguments.states.mkdir(parents=True, exist_ok=True)
    for job in missing:
        training = train(job, arguments.states, end)
        if training is None:
            break
        # Read again: another process may have written its own.
        rows = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.exists() else {}
        rows[job.name] = row(job, training)
        content = {
            "what": "fast networks on whole training sets: accuracy, seconds and arithmetic of each training",
            "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            **provenance(),
            "command": "fast_recipe.py",
            "rows": rows,
        }
        write_atomically(out, (json.dumps(content, indent=1) + "\n").encode())
        (arguments.states / f"{job.name}.pt").unlink()


if __name__ == "__main__":
    main()
