"""How well what to use tells each class: recall, precision and F1 at the best epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from nls_tune.analysis.choices import Choice
from nls_tune.analysis.rows import by_level, have_settings
from nls_tune.analysis.verdicts import Verdict
from nls_tune.metrics import ClassCounts

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ClassResult:
    """One class: its name, its number of samples, and how well it is told; None where that is undefined."""

    name: str
    num_samples: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class LevelClasses:
    """The classes at one noise level, with the configuration that the verdict says to use.

    ``split`` says which samples they are told on: those of ``test``, or without a test set the noisy ones of ``val``.
    ``num_seeds`` counts the fresh seeds whose predictions are taken together; 0 where it is the search's trial.
    """

    noise_level: str
    split: Literal["test", "val"]
    num_seeds: int
    classes: tuple[ClassResult, ...]


def per_class(
    trials: pd.DataFrame, verdicts: Sequence[Verdict], names: Sequence[str] | None = None
) -> tuple[LevelClasses, ...]:
    """Return the classes at each level whose verdict says what to use, where its trials have counts by class.

    ``names`` are those of the classes, by default their numbers.
    """
    use = {found.noise_level: found.use for found in verdicts}
    levels = ((level, rows, use.get(level)) for level, rows in by_level(trials))
    found = (None if choice is None else _level(level, rows, choice, names) for level, rows, choice in levels)
    return tuple(one for one in found if one is not None)


def _level(level: str, rows: pd.DataFrame, use: Choice, names: Sequence[str] | None) -> LevelClasses | None:
    mine = rows[have_settings(rows, use.config)]
    fresh = mine[(mine["stage"] == "confirm") & mine["best_epoch"].notna()]
    shown = fresh if len(fresh) else mine[mine["trial_id"] == use.trial_id]
    for split in ("test", "val"):
        counts = shown[f"{split}_counts_at_best"]
        if len(counts) and counts.notna().all():
            total = ClassCounts.from_flat(np.sum(counts.tolist(), axis=0).tolist())
            return LevelClasses(level, split, len(fresh), _classes(total, len(shown), names))
    return None


def _classes(total: ClassCounts, num_trials: int, names: Sequence[str] | None) -> tuple[ClassResult, ...]:
    shown = names if names and len(names) == len(total.labelled) else range(len(total.labelled))
    values = zip(shown, total.labelled, total.recalls(), total.precisions(), total.f1s(), strict=True)
    return tuple(ClassResult(str(name), labelled // num_trials, *found) for name, labelled, *found in values)
