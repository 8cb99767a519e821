"""Measures whether the fast path trains as well as the loop that everybody writes first: test accuracy, seed by seed.

Run ``python benchmarks/same_quality.py`` in the repository with the real CIFAR-10 (``NLS_TUNE_DATA``); a seed takes one
to five minutes of a core. Both train the same configuration on the same images and labels for the same epochs. With
``--draws shared`` (default) the loop starts from the fast path's initial weights, visits the samples in its order and
crops and flips them, with torchvision's transforms, as it does: a pair differs only in how it computes, so few seeds
say much. With ``--draws own`` each draws these in its own way, and a pair shares its labels and images alone. The
interval is that of a paired t test. Seeds that the evidence file has already, with the same settings, are not trained
again.

``--precision bfloat16`` on a processor without its instructions takes the products of bfloat16 numbers in float32 and
rounds them, which is what the instructions do: torch's own way there is ten times as slow.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from reference_loop import ReferenceLoop
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from nls_tune.analysis.statistics import sample_mean
from nls_tune.datasets import NoisyDataset, load_dataset
from nls_tune.machine.provenance import provenance
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.augment import AugmentationDraws
from nls_tune.training.devices import keep_freed_memory, resolve_precision
from nls_tune.training.training import Training

#: The interval of the paired difference must lie within this many points of 0.
LIMIT = 1.0
#: At batches of 128, in both phases.
LEARNING_RATES = {"small_cnn": 0.01, "fast_cnn": 0.1}
EVIDENCE = Path(__file__).parent / "evidence"


class FloatProducts(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's
    """Takes products and convolutions of bfloat16 tensors in float32 and rounds what comes out."""

    _NAMES = frozenset({"aten::convolution", "aten::convolution_backward", "aten::mm", "aten::addmm", "aten::bmm"})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name not in self._NAMES or not any(_is_bfloat16(value) for value in args):
            return func(*args, **kwargs)
        args = tree_map_only(Tensor, lambda t: t.float() if _is_bfloat16(t) else t, args)
        return tree_map_only(Tensor, lambda t: t.to(torch.bfloat16), func(*args, **kwargs))


def _is_bfloat16(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16


def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 numbers itself."""
    return resolve_precision("auto", torch.device("cpu"), images=True) == "bfloat16"


class DrawnImages(Dataset[tuple[Tensor, int]]):
    """The training images of an epoch in the order and with the crops and flips of another training's.

    Args:
        dataset: Images with noisy labels.
        padding: Of the crops.
        tail: What follows them.

    Attributes:
        order: Which training samples, (N,), and
        draws: how they are cropped and flipped, of the epoch that is read next.
    """

    order: Tensor
    draws: AugmentationDraws

    def __init__(self, dataset: NoisyDataset, padding: int, tail: v2.Transform) -> None:
        self._images = dataset.inputs[dataset.train_indices].transpose(0, 2, 3, 1)
        self._labels = dataset.noisy_labels[dataset.train_indices]
        self._padding, self._side, self._tail = padding, dataset.input_shape[-1], tail

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        if position >= len(self):
            raise IndexError(position)
        index = int(self.order[position])
        image = v2.functional.pad(Image.fromarray(self._images[index]), [self._padding])
        y, x = int(self.draws.crop_y[position]), int(self.draws.crop_x[position])
        image = v2.functional.crop(image, y, x, self._side, self._side)
        if self.draws.flip[position]:
            image = v2.functional.horizontal_flip(image)
        return self._tail(image), int(self._labels[index])


class SharedDrawsLoop(ReferenceLoop):
    """The reference loop with the initial weights, orders, crops and flips of a training that has not begun."""

    def __init__(self, training: Training, dataset: NoisyDataset) -> None:
        super().__init__(dataset, training.settings, workers=0)
        self._training = training
        self.model.load_state_dict(training.model.state_dict())
        self.optimizer = self._new_optimizer(self.settings.learning_rate(1))
        self.images = DrawnImages(dataset, self.settings.crop_padding, self.tail)
        self.train_loader = DataLoader(self.images, batch_size=self.settings.batch_size)

    def train_epoch(self) -> float:
        """Train the next epoch; returns the mean loss."""
        order, draws = self._training.source.draw(self.epoch + 1, self._training.generator)
        if draws is None:
            raise ValueError("shared draws are for images, and this dataset has none")
        self.images.order, self.images.draws = order, draws
        return super().train_epoch()


