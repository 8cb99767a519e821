"""How the smooth rate and another setting act together on validation accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

#: The settings that are crossed with the rate.
Crossed = Literal["lr", "warmup_epochs"]


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
        noise_level: In its stored spelling.
        setting: The other one.
        points: All trials that ended as completed, stopped or diverged.
        rate_edges: Edges of the cells, ascending, one more than there are columns.
        value_edges: Edges of the cells, ascending, one more than there are rows.
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


def interactions(trials: pd.DataFrame, levels: Sequence[str] = ()) -> tuple[Interaction, ...]:
    """Return rate x learning rate and rate x warm-up of each noise level with completed search trials.

    A setting that has one value only is left out.
    """
    raise NotImplementedError
