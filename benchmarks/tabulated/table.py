"""A tabulated dataset: what every point of the grid did, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq

from nls_tune.metrics import Objective, best_epoch
from nls_tune.spaces.settings import arm_of

FOLDER = Path(__file__).parent
Point = tuple[int, int, int]


@dataclass(frozen=True)
class Curve:
    """One training: accuracies by epoch, up to the last that did not diverge.

    Attributes:
        val: On all noisy validation labels.
        val_quarter: On a quarter of them.
        test: On one half of the test samples (clean labels), by half: ``a`` and ``b``.
        diverged: Whether it ended early.
        first_counting: First epoch that may be the best one.
    """

    val: np.ndarray
    val_quarter: np.ndarray
    test: Mapping[str, np.ndarray]
    diverged: bool
    first_counting: int

    def objective(
        self, epochs: int, objective: Objective = "best", *, quarter: bool = False
    ) -> tuple[int, float] | None:
        """Return best epoch and objective after some epochs, None before one counts."""
        accuracies = (self.val_quarter if quarter else self.val)[:epochs]
        best = best_epoch(accuracies.tolist(), self.first_counting, objective)
        return None if best is None else (best.epoch, best.value)


class Level:
    """One noise level of a table."""

    def __init__(self, table: Table, rows: list[dict[str, Any]]) -> None:
        self.table = table
        self.name: str = rows[0]["noise_level"]
        self.num_val: int = rows[0]["num_val"]
        self.curves: dict[int, dict[Point, Curve]] = {}
        for row in rows:
            point = (
                table.rates.index(_exact(row["smooth_rate"])),
                table.warmups.index(row["warmup_epochs"]),
                table.lrs.index(_exact(row["lr"])),
            )
            half, num_val = row["num_test"], row["num_val"]
            self.curves.setdefault(row["seed"], {})[point] = Curve(
                val=np.array(row["val_correct"]) / num_val,
                val_quarter=np.array(row["val_correct_quarter"]) / (num_val // 4),
                test={h: np.array(row[f"test_correct_{h}"]) / half for h in "ab"},
                diverged=row["diverged"],
                first_counting=1 if row["smooth_rate"] == 0 else row["warmup_epochs"] + 1,
            )
        self.epoch_seconds = float(np.median([row["epoch_seconds"] for row in rows]))

    @property
    def seeds(self) -> list[int]:
        """The seeds that were tabulated."""
        return sorted(self.curves)

    def truth(self, half: str, objective: Objective = "best") -> dict[Point, float]:
        """Return what every point is worth: its test accuracy where a user would stop, mean over the seeds."""
        return self._truths[half, objective]

    def validation(self, point: Point, seeds: Sequence[int], *, quarter: bool = False) -> float:
        """Return a point's mean validation accuracy over seeds at its best epochs; 0 where none counts."""
        found = [self.curves[seed][point].objective(self.table.epochs, quarter=quarter) for seed in seeds]
        return float(np.mean([0.0 if best is None else best[1] for best in found]))

    def test(self, point: Point, half: str, seeds: Sequence[int], objective: Objective = "best") -> float:
        """Return a point's mean test accuracy over seeds where a user would stop; a guess where no epoch counts."""
        curves = [self.curves[seed][point] for seed in seeds]
        found = [(curve.test[half], curve.objective(self.table.epochs, objective)) for curve in curves]
        guess = 1 / self.table.num_classes
        return float(np.mean([guess if best is None else test[best[0] - 1] for test, best in found]))

    @cached_property
    def _truths(self) -> dict[tuple[str, str], dict[Point, float]]:
        points = self.curves[self.seeds[0]]
        return {
            (half, objective): {point: self.test(point, half, self.seeds, objective) for point in points}
            for objective in get_args(Objective)
            for half in "ab"
        }


class Table:
    """All levels of a dataset, and how a configuration finds its point.

    Args:
        name: The table's name, that of a file beside this one.
        folder: Where that file is.
    """

    def __init__(self, name: str, folder: Path = FOLDER) -> None:
        rows = pq.read_table(folder / f"{name}.parquet").to_pylist()
        self.name = name
        self.rates = sorted({_exact(r["smooth_rate"]) for r in rows})
        self.warmups = sorted({r["warmup_epochs"] for r in rows})
        self.lrs = sorted({_exact(r["lr"]) for r in rows})
        self.epochs = max(len(r["val_correct"]) for r in rows)
        self.num_classes = {"twonorm": 2, "waveform": 3}.get(rows[0]["dataset"], 10)
        names = list(dict.fromkeys(r["noise_level"] for r in rows))
        self.levels = [Level(self, [r for r in rows if r["noise_level"] == n]) for n in names]

    @property
    def size(self) -> int:
        """Points of the grid at one level."""
        return len(self.rates) * len(self.warmups) * len(self.lrs)

    def nearest(self, config: Mapping[str, Any]) -> Point:
        """Return the point of a configuration: nearest in log(1 - r) within its arm, warm-up and log lr."""
        rate = config["smooth_rate"]
        arm = arm_of(rate)
        rates = [i for i, r in enumerate(self.rates) if arm_of(r) == arm]
        return (
            min(rates, key=lambda i: abs(math.log1p(-self.rates[i]) - math.log1p(-rate))),
            min(range(len(self.warmups)), key=lambda i: abs(self.warmups[i] - config["warmup_epochs"])),
            min(range(len(self.lrs)), key=lambda i: abs(math.log(self.lrs[i] / config["lr"]))),
        )

    def config(self, point: Point) -> dict[str, Any]:
        """Return the configuration of a point."""
        return {
            "smooth_rate": self.rates[point[0]],
            "warmup_epochs": self.warmups[point[1]],
            "lr": self.lrs[point[2]],
        }


def _exact(value: float) -> float:
    """The number that float32 stands for in print."""
    return float(f"{value:.6g}")