def accuracies(seed: int, draws: str, train_size: int, settings: TrainingSettings) -> dict[str, Any]:
    """Train both with one seed, on one thread; returns their test accuracies after the last epoch."""
    torch.set_num_threads(1)
    keep_freed_memory()
    dataset = load_dataset("cifar10", "symmetric:0.2", train_size=train_size, noise_seed=seed)
    settings = settings.model_copy(update={"seed": seed})
    # Only the last epoch's test accuracy counts: the evaluations of the others would be half of the work.
    unevaluated = replace(dataset, val_indices=dataset.val_indices[:1], test_inputs=None, test_labels=None)
    training = Training(unevaluated, settings)
    loop = SharedDrawsLoop(training, dataset) if draws == "shared" else ReferenceLoop(dataset, settings, workers=0)
    emulated = training.precision == "bfloat16" and not has_bfloat16()
    with FloatProducts() if emulated else nullcontext():  # type: ignore[no-untyped-call] # torch's
        while not training.finished:
            training.run_epoch()
        fast = test_accuracy(training, dataset)
    for _ in range(settings.epochs):
        loop.train_epoch()
    return {"seed": seed, "nls_tune": fast, "reference": loop.test_accuracy()}


def test_accuracy(training: Training, dataset: NoisyDataset) -> float:
    """Return the accuracy of a training, as it is now, on the clean test set."""
    if dataset.test_inputs is None or dataset.test_labels is None:
        raise ValueError("the quality is that on a test set, and this dataset has none")
    predicted = training.predict_probabilities(torch.from_numpy(dataset.test_inputs)).argmax(1).numpy()
    return float(np.mean(predicted == dataset.test_labels))


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
    parser.add_argument("--draws", choices=("shared", "own"), default="shared")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--model", choices=("small_cnn", "fast_cnn"), default="small_cnn")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--train-size", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--out", type=Path, help="by default a file for each network, kind of draws and precision")
    options = parser.parse_args()
    lr = LEARNING_RATES[options.model]
    settings = TrainingSettings(
        model=options.model, epochs=options.epochs, warmup_epochs=options.epochs // 3, warmup_lr=lr, smooth_rate=-0.2,
        lr=lr, schedule="cosine", crop_padding=4, flip=True, precision=options.precision,
    )  # fmt: skip
    precision = resolve_precision(settings.precision, torch.device("cpu"), images=True)
    same = {
        "draws": options.draws,
        "precision": precision,
        "has_bfloat16_instructions": has_bfloat16(),
        "train_size": options.train_size,
        "settings": settings.model_dump(mode="json"),
    }
    network = "" if options.model == "small_cnn" else f"_{options.model}"
    out = options.out or EVIDENCE / f"same_quality{network}_{options.draws}_{precision}.json"
    rows = [row for row in known_rows(out, same) if row["seed"] < options.seeds]
    missing = sorted(set(range(options.seeds)) - {row["seed"] for row in rows})
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        running = [pool.submit(accuracies, seed, options.draws, options.train_size, settings) for seed in missing]
        for done in as_completed(running):
            row = done.result()
            rows = sorted([*rows, row], key=lambda r: int(r["seed"]))
            fast, slow = 100 * row["nls_tune"], 100 * row["reference"]
            print(f"seed {row['seed']}: {fast:.2f} %, reference {slow:.2f} %", flush=True)
            if len(rows) > 1:
                out.write_text(json.dumps(evidence(rows, same), indent=1) + "\n", encoding="utf-8")
    found = sample_mean([row["nls_tune"] - row["reference"] for row in rows])
    print(
        f"difference {100 * found.mean:+.2f} points, 95 % interval [{100 * found.low:+.2f}, {100 * found.high:+.2f}] "
        f"over {found.num_seeds} seeds"
    )


def readme_table(evidences: list[dict[str, Any]]) -> list[str]:
    """Return README's table: a row for each piece of evidence."""
    lines = [
        "| network | initial weights, order, crops | precision | seeds | points of test accuracy (95 %) |",
        "|---|---|---|---|---|",
    ]
    for found in evidences:
        rows, difference = found["rows"], found["difference"]
        mean, low, high = (f"{100 * difference[key]:+.2f}".replace("-", "−") for key in ("mean", "low", "high"))
        draws = {"shared": "the same", "own": "each its own"}[found["draws"]]
        network = found["settings"]["model"]
        lines.append(f"| {network} | {draws} | {found['precision']} | {len(rows)} | {mean} [{low}, {high}] |")
    return lines


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
