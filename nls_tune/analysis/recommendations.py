"""Which configuration to use at each noise level, what supports it, and what speaks against it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.confirmation import LevelConfirmation, PairedComparison, can_reach, confirmations
from nls_tune.analysis.level_summaries import LevelSummary, PairedDifference, level_summaries
from nls_tune.analysis.rows import have_settings, log_share, search_trials
from nls_tune.analysis.selection import best_first
from nls_tune.analysis.statistics import SampleMean
from nls_tune.runs import Run
from nls_tune.spaces.space import ARMS, Arm

if TYPE_CHECKING:
    import pandas as pd

#: What is proven of the recommended configuration against the strongest CE, on test with fresh seeds.
#: ``cross_entropy``: it is CE. ``unconfirmed``: one fresh seed or none, no test set, or no CE. ``nothing``: no
#: completed trial.
Verdict = Literal["better", "worse", "no_proven_difference", "cross_entropy", "unconfirmed", "nothing"]
#: What speaks against taking the recommendation as it is.
DoubtKind = Literal[
    "few_seeds",  # the sign-flip test of so few seeds cannot reach 5 %, corrected over the levels
    "too_noisy",  # right labels do not outweigh wrong ones, so noisy validation cannot choose
    "few_trials",  # an arm had fewer than MIN_TRIALS completed trials
    "at_the_edge",  # the rate is at the edge of what was searched
    "asymmetric_noise",  # validation on noisy labels need not rank configurations as clean labels would
    "within_error",  # on validation the difference to CE (or of CE to the next) is within its error
    "many_diverged",  # more than a quarter of the arm's trials diverged
    "going_on",  # not all planned trials of the level have ended, or not all of its confirmation
    "no_test_set",  # nothing but noisy labels has been looked at
    "default_ce_stronger",  # CE with the defaults was stronger than the CE that the search selected
]

#: An arm with fewer completed trials has hardly been searched.
MIN_TRIALS = 8
#: A rate this close to an end of its range, as a share of the range in log(1 - r), is at the edge.
_EDGE = 0.02


@dataclass(frozen=True)
class Recommendation:
    """One configuration for one noise level.

    Attributes:
        noise_level: In its stored spelling.
        verdict: What is proven.
        arm: The configuration's arm; None, like ``config``, for ``nothing``.
        config: The settings that were searched.
        best_epoch: The epoch at which to stop: the selected trial's best one.
        strongest_ce: The settings of the CE that it is compared with; None without one.
        difference: Test accuracy minus that of the strongest CE over fresh seeds; None without a confirmation.
        detectable: The smallest true difference that this confirmation could have found.
        sign_flip_p: Exact p value of no difference, corrected over the levels (Holm).
        validation: Recommended minus rival of the search, on validation; see ``LevelSummary``. None where fresh seeds
            recommend another configuration than the search does.
        doubts: What speaks against it, each kind at most once.
        num_seeds: How many fresh seeds its validation accuracy was compared with; None where it is the search's.
        trial_id: The search's completed trial with this configuration; None where there is none.
        val_accuracy: Validation accuracy at the best epoch: the mean over the fresh seeds, else the search's trial's.
    """

    noise_level: str
    verdict: Verdict
    arm: Arm | None
    config: Config | None
    best_epoch: int | None
    strongest_ce: Config | None
    difference: SampleMean | None
    detectable: float | None
    sign_flip_p: float | None
    validation: PairedDifference | None
    doubts: tuple[DoubtKind, ...]
    num_seeds: int | None = None
    trial_id: str | None = None
    val_accuracy: float | None = None


def recommendations(
    trials: pd.DataFrame,
    levels: Sequence[str] = (),
    planned: Mapping[str, int] | None = None,
    *,
    space: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Recommendation, ...]:
    """Return one recommendation for each noise level that has search trials.

    Where a confirmation ran, the recommended configuration is the confirmed one with the highest mean validation
    accuracy; else, and until each selected configuration has been confirmed at least once, it is that of the search.
    The test set never takes part in the choice.

    ``better`` and ``worse`` need a t interval that excludes 0 and, where so many seeds can reach it, a sign-flip p
    value, corrected over the levels, of at most 5 %.

    Args:
        trials: Rows of ``trials/``.
        levels: The order of the levels.
        planned: Search trials planned, by level; where fewer have ended, the recommendation says so.
        space: The searched settings: where the range of the rate ends. Without it
            the range is that of the rates that were tried.
    """
    return _find(trials, levels, planned, space).recommendations


@dataclass(frozen=True, eq=False)
class Findings:
    """What the search and the confirmation of a run found at each noise level, and what to use."""

    summaries: tuple[LevelSummary, ...]
    confirmations: tuple[LevelConfirmation, ...]
    recommendations: tuple[Recommendation, ...]


def find(run: Run) -> Findings:
    """Return what a run found at its noise levels."""
    return _find(run.trials, run.levels, run.content.planned_trials, run.content.searched or None)


def _find(
    trials: pd.DataFrame,
    levels: Sequence[str],
    planned: Mapping[str, int] | None,
    space: Mapping[str, Mapping[str, Any]] | None,
) -> Findings:
    summaries, confirmed = level_summaries(trials, levels, space), confirmations(trials, levels)
    confirmed_at = {found.noise_level: found for found in confirmed}
    num_claims = sum(found.comparisons[found.recommended] is not None for found in confirmed)
    found = tuple(
        _recommend(
            _Level(
                rows=trials[trials["noise_level"] == summary.noise_level],
                summary=summary,
                confirmation=confirmed_at.get(summary.noise_level),
                num_claims=num_claims,
                planned=None if planned is None else planned.get(summary.noise_level),
                rate=None if space is None else space.get("smooth_rate"),
            )
        )
        for summary in summaries
    )
    return Findings(summaries, confirmed, found)


@dataclass(frozen=True, eq=False)
class _Level:
    """What is known of one noise level.

    Attributes:
        rows: The rows of all stages.
        num_claims: Over how many levels p values are corrected.
        planned: How many search trials are planned.
        rate: The range of the rate.
    """

    rows: pd.DataFrame
    summary: LevelSummary
    confirmation: LevelConfirmation | None
    num_claims: int
    planned: int | None
    rate: Mapping[str, Any] | None

    @property
    def confirmed(self) -> LevelConfirmation | None:
        """The confirmation, once it has trained each selected configuration: before that it compares some of them."""
        done = self.rows[(self.rows["stage"] == "confirm") & (self.rows["status"] != "interrupted")]
        return self.confirmation if set(self.summary.arms) <= set(done["arm"]) else None


def _recommend(level: _Level) -> Recommendation:
    summary, found = level.summary, level.confirmed
    arm, config, ce, num_seeds, accuracy = summary.recommended, None, None, None, None
    comparison: PairedComparison | None = None
    if found is not None:
        best = found.configurations[found.recommended]
        comparison = found.comparisons[found.recommended]
        arm, config, num_seeds = best.arm, best.config, len(best.seeds)
        accuracy = best.validation.mean
        ce = None if found.strongest_ce is None else found.configurations[found.strongest_ce].config
    elif arm is not None:
        config, accuracy = summary.arms[arm].config, summary.arms[arm].val_accuracy
        ce = summary.arms["ce"].config if "ce" in summary.arms else None
    trial_id, best_epoch = (None, None) if config is None else _trial(level, config)
    search_choice = None if summary.recommended is None else summary.arms[summary.recommended].config
    validation = summary.validation if search_choice == config else None
    return Recommendation(
        noise_level=summary.noise_level,
        verdict=_verdict(arm, comparison),
        arm=arm,
        config=config,
        best_epoch=best_epoch,
        strongest_ce=ce,
        difference=None if comparison is None else comparison.difference,
        detectable=None if comparison is None else comparison.detectable,
        sign_flip_p=None if comparison is None else comparison.holm_p,
        validation=validation,
        doubts=_doubts(level, arm, config, comparison, validation),
        num_seeds=num_seeds,
        trial_id=trial_id,
        val_accuracy=accuracy,
    )


def _verdict(arm: Arm | None, comparison: PairedComparison | None) -> Verdict:
    if arm is None:
        return "nothing"
    if arm == "ce":
        return "cross_entropy"
    if comparison is None or comparison.difference.num_seeds < 2:
        return "unconfirmed"
    if not comparison.proven:
        return "no_proven_difference"
    return "better" if comparison.difference.mean > 0 else "worse"


def _trial(level: _Level, config: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Return the search's trial of a configuration and its best epoch; without one, the median of the fresh seeds'."""
    rows = level.rows[have_settings(level.rows, config)]
    searched = best_first(search_trials(rows))
    if not searched.empty:
        return str(searched["trial_id"].iloc[0]), int(searched["best_epoch"].iloc[0])
    epochs = rows.loc[rows["stage"] == "confirm", "best_epoch"].dropna()
    return None, None if epochs.empty else math.floor(float(epochs.median()) + 0.5)


