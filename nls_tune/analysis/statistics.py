"""The statistics that comparisons of a few seeds need: t intervals, exact sign-flip tests, Holm's correction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Above this many pairs the 2^n sign flips are too many to list.
MAX_SIGN_FLIPS = 20
_POWER = 0.8


@dataclass(frozen=True)
class SampleMean:
    """A mean over seeds with its 95 % t interval, and the sample's standard deviation, with n - 1.

    For one seed the interval is the whole line, and the standard deviation NaN.
    """

    num_seeds: int
    mean: float
    standard_deviation: float
    low: float
    high: float


def sample_mean(values: Sequence[float]) -> SampleMean:
    """Return the mean of a sample, one value per seed, with its 95 % t interval.

    Raises:
        ValueError: If there is no value.
    """
    if not values:
        raise ValueError("a mean needs at least one value, got none")
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return SampleMean(1, mean, math.nan, -math.inf, math.inf)
    deviation = float(np.std(values, ddof=1))
    half = t_quantile(0.975, n - 1) * deviation / math.sqrt(n)
    return SampleMean(n, mean, deviation, mean - half, mean + half)


def share_interval(share: float, num_samples: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share that was found among independent samples, at least one."""
    z = 1.959963984540054
    weight = z * z / num_samples
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / num_samples + weight / (4 * num_samples))
    return max(0.0, centre - half), min(1.0, centre + half)


def t_quantile(probability: float, degrees_of_freedom: int) -> float:
    """Return a quantile of Student's t distribution."""
    from scipy.special import stdtrit  # scipy.stats has the same and takes far longer to import

    return float(stdtrit(degrees_of_freedom, probability))


def paired_t_p(differences: Sequence[float]) -> float:
    """Return the two-sided p value of the paired t test of a mean difference of 0, from one difference per seed.

    It is 1 for fewer than two differences, and where all are equal: accuracies are multiples of one over the number of
    samples, so a few equal differences are a coincidence of rounding and no certainty.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2 or float(np.ptp(values)) < 1e-12:
        return 1.0
    from scipy.special import stdtr

    t = abs(float(values.mean())) / (float(values.std(ddof=1)) / math.sqrt(len(values)))
    return 2 * float(stdtr(len(values) - 1, -t))


def detectable_difference(standard_deviation: float, num_pairs: int, significance: float = 0.05) -> float:
    """Return the smallest true difference that a paired t test would have found.

    Two-sided with 80 % power: ``(t(1 - significance / 2) + t(0.8)) * sd / sqrt(n)`` with n - 1 degrees of freedom
    (Cochran's approximation to the noncentral t). One pair can detect nothing: infinity.
    """
    if num_pairs < 2:
        return math.inf
    factor = t_quantile(1 - significance / 2, num_pairs - 1) + t_quantile(_POWER, num_pairs - 1)
    return factor * standard_deviation / math.sqrt(num_pairs)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the exact two-sided p value of the sign-flip test of a mean difference of 0.

    Under the null hypothesis each paired difference is as likely to have either sign: p is the share of all
    2^n assignments of signs whose absolute sum is at least the observed one. Nothing else is assumed. The smallest
    p that n pairs can give is ``2 / 2**n``.

    Raises:
        ValueError: If there is no difference, or more than ``MAX_SIGN_FLIPS``.
    """
    n = len(differences)
    if not 1 <= n <= MAX_SIGN_FLIPS:
        raise ValueError(f"the sign-flip test takes 1 to {MAX_SIGN_FLIPS} differences, got {n}")
    values = np.asarray(differences, dtype=np.float64)
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    sums = np.abs(signs @ values)
    # Sums of the same numbers in another order differ by rounding; they must count as equal.
    tolerance = 1e-12 * float(np.abs(values).sum())
    return float(np.mean(sums >= abs(values.sum()) - tolerance))


def smallest_sign_flip_p(num_pairs: int) -> float:
    """Return the smallest p value that the sign-flip test can give with n pairs."""
    return min(1.0, 2.0 ** (1 - num_pairs))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected by Holm's step-down method, in the order given.

    Rejecting those at most 0.05 keeps the probability of any false rejection at 5 % (Holm, "A Simple Sequentially
    Rejective Multiple Test Procedure", 1979).
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return corrected
