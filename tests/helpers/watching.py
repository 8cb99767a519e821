"""A small search that is read all the while it runs."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import duckdb
import pandas as pd
from commands import Done

from nls_tune.runs.watched import WatchedRun

LEVELS = ("symmetric:0.2", "symmetric:0.4")
#: Six trials at each of two levels; ASHA stops some 4, 8 or 16 epochs after their warm-up.
ARGUMENTS = (
    "--dataset", "twonorm",
    "--noise", ",".join(LEVELS), "--epochs", "24", "--num-trials", "6", "--train-size", "500", "--preset", "cpu",
    "--confirm-seeds", "0",
)  # fmt: skip
PARTS = ("trials", "epochs")


@dataclass(frozen=True)
class Look:
    """What ``nls-tune watch`` saw at one moment."""

    status: str
    stage: str
    total: int
    ended: int
    running: int
    slots: tuple[int, ...]
    curves: int


@dataclass
class Reader:
    """Reads the tables of a run over and over, as somebody who watches it does."""

    run: Path
    counts: dict[str, list[int]] = field(default_factory=dict)
    columns: set[tuple[str, ...]] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _read(self) -> None:
        connection = duckdb.connect()

        def with_pandas(folder: Path) -> tuple[list[str], int]:
            frame = pd.read_parquet(folder)
            return list(frame.columns), len(frame)

        def with_duckdb(folder: Path) -> tuple[list[str], int]:
            table = f"read_parquet('{folder}/*.parquet')"
            columns = [row[0] for row in connection.execute(f"describe from {table}").fetchall()]
            # Times with a zone would need pytz to become Python objects; counting reads all columns as well.
            counts = connection.execute(f"select count(*), count(columns(*)) from {table}").fetchall()
            return columns, counts[0][0]

        watched: WatchedRun | None = None
        while not self._stop.wait(0.02):
            try:
                if watched is None and (self.run / "run.json").exists():
                    watched = WatchedRun(self.run)
                if watched is not None:
                    watched.refresh()
                    self.looks.append(_look(watched))
            except Exception as error:
                self.errors.append(f"watch: {error!r}")
            for part in PARTS:
                # The first part of each carries the schema; before it there is no table.
                if not (self.run / part / "empty.parquet").exists():
                    continue
                for name, read in (("pandas", with_pandas), ("duckdb", with_duckdb)):
                    try:
                        columns, count = read(self.run / part)
                    except Exception as error:
                        self.errors.append(f"{name}, {part}: {error}")
                        continue
                    self.counts.setdefault(f"{name} {part}", []).append(count)
                    self.columns.add((part, *columns))


def _look(watched: WatchedRun) -> Look:
    progress = watched.progress
    return Look(
        watched.status,
        progress.stage,
        progress.num_total,
        progress.num_ended,
        len(progress.running),
        tuple(trial.slot for trial in progress.running.values()),
        sum(level.curve is not None and len(level.curve.accuracies) > 0 for level in progress.levels.values()),
    )


@dataclass(frozen=True)
class WatchedSearch:
    """A search that has ended, what a reader saw of it meanwhile, and the modules that it had loaded at its end."""

    done: Done
    run: Path
    reader: Reader
    modules: set[str]
