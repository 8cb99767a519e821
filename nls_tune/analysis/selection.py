"""Which configuration of a group to recommend, from its trials.

The highest of many noisy validation accuracies is a lucky one: the noisier the labels, the more. Neighbouring
configurations are about equally good, so their trials tell how much of a value was luck. Where there are enough
trials, a Gaussian process over the configurations says what each of them is worth, and the highest of these posterior
means decides; else the highest accuracy does. The choice is among the trials that were run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["posterior", "raw"]

#: Fewer completed trials than this say nothing about the surface: the highest accuracy decides.
MIN_TRIALS = 8
#: More trials than this do not shape the surface: time grows with their cube. Of a larger group these many do, spread
#: evenly over the ranks of its better half. The best of them alone will not do: they are the luckiest, what lies
#: around them is missing, and the surface takes their luck for worth. In simulated groups of 2,000 trials with strong
#: noise the best 100 chose 0.7 points below the best configuration, the highest accuracy 0.4, and these 100 only 0.2.
MAX_TRIALS = 100
#: Trials farther below the best than this many times the distance from the best to the upper quartile collapsed ...
COLLAPSED = 6.0
#: ... and so did those below a gap that is wider than this many times the range of the trials above it.
GAP = 2.0
#: How many trials there must be above a gap.
ABOVE_GAP = 4
#: Lengthscales, in standard deviations of a setting over the trials: uniform in the log between these two.
LENGTHSCALES = (0.5, 8.0)
#: How many combinations of lengthscales are averaged over.
NUM_LENGTHSCALES = 32
#: Standard deviations of the surface and of what training adds to the noise, in standard deviations of the accuracies.
SIGNALS = (0.2, 0.4, 0.8, 1.6)
SEED_NOISES = (0.1, 0.3, 0.6, 1.0)
#: Posterior means closer than this are equal, so that rounding errors decide nothing.
_TIE = 1e-9
#: Smallest 1 - r in log(1 - r): the rate may be 1.
_SMALLEST_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Selection:
    """What is selected from a group.

    Attributes:
        row: The selected trial.
        posterior_mean: What its configuration is worth: validation accuracy, a fraction; None for ``raw``.
        posterior_std: The standard deviation of that; None for ``raw``.
        raw_best_row: The trial with the highest accuracy, often the same one.
        method: ``posterior``, or ``raw`` where there are too few trials.
    """

    row: pd.Series
    posterior_mean: float | None
    posterior_std: float | None
    raw_best_row: pd.Series
    method: Method


class Posterior(NamedTuple):
    """The surface at the trained configurations, both of shape (n,)."""

    mean: np.ndarray
    std: np.ndarray


def select(trials: pd.DataFrame) -> pd.Series | None:
    """Return the trial of a group that is selected: the one of ``raw_best``."""
    return raw_best(trials)


def raw_best(trials: pd.DataFrame) -> pd.Series | None:
    """Return the completed trial of a group with the highest objective; the earlier one on ties.

    Args:
        trials: Rows of ``trials/`` of one group and one stage.

    Returns:
        The row, or None if no trial was completed.
    """
    completed = _completed(trials)
    return None if completed.empty else completed.iloc[0]


def selection(trials: pd.DataFrame) -> Selection | None:
    """Select a trial of a group: the highest posterior mean of a completed one.

    Stopped trials do not count, their accuracy is that of another training length; nor do diverged and collapsed
    ones. The test set takes no part.

    Args:
        trials: Rows of ``trials/`` of one group and one stage.

    Returns:
        The selected trial, or None if no trial was completed. Of equal posterior means the higher accuracy wins,
        then the earlier trial. In a group of more than ``MAX_TRIALS`` completed trials only some are looked at.
    """
    completed = _completed(trials)
    if completed.empty:
        return None
    best = completed.iloc[0]
    if len(completed) < MIN_TRIALS:
        return Selection(best, None, None, best, "raw")
    accuracies = completed["best_val_accuracy"].to_numpy(float)
    variance = paired_variance(completed.iloc[: (len(completed) + 1) // 2])  # collapsed trials disagree with all others
    top = completed[~_collapsed(accuracies, variance**0.5)]
    top = top.iloc[_spread(min(len(top), max(MAX_TRIALS, (len(completed) + 1) // 2)))]
    found = posterior(top["best_val_accuracy"].to_numpy(float), _squared_distances(top), variance)
    chosen = int(np.argmax(found.mean >= found.mean.max() - _TIE))
    return Selection(top.iloc[chosen], float(found.mean[chosen]), float(found.std[chosen]), best, "posterior")


def _completed(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that count, best first."""
    completed = trials[(trials["status"] == "completed") & trials["best_val_accuracy"].notna()]
    order = ["best_val_accuracy", "started_at", "trial_id"]
    return completed.sort_values(order, ascending=[False, True, True], kind="stable")


