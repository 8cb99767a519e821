"""A tabulated dataset: what every point of the grid did, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
        val_bits: Packed, which validation samples its best epoch got right; None if no epoch counts.
        first_counting: First epoch that may be the best one.
    """

    val: np.ndarray
    val_quarter: np.ndarray
    test: Mapping[str, np.ndarray]
    diverged: bool
    val_bits: bytes | None
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
                val_bits=row["val_correct_at_best"],
                first_counting=1 if row["smooth_rate"] == 0 else row["warmup_epochs"] + 1,
            )
        self.epoch_seconds = float(np.median([row["epoch_seconds"] for row in rows]))

    @property
    def seeds(self) -> list[int]:
        """The seeds that were tabulated."""
        return sorted(self.curves)

    def truth(self, half: str, objective: Objective = "best") -> dict[Point, float]:
        """Return what every point is worth: its test accuracy where a user would stop, mean over the seeds.

        A training without an epoch that counts is worth a guess.
        """
        return self._truths[half, objective]

    @cached_property
    def _truths(self) -> dict[tuple[str, str], dict[Point, float]]:
        found: dict[tuple[str, str], dict[Point, float]] = {}
        guess = 1 / self.table.num_classes
        for objective in ("best", "last"):
            for half in "ab":
                values: dict[Point, list[float]] = {}
                for curves in self.curves.values():
                    for point, curve in curves.items():
                        best = curve.objective(self.table.epochs, objective)  # type: ignore[arg-type] # of the two
                        values.setdefault(point, []).append(
                            guess if best is None else float(curve.test[half][best[0] - 1])
                        )
                found[half, objective] = {point: float(np.mean(v)) for point, v in values.items()}
        return found


class Table:
    """All levels of a dataset, and how a configuration finds its point.

    Args:
        name: Of the table, a file beside this one.
        folder: Where it is.
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
