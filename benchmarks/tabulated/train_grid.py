"""Trains every point of a grid once, so that searches can be replayed on it in milliseconds.

Run ``python benchmarks/tabulated/train_grid.py twonorm`` (or another name of ``GRIDS``) in the repository. Every piece,
a noise level and a seed, is kept as soon as it is done, so an interrupted run goes on where it was. Seed s draws
the noise, the split and the training anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path(__file__).parent
PAPER_RATES = (0.8, 0.6, 0.4, 0.2, 0.0, -0.2, -0.4, -0.6, -0.8, -1.0, -2.0, -4.0, -6.0, -8.0)
SYMMETRIC = ("symmetric:0.0", "symmetric:0.2", "symmetric:0.4")


@dataclass(frozen=True)
class Grid:
    """What is tabulated of a dataset.

    Attributes:
        dataset: Its name, if it is not the name of the table.
        data_seed: One seed of noise and split for all; None: each seed draws them anew.
        levels: Noise levels.
        rates: Smooth rates.
        warmups: Warm-up epochs.
        lrs: Learning rates of the GLS phase.
        seeds: One draw of noise, split and training each.
        overrides: Changes of the shipped search space (its preset ``cpu``), as ``--set`` takes them.
        val_fraction: Share of the labelled samples that validates; None for the dataset's default.
        num_val: Validation samples to keep; None for all.
        num_test: Test samples to keep, two halves; None for all.
        train_size: Training samples; None for all.
    """

    dataset: str = ""
    data_seed: int | None = None
    levels: tuple[str, ...] = SYMMETRIC
    rates: tuple[float, ...] = PAPER_RATES
    warmups: tuple[int, ...] = (0, 4, 10)
    lrs: tuple[float, ...] = (1e-4, 6e-4, 3e-3, 2e-2)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    overrides: tuple[str, ...] = ()
    val_fraction: float | None = None
    num_val: int | None = None
    num_test: int | None = None
    train_size: int | None = None


_CIFAR_RATES = (0.4, 0.0, -1.0, -4.0)
_CIFAR = {
    "rates": _CIFAR_RATES,
    "warmups": (2, 5),
    "lrs": (1e-3, 4e-3),
    "seeds": (0, 1),
    "num_val": 2000,
    "num_test": 4000,
    "train_size": 4000,
}
GRIDS = {
    "twonorm": Grid(num_test=6000),
    "waveform": Grid(num_test=6000),
    # The shipped space trains small_cnn, for which this grid would take hours; a tenth of digits is 144 samples.
    "digits": Grid(levels=(*SYMMETRIC, "pairflip:0.3"), warmups=(0, 5, 15), overrides=("model=mlp",), val_fraction=0.3),
    # The same data for all seeds: what the choice of the warm-up's seed is worth.
    "twonorm_seeds": Grid(dataset="twonorm", data_seed=0, levels=("symmetric:0.4",), seeds=(0, 1, 2), num_test=6000),
    "cifar10": Grid(levels=("symmetric:0.4",), **_CIFAR),
    "cifar10n": Grid(levels=("human:worst",), **_CIFAR),
}


def pieces(name: str) -> list[tuple[str, str, int]]:
    """List the pieces of a grid: dataset, noise level, seed."""
    return [(name, level, seed) for level, seed in itertools.product(GRIDS[name].levels, GRIDS[name].seeds)]


def piece_path(piece: tuple[str, str, int], folder: Path) -> Path:
    """Return where a piece is kept until all are there."""
    name, level, seed = piece
    return folder / ".pieces" / f"{name}-{level.replace(':', '-')}-{seed}.parquet"


def train_piece(piece: tuple[str, str, int], folder: Path = FOLDER, epochs: int | None = None) -> float:
    """Train all points of a piece and keep them.

    Args:
        piece: Dataset, noise level, seed.
        folder: Of the tables.
        epochs: Epochs a trial, for tests; by default those of the search space.

    Returns:
        Seconds it took.
    """
    import torch

    torch.set_num_threads(1)
    from nls_tune.datasets import load_dataset
    from nls_tune.files import write_atomically
    from nls_tune.spaces.reading import load_space

    start = time.perf_counter()
    name, level, seed = piece
    grid = GRIDS[name]
    space = load_space(grid.dataset or name, preset="cpu", epochs=epochs, overrides=grid.overrides)
    data_seed = seed if grid.data_seed is None else grid.data_seed
    dataset = load_dataset(
        grid.dataset or name,
        level,
        noise_seed=data_seed,
        split_seed=data_seed,
        val_fraction=grid.val_fraction,
        train_size=grid.train_size,
    )
    if grid.num_val is not None:
        dataset = dataclasses.replace(dataset, val_indices=dataset.val_indices[: grid.num_val])
    if grid.num_test is not None and dataset.test_inputs is not None and dataset.test_labels is not None:
        dataset = dataclasses.replace(
            dataset,
            test_inputs=dataset.test_inputs[: grid.num_test],
            test_labels=dataset.test_labels[: grid.num_test],
        )
    rows = [_row(piece, dataset, space.budget.epochs, *run) for run in _trained(dataset, space, grid, seed)]
    path = piece_path(piece, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())
    return time.perf_counter() - start


def _points(space: Any, grid: Grid, seed: int, warmup: int) -> list[Any]:
    return [
        space.settings({"smooth_rate": rate, "warmup_epochs": warmup, "lr": lr}, seed)
        for rate, lr in itertools.product(grid.rates, grid.lrs)
    ]


def _trained(dataset: Any, space: Any, grid: Grid, seed: int) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Train every point, those of a warm-up length together, from a warm-up that all share."""
    import copy

    from nls_tune.training.data import DeviceData
    from nls_tune.training.training import Training

    data = DeviceData.load(dataset, "cpu")
    longest = space.settings({"smooth_rate": 0.0, "warmup_epochs": max(grid.warmups), "lr": grid.lrs[0]}, seed)
    warmup = Training(dataset, longest, data=data)
    for epochs in sorted(grid.warmups):
        while warmup.epoch < epochs:
            warmup.run_epoch()
        for settings in _points(space, grid, seed, epochs):
            training = Training(dataset, settings, data=data)
            state = {**warmup.state_dict(), "settings": settings.identity()}
            training.load_state_dict(copy.deepcopy(state))
            while not training.finished:
                training.run_epoch()
            judged = [training.judged(epoch + 1) for epoch in range(training.epoch)]
            val, test = ([one.bits for one in column if one is not None] for column in zip(*judged, strict=True))
            yield training.settings, training.history, val, test


