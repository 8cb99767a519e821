"""What the rates of a sweep reached over fresh seeds: the curve of accuracy over rates at each noise level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.rows import by_level, config_of, number, rate_trials, searched_settings
from nls_tune.analysis.statistics import SampleMean, sample_mean
from nls_tune.metrics import Metric
from nls_tune.runs.schemas import Columns, objective_columns
from nls_tune.spaces.settings import Arm

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SweptRate:
    """One rate over its fresh seeds, at the best epoch of each.

    ``difference`` is ``test`` minus that of rate 0, seed by seed; None for that rate itself, and without a test set.
    """

    arm: Arm
    smooth_rate: float
    config: Config
    validation: SampleMean
    test: SampleMean | None
    difference: SampleMean | None


@dataclass(frozen=True)
class RateSweep:
    """The rates of one noise level, ascending: those of the sweep, and those that the confirmation trained.

    ``best`` is the index of the rate with the highest mean validation accuracy, which chooses; it is not a proof.
    """

    noise_level: str
    noise_cancelling_rate: float | None
    rates: tuple[SweptRate, ...]
    best: int
    metric: Metric = "accuracy"


def rate_sweeps(trials: pd.DataFrame, levels: Sequence[str] = (), metric: Metric = "accuracy") -> tuple[RateSweep, ...]:
    """Return the sweep of each level that has one.

    Where a rate was trained with several settings, those with the most seeds count, and among them those with the
    highest mean validation accuracy. A seed that confirmation and sweep both trained counts once.
    """
    columns = objective_columns(metric)
    fresh = trials[trials["stage"].isin(["sweep", "confirm"]) & trials["status"].isin(["completed", "diverged"])]
    fresh = rate_trials(fresh[fresh[columns.best_val].notna()])
    found = by_level(fresh, levels)
    return tuple(_sweep(name, rows, columns, metric) for name, rows in found if (rows["stage"] == "sweep").any())


def _sweep(level: str, rows: pd.DataFrame, columns: Columns, metric: Metric) -> RateSweep:
    names = searched_settings(rows)
    best: dict[float, tuple[tuple[int, float], pd.DataFrame]] = {}
    keys = rows[[*names, "arm"]].apply(lambda row: str(config_of(row, names)), axis=1)
    for _, group in rows.groupby(keys, sort=False):
        rate, once = float(group["smooth_rate"].iloc[0]), group.drop_duplicates(["seed", "noise_seed"])
        value = len(once), float(once[columns.best_val].mean())
        if rate not in best or value > best[rate][0]:
            best[rate] = value, once
    _, ce = best.get(0.0, (None, None))
    swept = tuple(_swept(best[rate][1], ce, names, columns) for rate in sorted(best))
    return RateSweep(
        noise_level=level,
        noise_cancelling_rate=number(rows["noise_cancelling_rate"].iloc[0]),
        rates=swept,
        best=max(range(len(swept)), key=lambda i: swept[i].validation.mean),
        metric=metric,
    )


def _swept(rows: pd.DataFrame, ce: pd.DataFrame | None, names: Sequence[str], columns: Columns) -> SweptRate:
    first, tested = rows.iloc[0], bool(rows[columns.test_at_best].notna().all())
    differences: list[float] = []
    if ce is not None and tested and first["smooth_rate"] != 0:
        pairs = rows.merge(ce, on=["seed", "noise_seed"], suffixes=("", "_ce"))
        differences = (pairs[columns.test_at_best] - pairs[f"{columns.test_at_best}_ce"]).tolist()
    return SweptRate(
        arm=first["arm"],
        smooth_rate=float(first["smooth_rate"]),
        config=config_of(first, names),
        validation=sample_mean(rows[columns.best_val].tolist()),
        test=sample_mean(rows[columns.test_at_best].tolist()) if tested else None,
        difference=sample_mean(differences) if differences else None,
    )