# Doubts


def _doubts(
    level: _Level,
    arm: Arm | None,
    config: Mapping[str, Any] | None,
    comparison: PairedComparison | None,
    validation: PairedDifference | None,
) -> tuple[DoubtKind, ...]:
    summary = level.summary
    search = search_trials(level.rows)
    kinds: dict[DoubtKind, bool] = {"going_on": _going_on(level, search)}
    if arm is not None and config is not None:
        of_arm = search[search["arm"] == arm]
        completed = search[search["status"] == "completed"].groupby("arm").size()
        rate = config["smooth_rate"]
        kinds |= {
            "too_noisy": summary.noise_rate is not None and summary.noise_cancelling_rate is None,
            "few_seeds": comparison is not None and not can_reach(comparison, level.num_claims),
            "no_test_set": bool((search["num_test"] == 0).all()),
            "within_error": validation is not None and not (validation.distinct and validation.difference > 0),
            "asymmetric_noise": not _is_symmetric(summary),
            "default_ce_stronger": _default_ce_stronger(level),
            "at_the_edge": arm != "ce" and _at_the_edge(rate, level.rate, search["smooth_rate"]),
            "few_trials": any(completed.get(a, 0) < MIN_TRIALS for a in ARMS if (search["arm"] == a).any()),
            "many_diverged": bool((of_arm["status"] == "diverged").mean() > 0.25),
        }
    return tuple(kind for kind, holds in kinds.items() if holds)


def _going_on(level: _Level, search: pd.DataFrame) -> bool:
    ended = int((search["status"] != "interrupted").sum())
    if level.planned is not None and ended < level.planned:
        return True
    if level.confirmation is None:
        return False
    counts = {len(found.seeds) for found in level.confirmation.configurations}
    failed = level.rows[(level.rows["stage"] == "confirm") & level.rows["best_val_accuracy"].isna()]
    # A seed that failed is missing for good.
    return level.confirmed is None or (len(counts) > 1 and failed.empty)


def _is_symmetric(summary: LevelSummary) -> bool:
    kind = summary.noise_level.partition(":")[0]
    if summary.noise_rate == 0 or kind in ("clean", "symmetric"):
        return True
    return kind == "pairflip" and summary.num_classes == 2  # there is only one other class


def _default_ce_stronger(level: _Level) -> bool:
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
