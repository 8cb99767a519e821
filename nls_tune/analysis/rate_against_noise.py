"""How the rate to use depends on the noise, beside the noise-cancelling rate of theory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nls_tune.analysis.rows import by_level, number, search_trials
from nls_tune.analysis.selection import best_first
from nls_tune.analysis.verdicts import Choice, Verdict
from nls_tune.noise import noise_cancelling_rate
from nls_tune.spaces.space import Arm

if TYPE_CHECKING:
    import pandas as pd

#: Resamples of the plausible interval, always the same ones.
RESAMPLES = 400
_AT_ONCE = 80
#: Points of the line of theory.
_LINE = 50
#: It ends at this rate: towards a noise of (K - 1) / K it falls without end.
_LOWEST_RATE = -20.0
#: A trial this many standard errors below the best one is the best of no resample (less than once in a million).
_HOPELESS = 5.0


@dataclass(frozen=True)
class BestRate:
    """The rate to use at one noise level.

    Attributes:
        noise_level: In its stored spelling.
        noise_rate: Share of wrong labels; None where unknown.
        estimated_noise_rate: From the noisy labels; None where not estimated.
        noise_cancelling_rate: The noise's r*; None where it does not exist.
        arm: Its arm.
        smooth_rate: That of the verdict.
        low: Lower end of the plausible interval: 2.5 % of the rates that resampled validation samples would select,
            see ``plausible_rates``; never above ``smooth_rate``. NaN where no trial has its validation bits.
        high: Its upper end, 97.5 %; never below ``smooth_rate``.
    """

    noise_level: str
    noise_rate: float | None
    estimated_noise_rate: float | None
    noise_cancelling_rate: float | None
    arm: Arm
    smooth_rate: float
    low: float
    high: float


@dataclass(frozen=True)
class RateAgainstNoise:
    """Best rates over noise levels, and the line of theory.

    Attributes:
        num_classes: K.
        levels: Those whose verdict says what to use, in the order of the run.
        theory_noise_rates: Symmetric noise rates, ascending, from 0 to a little over the largest one seen.
        theory_rates: The noise-cancelling rate of each; of the same length.
    """

    num_classes: int
    levels: tuple[BestRate, ...]
    theory_noise_rates: tuple[float, ...]
    theory_rates: tuple[float, ...]


def rate_against_noise(trials: pd.DataFrame, verdicts: Sequence[Verdict]) -> RateAgainstNoise | None:
    """Return the rates to use; None if no verdict says what to use.

    Args:
        trials: Rows of ``trials/``.
        verdicts: Those of the run.
    """
    rows = dict(by_level(search_trials(trials)))
    best = tuple(_best_rate(v, v.use, rows[v.noise_level]) for v in verdicts if v.use is not None)
    if not best:
        return None
    num_classes = int(trials["num_classes"].iloc[0])
    known = (b.estimated_noise_rate if b.noise_rate is None else b.noise_rate for b in best)
    noise_rates = _symmetric_noise([rate for rate in known if rate is not None], num_classes)
    return RateAgainstNoise(
        num_classes=num_classes,
        levels=best,
        theory_noise_rates=noise_rates,
        theory_rates=tuple(noise_cancelling_rate(rate, num_classes) for rate in noise_rates),
    )


def _best_rate(verdict: Verdict, use: Choice, rows: pd.DataFrame) -> BestRate:
    rate = float(use.config["smooth_rate"])
    low, high = plausible_rates(rows)
    return BestRate(
        noise_level=verdict.noise_level,
        noise_rate=verdict.noise_rate,
        estimated_noise_rate=verdict.estimated_noise_rate,
        noise_cancelling_rate=number(rows["noise_cancelling_rate"].iloc[0]),
        arm=use.arm,
        smooth_rate=rate,
        low=min(low, rate),
        high=max(high, rate),
    )


def _symmetric_noise(known: Sequence[float], num_classes: int) -> tuple[float, ...]:
    """Noise rates from 0 to a little over the largest one, or to where the rate of theory leaves all that is searched.

    ``1 - r = 1 / c`` with c the signal share, see ``noise.noise_cancelling_rate``.
    """
    if not known:
        return ()
    end = (1 - 1 / (1 - _LOWEST_RATE)) * (num_classes - 1) / num_classes
    return tuple(np.linspace(0, min(max(0.05, 1.1 * max(known)), end), _LINE).tolist())


def plausible_rates(trials: pd.DataFrame) -> tuple[float, float]:
    """Return the rates that other validation samples of the same kind might have selected.

    The bootstrap over the validation samples: each resample draws as many with replacement, the same ones for all
    trials, and selects the completed trial, of all arms, that gets most of them right at its best epoch. The interval
    is the middle 95 % of the selected rates, both ends rates that were trained. It covers the luck of the validation
    samples. It does not cover that of training seeds (each trial is trained once), nor rates that were not tried;
    it is wide where many rates do about equally well.

    Args:
        trials: Rows of ``trials/`` of one noise level and one stage.

    Returns:
        Lower and upper end; NaN where no completed trial has its validation bits.
    """
    rows = best_first(trials)  # so that of equal trials the one counts that would be selected
    rows = rows[[isinstance(bits, bytes) for bits in rows["val_correct_at_best"]]]
    if rows.empty:
        return np.nan, np.nan
    n, rates = int(rows["num_val"].iloc[0]), rows["smooth_rate"].to_numpy(float)
    packed = np.frombuffer(b"".join(rows["val_correct_at_best"]), np.uint8).reshape(len(rows), -1)
    correct = np.unpackbits(packed, axis=1, count=n)
    best = correct[correct.sum(axis=1, dtype=np.int64).argmax()]
    only_best, only_other = (best > correct).sum(axis=1), (best < correct).sum(axis=1)
    behind = only_best - only_other
    contenders = behind <= _HOPELESS * np.sqrt(only_best + only_other - behind**2 / n)
    selected = _selected_by_resamples(correct[contenders].astype(np.float32))
    low, high = np.quantile(rates[contenders][selected], [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def _selected_by_resamples(correct: np.ndarray) -> np.ndarray:
    """Return the row with the highest sum in each resample of the columns, the first on ties: shape (RESAMPLES,).

    Args:
        correct: Which trial gets which sample right, 0 or 1, shape (trials, n).
    """
    n, random, selected = correct.shape[1], np.random.default_rng(0), []
    for _ in range(RESAMPLES // _AT_ONCE):  # in blocks, because validation sets can be large
        drawn = random.integers(0, n, (_AT_ONCE, n)) + n * np.arange(_AT_ONCE)[:, None]
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        selected.append((correct @ times.T.astype(np.float32)).argmax(axis=0))
    return np.concatenate(selected)
