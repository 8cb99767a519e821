"""Start points from an earlier run: what was selected there is tried early here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.selection import select
from nls_tune.errors import InputError
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import load_trials
from nls_tune.runs.schemas import settings_of
from nls_tune.spaces.parameters import ChoiceParameter, coerce
from nls_tune.spaces.settings import Arm, TrainingSettings
from nls_tune.spaces.space import SearchSpace

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class WarmPoint:
    """A start point in the space of this run, and the noise level at which an earlier run selected it."""

    arm: Arm
    config: Config
    noise_level: str


def read_warm_points(
    run: Path, space: SearchSpace, noise_rates: Mapping[str, float | None]
) -> dict[str, tuple[WarmPoint, ...]]:
    """Return the configurations that an earlier run selected, by level of this run and moved into its space.

    Each arm of a level takes what was selected at the same noise level, else at the level whose noise rate is
    nearest; where a rate is unknown, at the first level of the earlier run. An arm in which the earlier run completed
    no trial, or whose rate lies in another arm once it is moved into the space, has none.

    Raises:
        InputError: If the folder is not a run, or no search trial was completed there.
    """
    try:
        found = load_trials(run)
    except InputError as error:
        raise InputError(f"--warm-start: {error}") from None
    search = found.trials[found.trials["stage"] == "search"]
    selected: dict[Arm, dict[str, pd.Series]] = {arm: {} for arm in space.used_arms()}
    for (level, arm), rows in search.groupby(["noise_level", "arm"], sort=False):
        if arm in selected and (row := select(rows, found.content.metric)) is not None:
            selected[arm][str(level)] = row
    if not any(selected.values()):
        raise InputError(
            f"--warm-start: no trial of a search was completed in {run}; take another run, or leave it out"
        )
    return {level: tuple(_points_of(level, rate, selected, space)) for level, rate in noise_rates.items()}


def _points_of(
    level: str, noise_rate: float | None, selected: Mapping[Arm, Mapping[str, pd.Series]], space: SearchSpace
) -> list[WarmPoint]:
    points = []
    for arm, rows in selected.items():
        if not rows:
            continue
        source = level if level in rows else min(rows, key=lambda name: _distance(rows[name]["noise_rate"], noise_rate))
        config = _into(space, settings_of(rows[source].to_dict()))
        if space.settings(config, 0).arm == arm:
            points.append(WarmPoint(arm, config, source))
    return points


def _distance(theirs: float, ours: float | None) -> float:
    """Between two noise rates; infinite where one of them is unknown (null in Parquet, NaN in a frame)."""
    return math.inf if ours is None or math.isnan(theirs) else abs(theirs - ours)


def _into(space: SearchSpace, settings: TrainingSettings) -> Config:
    """Move a configuration into a space: values to the nearest end, choices that it lacks to their default."""
    config = space.config_of(settings)
    for name, parameter in space.parameters(settings.arm).items():
        value: Any = getattr(settings, name)
        if name == "warmup_epochs":
            epochs = space.budget.epochs
            value = min(round(value * epochs / settings.epochs), epochs - 1)
        if name == "smooth_rate":
            config[name] = space.clip_rate(value)
        elif isinstance(parameter, ChoiceParameter):
            config[name] = value if value in parameter.values else parameter.default
        else:
            config[name] = coerce(name, min(max(value, parameter.low), parameter.high))
    return config


def stored_warm_points(out: Path | None, run: Path) -> dict[str, tuple[WarmPoint, ...]] | None:
    """Return the points that a run wrote down when it began: the earlier run may have changed since, or be gone.

    They are by level; None if this run, ``out``, has not begun, or began with points of another run than ``run``.

    Raises:
        InputError: If run.json cannot be read.
    """
    if out is None or not RunDirectory(out).run_json.exists():
        return None
    content = RunDirectory(out).read_json()
    if content.identity.settings.get("warm_start") != str(run):
        return None
    return {level.noise_level: tuple(map(_from_json, level.warm_start)) for level in content.plan}


def _from_json(point: Mapping[str, Any]) -> WarmPoint:
    config = {name: coerce(name, value) for name, value in point["config"].items()}
    return WarmPoint(point["arm"], config, point["noise_level"])


def with_warm_points(start: Sequence[Config], arm: Arm, points: Sequence[WarmPoint]) -> tuple[Config, ...]:
    """Return the start points of an arm with those of an earlier run behind them, each once."""
    found = list(start)
    for point in points:
        if point.arm == arm and point.config not in found:
            found.append(point.config)
    return tuple(found)