def _spread(count: int) -> np.ndarray:
    """At most ``MAX_TRIALS`` of the positions 0 to count - 1, the first and the last among them, evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_TRIALS)).round().astype(int))


def _collapsed(accuracies: np.ndarray, error: float) -> np.ndarray:
    """Which trials are so far below the best that they would bend the surface near the top.

    Args:
        accuracies: Shape (n,), best first.
        error: Standard deviation of an accuracy; smaller differences are none.

    Returns:
        Shape (n,), bool: True from some trial on.
    """
    below = accuracies[0] - accuracies
    far: np.ndarray = below > COLLAPSED * max(np.quantile(below, 0.25), error)
    # Where most trials collapsed the quartile is one of them; a gap shows them as well.
    gaps = np.diff(below) > GAP * np.maximum(below[:-1], error)
    far[ABOVE_GAP:] |= np.cumsum(gaps[ABOVE_GAP - 1 :]) > 0
    return far


def paired_variance(trials: pd.DataFrame) -> float:
    """Return the variance of the validation error of a trial that it does not share with the others.

    All trials are validated on the same samples, so what these have in common cancels. The variance of the difference
    of two trials (``analysis.level_summaries.paired_difference``) is that of two such errors.

    Args:
        trials: Rows of ``trials/`` with the same validation samples.

    Returns:
        Half the median over all pairs (of more than ``MAX_TRIALS`` trials: of some, spread evenly); 0 where fewer
        than two trials have their bits.
    """
    rows = [row for row in trials["val_correct_at_best"] if isinstance(row, bytes)]
    if len(rows) < 2:
        return 0.0
    rows = [rows[i] for i in _spread(len(rows))]
    n = int(trials["num_val"].iloc[0])
    packed = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
    correct = np.unpackbits(packed, axis=1, count=n).astype(np.float32)
    totals = correct.sum(axis=1, dtype=float)
    first, second = np.triu_indices(len(rows), 1)
    disagree = totals[first] + totals[second] - 2 * (correct @ correct.T)[first, second]
    variances = (disagree - (totals[first] - totals[second]) ** 2 / n) / n**2
    return float(np.median(variances)) / 2


def _squared_distances(trials: pd.DataFrame) -> np.ndarray:
    """How far apart trials are in each setting that differs, squared and standardised: shape (settings, n, n)."""
    columns = {
        "smooth_rate": np.log(np.maximum(1 - trials["smooth_rate"].to_numpy(float), _SMALLEST_SHARE)),
        "warmup_epochs": trials["warmup_epochs"].to_numpy(float) / trials["config_epochs"].to_numpy(float),
        "lr": np.log(trials["lr"].to_numpy(float)),
    }
    for name in trials.columns:
        if str(name).startswith("config_"):
            values = trials[name]
            if values.dtype.kind in "iuf":
                numbers = values.to_numpy(float)
                columns[name] = np.log(numbers) if (numbers > 0).all() else numbers
            else:
                columns[name] = values.astype(str).to_numpy(object)
    found = [_distance(values) for values in columns.values() if (values != values[0]).any()]
    return np.array(found).reshape(len(found), len(trials), len(trials))


def _distance(values: np.ndarray) -> np.ndarray:
    if values.dtype == object:
        # Two categories are as far apart as two values of a number are on average.
        return np.where(values[:, None] != values[None, :], 2.0, 0.0)
    squared: np.ndarray = ((values[:, None] - values[None, :]) / values.std()) ** 2
    return squared


def posterior(accuracies: np.ndarray, squared_distances: np.ndarray, variance: float) -> Posterior:
    """Return what configurations are worth, from one noisy accuracy each.

    A Gaussian process with an unknown constant mean and a Matern 5/2 kernel of one lengthscale a setting
    (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, 2.7 and 4.2.1), averaged over its
    hyperparameters, each combination weighted by its (restricted) marginal likelihood.

    Args:
        accuracies: Shape (n,).
        squared_distances: Of the configurations in each setting, shape (settings, n, n).
        variance: The least that the variance of an accuracy can be.

    Returns:
        Mean and standard deviation of the surface.
    """
    scale = float(accuracies.std())
    if scale == 0:
        return Posterior(accuracies, np.full(len(accuracies), (variance / len(accuracies)) ** 0.5))
    kernels = _matern(squared_distances, _lengthscales(len(squared_distances)))
    signal, added = (grid.ravel() ** 2 for grid in np.meshgrid(SIGNALS, SEED_NOISES))
    return average(accuracies, kernels, signal * scale**2, variance + added * scale**2)


def _lengthscales(settings: int) -> np.ndarray:
    """Lengthscales that fill their range evenly, shape (NUM_LENGTHSCALES, settings).

    The additive recurrence of the generalised golden ratio (Roberts, 2018): the same points every time, for any number
    of settings.
    """
    ratio = 2.0
    for _ in range(50):
        ratio = (1 + ratio) ** (1 / (settings + 1))
    steps = ratio ** -np.arange(1.0, settings + 1)
    even = (0.5 + np.outer(np.arange(NUM_LENGTHSCALES), steps)) % 1
    low, high = np.log(LENGTHSCALES)
    scales: np.ndarray = np.exp(low + even * (high - low))
    return scales


def _matern(squared_distances: np.ndarray, lengthscales: np.ndarray) -> Iterator[np.ndarray]:
    """Matern 5/2 correlations, shape (n, n), of one combination of lengthscales after another.

    Only one is held at a time: all of them would be hundreds of MB in an arm of 1,000 trials.
    """
    for scales in lengthscales:
        scaled = np.sqrt(5 * np.tensordot(scales**-2, squared_distances, 1))
        yield (1 + scaled + scaled**2 / 3) * np.exp(-scaled)


def average(
    accuracies: np.ndarray, kernels: Iterable[np.ndarray], signals: np.ndarray, noises: np.ndarray
) -> Posterior:
    """Return the posterior of the surface, averaged over kernels and pairs of variances.

    The unknown mean has a flat prior: the likelihood is that of the contrasts H'y, and the posterior mean of the
    surface is ``y - noise * H (signal * H'KH + noise * I)^-1 H'y``.

    Args:
        accuracies: y, shape (n,).
        kernels: Correlations K, k of them, each of shape (n, n).
        signals: Variances of the surface, shape (v,).
        noises: Variances of an accuracy around it, shape (v,), paired with ``signals``.

    Returns:
        Mean and standard deviation of the mixture.
    """
    n = len(accuracies)
    contrasts = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, 1:]]))[0][:, 1:]
    found = [_of_kernel(accuracies, kernel, contrasts, signals, noises) for kernel in kernels]
    evidence, means, within = (np.stack(part) for part in zip(*found, strict=True))
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    mean = np.tensordot(weights, means, 2)
    variance = np.tensordot(weights, within + (means - mean) ** 2, 2)
    return Posterior(mean, np.sqrt(np.maximum(variance, 0)))


def _of_kernel(
    accuracies: np.ndarray, kernel: np.ndarray, contrasts: np.ndarray, signals: np.ndarray, noises: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log evidence (v,), means and variances (v, n) of the surface under one kernel and all pairs of variances."""
    eigenvalues, vectors = np.linalg.eigh(contrasts.T @ kernel @ contrasts)
    vectors = contrasts @ vectors  # (n, n - 1)
    projected = (accuracies - accuracies.mean()) @ vectors  # (n - 1,)
    variances = signals[:, None] * np.maximum(eigenvalues, 0) + noises[:, None]  # (v, n - 1)
    evidence = -0.5 * (np.log(variances) + projected**2 / variances).sum(axis=-1)
    luck = noises[:, None] / variances  # the share of a contrast that is noise
    means = accuracies - (luck * projected) @ vectors.T
    return evidence, means, noises[:, None] * (1 - luck @ vectors.T**2)
