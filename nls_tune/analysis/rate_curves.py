"""How accuracy depends on the smooth rate: the trials, a local smoother and its bootstrap band.

The smoother is local linear regression in x = log(1 - r) (Cleveland, "Robust Locally Weighted Regression and Smoothing
Scatterplots", 1979, without the robustness; Fan and Gijbels, Local Polynomial Modelling and Its Applications, 1996).
At x0 the n trials have tricube weights ``(1 - (|x - x0| / h)**3)**3``, and h is 1.5 times the distance of the k-th
nearest trial, ``k = ceil(2/3 * n**(4/5))``, so that about ``n**(4/5)`` trials count, the rate that is optimal for this
smoother: it follows dense regions and bridges gaps. (At 1.0 times the k-th and all that tie with it, such as the
trials of cross-entropy at x = 0, would have no weight.) h is at least a fifth of the range of x: beside the trials of
cross-entropy the k nearest are all at one place, and the curve would follow single trials there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from nls_tune.analysis.rows import by_level, completed_trials, log_share, number, numbers, rate_trials, search_trials
from nls_tune.metrics import Metric
from nls_tune.runs.schemas import objective_columns
from nls_tune.spaces.space import Arm

if TYPE_CHECKING:
    import pandas as pd

#: Fewer trials, or fewer different rates among them, give no curve.
MIN_POINTS = 8
MIN_RATES = 3
#: Points of a curve, evenly in log(1 - r).
GRID = 64
#: Resamples of the band, always the same ones.
RESAMPLES = 400
#: A bandwidth is at least this share of the range of log(1 - r).
_LEAST_SHARE = 0.2
#: A line through trials whose mean is farther away than this many times their spread would extrapolate.
_FARTHEST = 4.0


@dataclass(frozen=True)
class RatePoint:
    """One full-length search trial at its best epoch."""

    trial_id: str
    arm: Arm
    smooth_rate: float
    warmup_epochs: int
    lr: float
    val_accuracy: float
    test_accuracy: float | None


@dataclass(frozen=True)
class SmoothedCurve:
    """A smoother over rates, with a 95 % bootstrap band; all of one length, rates ascending."""

    rates: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class RateCurve:
    """Accuracy against smooth rate at one noise level: the completed search trials, rates ascending.

    ``num_left_out`` counts the other search trials: stopped, diverged, failed, interrupted. ``validation`` and ``test``
    are smoothers over the accuracies, values of the run's ``metric``; None where there are too few points.
    """

    noise_level: str
    noise_cancelling_rate: float | None
    points: tuple[RatePoint, ...]
    num_left_out: int
    validation: SmoothedCurve | None
    test: SmoothedCurve | None
    metric: Metric = "accuracy"


def rate_curves(trials: pd.DataFrame, levels: Sequence[str] = (), metric: Metric = "accuracy") -> tuple[RateCurve, ...]:
    """Return the curve of each noise level that has search trials."""
    found = by_level(rate_trials(search_trials(trials)), levels)
    return tuple(_rate_curve(level, rows, metric) for level, rows in found)


def _rate_curve(level: str, rows: pd.DataFrame, metric: Metric) -> RateCurve:
    objective = objective_columns(metric)
    shown = completed_trials(rows, metric).sort_values(["smooth_rate", "trial_id"])
    columns = (shown[name].tolist() for name in ("trial_id", "arm", "smooth_rate", "warmup_epochs", "lr"))
    accuracies = (shown[objective.best_val].tolist(), numbers(shown[objective.test_at_best]))
    rates = shown["smooth_rate"].to_numpy(float)
    test = shown[objective.test_at_best].to_numpy(float)
    tested = ~np.isnan(test)
    return RateCurve(
        noise_level=level,
        noise_cancelling_rate=number(rows["noise_cancelling_rate"].iloc[0]),
        points=tuple(RatePoint(*values) for values in zip(*columns, *accuracies, strict=True)),
        num_left_out=len(rows) - len(shown),
        validation=smoothed_curve(rates, shown[objective.best_val].to_numpy(float)),
        test=smoothed_curve(rates[tested], test[tested]),
        metric=metric,
    )


def smoothed_curve(rates: np.ndarray, accuracies: np.ndarray) -> SmoothedCurve | None:
    """Return the smoother over the range of the rates, and nothing beyond it.

    The band is the middle 95 % of the curves of resampled trials, with the bandwidths of all trials. It says how far
    the curve depends on which trials were run, not what another training seed or other samples would change. Rates and
    accuracies have shape (n,). Fewer than ``MIN_POINTS`` trials or ``MIN_RATES`` different rates give None.
    """
    x = log_share(rates)
    if len(x) < MIN_POINTS or len(np.unique(x)) < MIN_RATES:
        return None
    grid = np.linspace(x.max(), x.min(), GRID)  # rates rise as x falls
    neighbours = _neighbours(x, grid)
    mean = _fit(neighbours, np.ones((1, len(x))), accuracies)[0]
    drawn = np.random.default_rng(0).integers(0, len(x), (RESAMPLES, len(x)))
    drawn += len(x) * np.arange(RESAMPLES)[:, None]
    times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
    low, high = np.nanquantile(_fit(neighbours, times.astype(float), accuracies), [0.025, 0.975], axis=0)
    curves = (mean, np.minimum(low, mean), np.maximum(high, mean))
    on_grid = np.clip(1 - np.exp(grid), rates.min(), rates.max())
    return SmoothedCurve(_plain(on_grid), *(_plain(np.clip(curve, 0, 1)) for curve in curves))


class _Neighbours(NamedTuple):
    """Trials as seen from the points of the grid, each of shape (n, grid)."""

    weight: np.ndarray
    distance: np.ndarray


def _neighbours(x: np.ndarray, grid: np.ndarray) -> _Neighbours:
    n = len(x)
    distance = x[:, None] - grid
    kth = int(np.ceil(2 / 3 * n**0.8)) - 1
    nearest = np.partition(np.abs(distance), kth, axis=0)[kth]
    bandwidth = np.maximum(1.5 * nearest, _LEAST_SHARE * np.ptp(x))
    return _Neighbours(np.maximum(1 - (np.abs(distance) / bandwidth) ** 3, 0) ** 3, distance)


def _fit(neighbours: _Neighbours, times: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """Fit a line at each point of the grid and return its value there, shape (resamples, grid).

    ``times`` says how often each resample has each trial, shape (resamples, n). A resample without a neighbour has NaN.
    """
    weight, distance = neighbours
    s0, s1, s2 = (times @ (weight * distance**power) for power in range(3))
    t0, t1 = ((times * accuracies) @ (weight * distance**power) for power in range(2))
    # The weighted variance of the distances times s0**2; without spread the mean of the neighbours is all there is.
    spread = s0 * s2 - s1**2
    line = spread * _FARTHEST**2 > s1**2
    with np.errstate(divide="ignore", invalid="ignore"):
        fitted: np.ndarray = np.where(line, (s2 * t0 - s1 * t1) / spread, t0 / s0)
    return fitted


def _plain(values: np.ndarray) -> tuple[float, ...]:
    return cast("tuple[float, ...]", tuple(values.tolist()))
