"""Accuracies epoch by epoch: where memorisation of the wrong labels begins, and what the best epoch saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from nls_tune.analysis.level_summaries import LevelSummary, level_summaries
from nls_tune.analysis.rows import have_settings, in_order, numbers, search_trials
from nls_tune.metrics import Metric, best_epoch
from nls_tune.runs.schemas import Columns, objective_columns
from nls_tune.spaces.settings import Arm

#: Why a curve is shown: it is the selected one of its arm, CE with the defaults, or one of the best of the others.
Role = Literal["selected", "default_ce", "other"]
#: How many others are kept per noise level.
MAX_OTHERS = 12


@dataclass(frozen=True)
class LearningCurve:
    """One search trial epoch by epoch; the tuples are of one length, epochs ascending.

    ``lr`` is the learning rate of the GLS phase, ``best_epoch`` the epoch that counts, if one does. A trial that still
    runs has the status None, the warm-up epochs and the best epoch so far, and the learning rate of its first GLS
    epoch, or else its last epoch. Test accuracies are on clean labels, the others on noisy ones.
    """

    trial_id: str
    role: Role
    arm: Arm
    smooth_rate: float
    warmup_epochs: int
    lr: float
    status: str | None
    best_epoch: int | None
    epochs: tuple[int, ...]
    train_accuracy: tuple[float, ...]
    val_accuracy: tuple[float, ...]
    test_accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class LevelCurves:
    """The learning curves of one noise level: selected ones first, then CE with the defaults, then others, best first.

    ``num_trials`` counts the search trials of the level that have epochs; more than ``curves`` where some are left out.
    """

    noise_level: str
    curves: tuple[LearningCurve, ...]
    num_trials: int
    metric: Metric = "accuracy"


def learning_curves(
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    levels: Sequence[str] = (),
    max_others: int = MAX_OTHERS,
    defaults: Mapping[str, Any] | None = None,
    summaries: Sequence[LevelSummary] | None = None,
    metric: Metric = "accuracy",
) -> tuple[LevelCurves, ...]:
    """Return the curves of each noise level that has epochs of search trials.

    Epochs whose trial has no row belong to a running trial (or one whose process was killed). Rows of epochs do not
    name their stage: they are taken for the search's until a trial of another stage has a row.

    ``max_others`` is the most curves without a role per level, the highest validation accuracies first. ``defaults``
    holds the default of each searched setting, which rows do not know; without it no curve is ``default_ce``, and where
    that is the selected CE, ``selected`` is its role. ``summaries`` are those of ``level_summaries``, to save the time.
    """
    codes, ids = pd.factorize(epochs["trial_id"])
    search = _search(trials, epochs, codes, [str(name) for name in ids], objective_columns(metric))
    found = level_summaries(trials, levels, metric) if summaries is None else summaries
    selected = [arm.trial_id for summary in found for arm in summary.arms.values()]
    default = _default_ce(trials, defaults or {})
    order = in_order([trial.noise_level for trial in search.values()], levels)
    kept = {level: _kept(level, search, selected, default, max_others) for level in order}
    shown = {trial_id for of_level in kept.values() for trial_id in of_level}
    wanted = epochs[np.array([trial_id in shown for trial_id in ids], bool)[codes]].sort_values("epoch", kind="stable")
    rows = {str(trial_id): group for trial_id, group in wanted.groupby("trial_id", sort=False)}
    return tuple(
        LevelCurves(
            noise_level=level,
            curves=tuple(
                _curve(name, role, search[name], rows[name], objective_columns(metric))
                for name, role in of_level.items()
            ),
            num_trials=sum(trial.noise_level == level for trial in search.values()),
            metric=metric,
        )
        for level, of_level in kept.items()
    )


class _Trial(NamedTuple):
    """What a curve says besides its epochs; ``value`` is the validation accuracy of the best epoch, or -1."""

    noise_level: str
    arm: Arm
    smooth_rate: float
    warmup_epochs: int
    lr: float
    status: str | None
    best_epoch: int | None
    value: float


def _search(
    trials: pd.DataFrame, epochs: pd.DataFrame, codes: np.ndarray, ids: list[str], columns: Columns
) -> dict[str, _Trial]:
    """Return the search trials that have epochs, by name."""
    rows = search_trials(trials)
    names = ["noise_level", "arm", "smooth_rate", "warmup_epochs", "lr", "status"]
    best = [None if value is None else int(value) for value in numbers(rows["best_epoch"])]
    values = rows[columns.best_val].fillna(-1.0).tolist()
    known_of = (rows[name].tolist() for name in names)
    known = dict(zip(rows["trial_id"], map(_Trial, *known_of, best, values), strict=True))
    found = {trial_id: known[trial_id] for trial_id in ids if trial_id in known}
    if len(rows) < len(trials):
        return found  # what runs now belongs to the confirmation
    running = np.array([trial_id not in known for trial_id in ids], bool)
    so_far = epochs[running[codes]].groupby("trial_id", sort=False)
    return found | {str(trial_id): _trial_so_far(rows.sort_values("epoch"), columns) for trial_id, rows in so_far}


def _trial_so_far(rows: pd.DataFrame, columns: Columns) -> _Trial:
    """Return what the epochs say about a trial that has no row yet."""
    gls, first = rows[rows["phase"] != "warmup"], rows.iloc[0]
    warmup_epochs = len(rows) - len(gls)
    healthy = rows.loc[~rows["diverged"].to_numpy(bool), columns.epoch_val].tolist()
    # For cross-entropy both phases are the same training.
    best = best_epoch(healthy, 1 if first["arm"] == "ce" else warmup_epochs + 1)
    return _Trial(
        noise_level=str(first["noise_level"]),
        arm=first["arm"],
        smooth_rate=float(first["smooth_rate"]),
        warmup_epochs=warmup_epochs,
        lr=float(rows["lr"].iloc[-1] if gls.empty else gls["lr"].iloc[0]),
        status=None,
        best_epoch=None if best is None else best.epoch,
        value=-1.0 if best is None else best.value,
    )


def _default_ce(trials: pd.DataFrame, defaults: Mapping[str, Any]) -> set[str]:
    """Return the trials of cross-entropy with the defaults of the space, as the confirmation trains it."""
    same = (trials["arm"] == "ce").to_numpy(bool) & bool(defaults)
    return set(trials["trial_id"][same & have_settings(trials, {**defaults, "smooth_rate": 0.0})])


def _kept(
    level: str, search: Mapping[str, _Trial], selected: Sequence[str], default: set[str], max_others: int
) -> dict[str, Role]:
    """Return the roles of the trials of a level that are shown, by name and in order."""
    of_level = [name for name, trial in search.items() if trial.noise_level == level]
    best_first = sorted(of_level, key=lambda name: -search[name].value)
    roles: dict[str, Role] = {name: "selected" for name in selected if name in of_level}
    roles |= {name: "default_ce" for name in best_first if name in default and name not in roles}
    others = [name for name in best_first if name not in roles]
    return roles | dict.fromkeys(others[:max_others], "other")


def _curve(trial_id: str, role: Role, trial: _Trial, rows: pd.DataFrame, columns: Columns) -> LearningCurve:
    return LearningCurve(
        trial_id=trial_id,
        role=role,
        **{name: value for name, value in trial._asdict().items() if name not in ("noise_level", "value")},
        epochs=tuple(rows["epoch"].tolist()),
        train_accuracy=tuple(rows["train_accuracy"].tolist()),
        val_accuracy=tuple(rows[columns.epoch_val].tolist()),
        test_accuracy=tuple(numbers(rows[columns.epoch_test])),
    )
