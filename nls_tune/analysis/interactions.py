"""How the smooth rate and another setting act together on validation accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from nls_tune.analysis.rows import by_level, is_completed, log_share, numbers, rate_trials, search_trials
from nls_tune.metrics import Metric
from nls_tune.runs.schemas import objective_columns

if TYPE_CHECKING:
    import pandas as pd

#: The settings that are crossed with the rate.
Crossed = Literal["lr", "warmup_epochs"]
#: At most so many cells along each axis.
RATE_CELLS = 8
VALUE_CELLS = 6
_ENDED = ("completed", "stopped", "diverged")


@dataclass(frozen=True)
class InteractionPoint:
    """One search trial that ended. ``val_accuracy`` is that of its best epoch; None where no epoch counts."""

    trial_id: str
    smooth_rate: float
    value: float
    val_accuracy: float | None
    status: str


@dataclass(frozen=True)
class Interaction:
    """Smooth rate against one other setting, at one noise level.

    Attributes:
        setting: The other one.
        points: All trials that ended as completed, stopped or diverged.
        rate_edges: Edges of the cells, ascending, one more than there are columns: evenly in log(1 - r) over the rates
            of the points. A cell begins with its lower edge; the last one includes its upper edge as well.
        value_edges: Edges of the cells, ascending, one more than there are rows: evenly in log(lr); for
            ``warmup_epochs`` halfway between whole epochs, each cell with the same number of them.
        best: Highest validation accuracy of the completed trials of a cell, ``best[row][column]``; None where none is.
        counts: Completed trials of a cell, likewise.
    """

    noise_level: str
    setting: Crossed
    points: tuple[InteractionPoint, ...]
    rate_edges: tuple[float, ...]
    value_edges: tuple[float, ...]
    best: tuple[tuple[float | None, ...], ...]
    counts: tuple[tuple[int, ...], ...]
    metric: Metric = "accuracy"


def interactions(
    trials: pd.DataFrame, levels: Sequence[str] = (), metric: Metric = "accuracy"
) -> tuple[Interaction, ...]:
    """Return rate x learning rate and rate x warm-up of each noise level with completed search trials.

    A setting that has one value only is left out, and so is a level with one rate only.
    """
    search = rate_trials(search_trials(trials))
    ended = search[search["status"].isin(_ENDED)]
    return tuple(
        _interaction(level, setting, rows, metric)
        for level, rows in by_level(ended, levels)
        if is_completed(rows, metric).any() and rows["smooth_rate"].nunique() > 1
        for setting in get_args(Crossed)
        if rows[setting].nunique() > 1
    )


def _interaction(level: str, setting: Crossed, rows: pd.DataFrame, metric: Metric) -> Interaction:
    column = objective_columns(metric).best_val
    rates = rows["smooth_rate"].to_numpy(float)
    rate_edges = _rate_edges(rates)
    value_edges = _lr_edges(rows["lr"]) if setting == "lr" else _epoch_edges(rows["warmup_epochs"])
    columns, lines = len(rate_edges) - 1, len(value_edges) - 1
    completed = is_completed(rows, metric).to_numpy(bool)
    cells = (_cell(rows[setting].to_numpy(float), value_edges)[completed], _cell(rates, rate_edges)[completed])
    best, counts = np.full((lines, columns), -np.inf), np.zeros((lines, columns), int)
    np.maximum.at(best, cells, rows[column].to_numpy(float)[completed])
    np.add.at(counts, cells, 1)
    names = (rows[name].tolist() for name in ("trial_id", "smooth_rate"))
    values = [float(value) for value in rows[setting].tolist()]
    accuracies, statuses = numbers(rows[column]), rows["status"].tolist()
    return Interaction(
        noise_level=level,
        setting=setting,
        points=tuple(InteractionPoint(*p) for p in zip(*names, values, accuracies, statuses, strict=True)),
        rate_edges=tuple(rate_edges.tolist()),
        value_edges=tuple(value_edges.tolist()),
        best=tuple(tuple(value if value >= 0 else None for value in line) for line in best.tolist()),
        counts=tuple(tuple(line) for line in counts.tolist()),
        metric=metric,
    )


def _rate_edges(rates: np.ndarray) -> np.ndarray:
    first, last = log_share(np.array([rates.min(), rates.max()]))
    edges: np.ndarray = 1 - np.exp(np.linspace(first, last, min(RATE_CELLS, len(np.unique(rates))) + 1))
    edges[[0, -1]] = rates.min(), rates.max()  # exactly, whatever the rounding
    inside: np.ndarray = np.clip(edges, rates.min(), rates.max())  # rates above 0.99 count as 0.99 in the log
    return inside


def _lr_edges(values: pd.Series[float]) -> np.ndarray:
    edges = np.geomspace(values.min(), values.max(), min(VALUE_CELLS, values.nunique()) + 1)
    edges[[0, -1]] = values.min(), values.max()
    return edges


def _epoch_edges(values: pd.Series[int]) -> np.ndarray:
    epochs = int(values.max()) - int(values.min()) + 1
    height = -(-epochs // VALUE_CELLS)
    return values.min() - 0.5 + height * np.arange(-(-epochs // height) + 1)


def _cell(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