_COUNTS = pa.list_(pa.uint16())
SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("noise_level", pa.string()),
        ("seed", pa.int8()),
        ("smooth_rate", pa.float32()),
        ("warmup_epochs", pa.int16()),
        ("lr", pa.float32()),
        ("num_val", pa.int32()),
        ("num_test", pa.int32()),  # of each half
        ("diverged", pa.bool_()),
        ("val_correct", _COUNTS),  # an epoch, up to the last that did not diverge
        ("val_correct_quarter", _COUNTS),  # of the first quarter of the validation samples
        ("test_correct_a", _COUNTS),
        ("test_correct_b", _COUNTS),
        ("best_epoch", pa.int16()),
        ("val_correct_at_best", pa.binary()),
        ("epoch_seconds", pa.float32()),
    ]
)


def _row(
    piece: tuple[str, str, int],
    dataset: Any,
    epochs: int,
    settings: Any,
    history: Sequence[Any],
    val_correct: Sequence[np.ndarray],
    test_correct: Sequence[np.ndarray],
) -> dict[str, Any]:
    from nls_tune.metrics import best_epoch

    good = [m for m in history if not m.diverged]
    num_val, num_test = dataset.num_val, len(dataset.test_labels) // 2
    best = best_epoch([m.val_accuracy for m in good], settings.first_counting_epoch)
    test = [np.unpackbits(bits) for bits in test_correct[: len(good)]]
    return {
        "dataset": GRIDS[piece[0]].dataset or piece[0],
        "noise_level": piece[1],
        "seed": piece[2],
        "smooth_rate": settings.smooth_rate,
        "warmup_epochs": settings.warmup_epochs,
        "lr": settings.lr,
        "num_val": num_val,
        "num_test": num_test,
        "diverged": len(good) < epochs,
        "val_correct": [round(m.val_accuracy * num_val) for m in good],
        "val_correct_quarter": [int(np.unpackbits(b)[: num_val // 4].sum()) for b in val_correct[: len(good)]],
        "test_correct_a": [int(bits[:num_test].sum()) for bits in test],
        "test_correct_b": [int(bits[num_test : 2 * num_test].sum()) for bits in test],
        "best_epoch": best.epoch if best else None,
        "val_correct_at_best": val_correct[best.epoch - 1].tobytes() if best else None,
        "epoch_seconds": float(np.median([m.seconds for m in history])),
    }


def main() -> None:
    """Train what is missing of the named grids and write their tables."""
    from nls_tune.machine.provenance import provenance

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(GRIDS), choices=list(GRIDS), metavar="NAME")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    for name in options.names:
        missing = [piece for piece in pieces(name) if not piece_path(piece, FOLDER).exists()]
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            for piece, seconds in zip(missing, pool.map(train_piece, missing), strict=True):
                print(f"{' '.join(map(str, piece))}: {seconds:.0f} s", flush=True)
        table = pa.concat_tables(pq.read_table(piece_path(piece, FOLDER)) for piece in pieces(name))
        pq.write_table(table, FOLDER / f"{name}.parquet", compression="zstd", compression_level=19)
        facts = {
            "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            **provenance(),
            **dataclasses.asdict(GRIDS[name]),
        }
        (FOLDER / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {table.num_rows} trainings, {(FOLDER / f'{name}.parquet').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
