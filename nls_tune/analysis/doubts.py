"""What speaks against a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nls_tune.analysis.confirmation import LevelConfirmation, PairedComparison, can_reach
from nls_tune.analysis.learned import effective_samples
from nls_tune.analysis.level_summaries import Z95, LevelSummary
from nls_tune.analysis.rows import log_share, rate_trials, search_trials
from nls_tune.runs.schemas import objective_columns
from nls_tune.spaces.settings import RATE_ARMS, Arm

if TYPE_CHECKING:
    import pandas as pd

#: What speaks against taking a verdict as it is.
DoubtKind = Literal[
    "two_seeds",  # the confirmation has no more
    "few_seeds",  # the sign-flip test of so few seeds cannot reach 5 %, corrected over the levels
    "noisy_test",  # the test labels are given ones like those that are trained on
    "small_test_set",  # the luck of the test samples alone could make the gain
    "going_on",  # not all planned trials of the level have ended, or not all of its confirmation
    "too_noisy",  # right labels do not outweigh wrong ones, so noisy validation cannot choose
    "few_trials",  # an arm had fewer than MIN_TRIALS completed trials
    "at_the_edge",  # the best rate is at the edge of what was searched
    "asymmetric_noise",  # validation on noisy labels need not rank configurations as clean labels would
    "noisy_metric",  # another metric than accuracy selects, which noisy labels need not preserve
    "many_diverged",  # of the best rate's arm more than a quarter, in the search or after it, or a fresh seed at once
    "other_ce_stronger",  # on fresh seeds another CE, as that with the defaults, was stronger than the selected one
]

#: An arm with fewer completed trials has hardly been searched.
MIN_TRIALS = 8
#: A rate this close to an end of its range, as a share of the range in log(1 - r), is at the edge.
_EDGE = 0.02


@dataclass(frozen=True, eq=False)
class Level:
    """Everything that is known of one noise level.

    ``rows`` are those of all stages, ``num_claims`` the number of levels over which p values are corrected, ``planned``
    the numbers of planned search trials by arm (empty where unknown), ``rate`` the range of the rate; ``val_clean`` and
    ``test_clean`` are what a user said of the validation and the test labels.
    """

    rows: pd.DataFrame
    summary: LevelSummary
    confirmation: LevelConfirmation | None
    num_claims: int
    planned: Mapping[str, int]
    rate: Mapping[str, Any] | None
    val_clean: bool
    test_clean: bool

    @property
    def confirmed(self) -> LevelConfirmation | None:
        """The confirmation, once it has trained each selected configuration."""
        done = self.rows[(self.rows["stage"] == "confirm") & (self.rows["status"] != "interrupted")]
        return self.confirmation if set(self.summary.arms) <= set(done["arm"]) else None

    @property
    def num_val(self) -> float:
        """The number of validation samples; of a metric that weighs classes alike, the effective one."""
        if self.summary.metric != "accuracy":
            for counts in self.rows["val_counts_at_best"].dropna():
                return effective_samples(counts[: self.summary.num_classes])
        return int(self.rows["num_val"].max())

    @property
    def has_ce(self) -> bool:
        """Whether CE is a part of the search: without it nothing can be compared."""
        return "ce" in self.planned or bool((self.rows["arm"] == "ce").any())


def doubts(
    level: Level, rate: tuple[Arm, float] | None, comparison: PairedComparison | None, *, has_use: bool
) -> tuple[DoubtKind, ...]:
    """Return what speaks against the verdict of a level.

    ``rate`` is the best one other than 0, with its arm (0 for another loss), and ``comparison`` that with the strongest
    CE; ``has_use`` says whether the verdict names something to use.
    """
    summary, search = level.summary, search_trials(level.rows)
    kinds: dict[DoubtKind, bool] = {
        "two_seeds": comparison is not None and comparison.difference.num_seeds == 2,
        "few_seeds": comparison is not None and not can_reach(comparison, max(1, level.num_claims)),
        "noisy_test": comparison is not None and not level.test_clean,
        "small_test_set": comparison is not None and comparison.proven and _within_test_error(comparison),
        "going_on": _going_on(level, search),
    }
    if has_use:
        completed = search[search["status"] == "completed"].groupby("arm").size()
        kinds |= {
            "too_noisy": not level.val_clean
            and summary.noise_rate is not None
            and summary.noise_cancelling_rate is None,
            "asymmetric_noise": not level.val_clean and summary.metric == "accuracy" and not _is_symmetric(summary),
            "noisy_metric": not level.val_clean and summary.metric != "accuracy" and summary.noise_rate != 0,
            "other_ce_stronger": _other_ce_stronger(level),
            "few_trials": any(completed.get(a, 0) < MIN_TRIALS for a in search["arm"].unique()),
        }
    if has_use and rate is not None:
        # A sweep tries whatever lies in the space, also where it is known to fail.
        swept = level.rows["stage"].isin(["sweep_search", "sweep"])
        of_arm = level.rows[(level.rows["arm"] == rate[0]) & ~swept]
        kinds |= {
            "at_the_edge": rate[0] in RATE_ARMS
            and _at_the_edge(rate[1], level.rate, rate_trials(search)["smooth_rate"]),
            "many_diverged": _many_diverged(of_arm, objective_columns(summary.metric).best_val),
        }
    return tuple(kind for kind, holds in kinds.items() if holds)


def _many_diverged(rows: pd.DataFrame, best_val: str) -> bool:
    diverged = rows["status"] == "diverged"
    at_once = diverged & (rows["stage"] == "confirm") & rows[best_val].isna()
    return bool(diverged.groupby(rows["stage"]).mean().max() > 0.25 or at_once.any())


def _within_test_error(comparison: PairedComparison) -> bool:
    error = comparison.test_error
    return error is not None and abs(comparison.difference.mean) <= Z95 * error


def _going_on(level: Level, search: pd.DataFrame) -> bool:
    ended = int((search["status"] != "interrupted").sum())
    if ended < sum(level.planned.values()):
        return True
    if level.confirmation is None:
        return False
    counts = {len(found.seeds) for found in level.confirmation.configurations}
    failed = level.rows[
        (level.rows["stage"] == "confirm") & level.rows[objective_columns(level.summary.metric).best_val].isna()
    ]
    # A seed that failed is missing for good.
    return level.confirmed is None or (len(counts) > 1 and failed.empty)


def _is_symmetric(summary: LevelSummary) -> bool:
    kind = summary.noise_level.partition(":")[0]
    if summary.noise_rate == 0 or kind in ("clean", "symmetric"):
        return True
    return kind == "pairflip" and summary.num_classes == 2  # there is only one other class


def _other_ce_stronger(level: Level) -> bool:
    found, selected = level.confirmed, level.summary.arms.get("ce")
    if found is None or found.strongest_ce is None or selected is None:
        return False
    return found.configurations[found.strongest_ce].config != selected.config


def _at_the_edge(rate: float, parameter: Mapping[str, Any] | None, tried: pd.Series) -> bool:
    low, high = float(tried.min()), float(tried.max())
    if parameter is not None:
        ends = parameter.get("values") or [parameter.get("low"), parameter.get("high")]
        if all(isinstance(end, int | float) for end in ends):
            low, high = min(ends), max(ends)
    near, far, here = log_share(np.array([high, low, rate])).tolist()
    return bool(min(here - near, far - here) <= _EDGE * (far - near))
