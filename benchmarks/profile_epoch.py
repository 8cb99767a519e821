"""Shows where the time of an epoch goes: data, forward, loss, backward, optimiser, evaluation, checkpoint.

Run ``python benchmarks/profile_epoch.py`` in the repository; it takes about a minute. The parts are timed from
outside, by clock; on CUDA the device is waited for at every border, so that they add up, which costs the overlap that
a training otherwise has. Then torch's profiler says which operators take the longest.

(It is not called ``profile.py``, because that is a module of Python's own, which torch imports.)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from throughput import CPU_IMAGES, random_images
from throughput import settings_of as image_settings
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from nls_tune.datasets import load_dataset
from nls_tune.losses import ce as loss_module
from nls_tune.machine.provenance import provenance
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training import data as batches_module
from nls_tune.training import evaluation as evaluation_module
from nls_tune.training.augment import Augmentation
from nls_tune.training.devices import keep_freed_memory
from nls_tune.training.training import Training
from nls_tune.training.trial import CHECKPOINT_SECONDS

PARTS = ("gather", "crop and flip", "normalise", "forward", "loss", "backward", "optimiser", "evaluation", "rest")


class Parts:
    """Seconds of parts that may lie in one another; the inner one's are not counted in the outer one."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._device = device
        self._open: list[str] = ["rest"]
        self._since = self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _switch(self) -> None:
        now = self._now()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside for a part; within the evaluation everything is the evaluation's."""
        self._switch()
        self._open.append("evaluation" if "evaluation" in self._open else name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def finish(self) -> None:
        """Count what is open still."""
        self._switch()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time is counted for a part."""

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return wrapper

    def steps(self, name: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """The same for a generator: what it does between two of its items."""

        def wrapper(*args: Any, **kwargs: Any) -> Iterator[Any]:
            items = function(*args, **kwargs)
            while True:
                with self.part(name):
                    item = next(items, None)
                if item is None:
                    return
                yield item

        return wrapper


def parts_of_epoch(training: Training) -> dict[str, float]:
    """Train an epoch and return the seconds of every part."""
    parts = Parts(training.device)
    optimizer = training.optimizer
    with ExitStack() as stack:
        for owner, name, part in (
            (evaluation_module, "normalise", "normalise"),
            (batches_module, "normalise", "normalise"),
            (loss_module, "gls_loss", "loss"),
            (Augmentation, "apply", "crop and flip"),
            (torch.autograd, "backward", "backward"),
            (optimizer, "step", "optimiser"),
            (optimizer, "zero_grad", "optimiser"),
            (training.model, "forward", "forward"),
            (evaluation_module.Evaluator, "judge", "evaluation"),
        ):
            stack.enter_context(mock.patch.object(owner, name, parts.timed(part, getattr(owner, name))))
        stack.enter_context(
            mock.patch.object(training.source, "of_epoch", parts.steps("gather", training.source.of_epoch))
        )
        training.run_epoch()
    parts.finish()
    return parts.seconds


def on_device(rows: Iterable[Any]) -> list[Any]:
    """Return the rows of kernels, copies and memory settings: those of the operators that start them count them again.

    Args:
        rows: Of torch's profiler on CUDA; annotations, such as the optimiser's, span kernels that have their own rows.
    """
    return [row for row in rows if row.device_type == DeviceType.CUDA and not row.is_user_annotation]


def longest_operators(training: Training, count: int) -> list[dict[str, Any]]:
    """Profile an epoch and return the operators, on CUDA the kernels, that take the longest themselves."""
    cuda = training.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        training.run_epoch()
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    rows = on_device(profiler.key_averages()) if cuda else profiler.key_averages()
    total = sum(getattr(row, key) for row in rows)
    rows = sorted(rows, key=lambda row: -getattr(row, key))[:count]
    return [{"name": row.key, "calls": row.count, "share": getattr(row, key) / total} for row in rows]


def checkpoint_seconds(training: Training) -> float:
    """Return what one checkpoint takes, written to disk."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        TrialCheckpoint(Path(folder)).save(training.state_dict())
        return time.perf_counter() - start


def make_training(model: str, images: int, device: str) -> Training:
    """Return a training of ``mlp`` on Twonorm, or of an image network on random images with validation and test."""
    if model == "mlp":
        dataset = load_dataset("twonorm", "symmetric:0.4", noise_seed=0, split_seed=0)
        settings = TrainingSettings(model="mlp", epochs=1_000, smooth_rate=-1.0, lr=1e-3, weight_decay=0.05)
        return Training(dataset, settings, device)
    # As many images to evaluate as CIFAR has: 5,000 and 10,000 on 45,000.
    return Training(random_images(images, num_test=images // 6), image_settings(model, 128), device)


def measure(model: str, images: int, device: str, epochs: int) -> dict[str, Any]:
    """Profile one network."""
    training = make_training(model, images, device)
    training.run_epoch()
    measured = [parts_of_epoch(training) for _ in range(epochs)]
    parts = {name: statistics.median(row[name] for row in measured) for name in PARTS}
    checkpoint = checkpoint_seconds(training)
    return {
        "model": model,
        "train_samples": len(training.data.train_labels),
        "precision": training.precision,
        "epoch_seconds": sum(parts.values()),
        "seconds": parts,
        "share": {name: seconds / sum(parts.values()) for name, seconds in parts.items()},
        "checkpoint_seconds": checkpoint,
        # One is written every 30 s.
        "checkpoint_share": checkpoint / CHECKPOINT_SECONDS,
        "operators": longest_operators(training, 12),
    }


def readme_table(evidence: dict[str, Any]) -> list[str]:
    """Return the table of README, from the evidence."""
    rows = evidence["rows"]
    lines = [f"| share of an epoch, % | {' | '.join(row['model'] for row in rows)} |", "|---|" + "---|" * len(rows)]
    for part in PARTS:
        lines.append("| " + " | ".join([part, *(f"{100 * row['share'][part]:.1f}" for row in rows)]) + " |")
    checkpoints = [f"{100 * row['checkpoint_share']:.2f}" for row in rows]
    lines.append("| " + " | ".join(["checkpoint, of 30 s", *checkpoints]) + " |")
    return lines


def main() -> None:
    """Measure, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+", default=["small_cnn", "mlp"])
    parser.add_argument("--images", type=int, help="training images an epoch; by default a few seconds' worth")
    parser.add_argument("--epochs", type=int, default=9, help="to take the medians of")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "profile_epoch.json")
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)  # as a trial has it by default
        keep_freed_memory()
    else:
        torch.backends.cudnn.benchmark = True  # likewise
    rows = []
    for model in options.models:
        images = options.images or (CPU_IMAGES.get(model, 512) if options.device == "cpu" else 45_000)
        rows.append(measure(model, images, options.device, options.epochs))
    evidence = {
        "what": "where the time of an epoch goes",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "device": options.device,
        "cores": len(os.sched_getaffinity(0)),
        "rows": rows,
    }
    options.out.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")
    print("\n".join(readme_table(evidence)))
    for row in rows:
        print(f"{row['model']}, longest operators:")
        for operator in row["operators"]:
            print(f"  {100 * operator['share']:5.1f} % {operator['calls']:6d} x {operator['name']}")


if __name__ == "__main__":
    main()
