"""Which configuration to use at each noise level, what supports it, and what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nls_tune.analysis.level_summaries import PairedDifference
from nls_tune.analysis.statistics import SampleMean
from nls_tune.spaces import Arm

if TYPE_CHECKING:
    import pandas as pd

#: What is proven of the recommended configuration against the strongest CE, on test with fresh seeds.
#: ``cross_entropy``: it is CE. ``unconfirmed``: one fresh seed or none, or no test set. ``nothing``: no completed trial.
Verdict = Literal["better", "worse", "no_proven_difference", "cross_entropy", "unconfirmed", "nothing"]
#: What speaks against taking the recommendation as it is.
DoubtKind = Literal[
    "few_seeds",  # the sign-flip test of so few seeds cannot reach 5 %
    "few_trials",  # an arm had fewer completed trials than selection can smooth
    "at_the_edge",  # the rate is at the edge of what was searched
    "asymmetric_noise",  # validation on noisy labels need not rank configurations as clean labels would
    "within_error",  # on validation the difference to CE (or of CE to the next) is within its error
    "many_diverged",  # more than a quarter of the arm's trials diverged
    "going_on",  # trials of the level are still to end
    "no_test_set",  # nothing but noisy labels has been looked at
    "default_ce_stronger",  # CE with the defaults was stronger than the CE that the search selected
]


@dataclass(frozen=True)
class Recommendation:
    """One configuration for one noise level.

    Attributes:
        noise_level: In its stored spelling.
        verdict: What is proven.
        arm: Of the configuration; None, like ``config``, for ``nothing``.
        config: The settings that were searched.
        best_epoch: At which to stop: of the selected trial.
        strongest_ce: The settings of the CE that it is compared with; None without one.
        difference: Test accuracy minus that of the strongest CE over fresh seeds; None without a confirmation.
        detectable: The smallest true difference that this confirmation could have found.
        sign_flip_p: Exact p value of no difference, corrected over the levels (Holm).
        validation: Recommended minus rival of the search, on validation; see ``LevelSummary``.
        doubts: What speaks against it, each kind at most once.
    """

    noise_level: str
    verdict: Verdict
    arm: Arm | None
    config: dict[str, Any] | None
    best_epoch: int | None
    strongest_ce: dict[str, Any] | None
    difference: SampleMean | None
    detectable: float | None
    sign_flip_p: float | None
    validation: PairedDifference | None
    doubts: tuple[DoubtKind, ...]


def recommendations(
    trials: pd.DataFrame, levels: Sequence[str] = (), planned: dict[str, int] | None = None
) -> tuple[Recommendation, ...]:
    """Return one recommendation for each noise level that has search trials.

    Where a confirmation ran, the recommended configuration is the confirmed one with the highest mean validation
    accuracy; else it is that of the search. The test set never takes part in the choice.

    Args:
        trials: Rows of ``trials/``.
        levels: The order of the levels.
        planned: Search trials planned, by level; where fewer have ended, the recommendation says so.
    """
    raise NotImplementedError
