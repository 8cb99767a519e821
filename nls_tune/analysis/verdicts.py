"""The verdict of each noise level: what to use, and whether a smooth rate is proven to beat cross-entropy (CE).

One pure function decides, from whatever there is; every screen, page, file and figure shows what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.choices import Choice, confirmed_choice, searched_choice
from nls_tune.analysis.confirmation import (
    LevelConfirmation,
    PairedComparison,
    best_besides_ce,
    best_of_methods,
    confirmations,
    count_claims,
)
from nls_tune.analysis.doubts import DoubtKind, Level, doubts
from nls_tune.analysis.learned import is_at_chance, is_rising
from nls_tune.analysis.level_summaries import LevelSummary, PairedDifference, level_summaries, paired_trials
from nls_tune.analysis.rows import have_settings, search_trials
from nls_tune.analysis.selection import select
from nls_tune.analysis.statistics import SampleMean
from nls_tune.metrics import Metric
from nls_tune.runs import Run
from nls_tune.spaces.settings import RATE_ARMS, Arm, method_of

if TYPE_CHECKING:
    import pandas as pd

#: Returns the rows of ``epochs/`` of some trials.
_EpochsOf = Callable[[Sequence[str]], "pd.DataFrame"]
#: What is known of the best rate other than 0 against the strongest CE, on clean test labels with fresh seeds.
Finding = Literal["better", "no_proven_difference", "worse", "not_confirmed", "not_trained_enough"]
#: Why a level is ``not_trained_enough`` or ``not_confirmed``.
Reason = Literal[
    "nothing_completed",  # no trial was completed
    "no_ce_completed",  # no trial of CE was completed
    "ce_at_chance",  # the strongest CE is within its error of guessing
    "ce_rising",  # the strongest CE is still rising steeply at its last epoch
    "no_ce",  # the search tries no CE
    "no_rate",  # no rate other than 0 was completed
    "no_test_set",  # nothing but noisy labels has been looked at
    "no_fresh_seeds",  # no confirmation, or not yet of every selected configuration
    "one_seed",  # one fresh seed in common
]


@dataclass(frozen=True)
class MethodFinding:
    """What is known of one method at one noise level.

    Attributes:
        method: ``gls``, which is both signs of its rate, or another loss.
        choice: Its best configuration, on mean validation accuracy over fresh seeds, else in the search.
        finding: What is known of it against the strongest CE.
        difference: Its test accuracy minus that of the strongest CE over fresh seeds; None without a confirmation.
        sign_flip_p: Exact p value of no difference, corrected over levels and methods; None where nothing is claimed.
    """

    method: str
    choice: Choice
    finding: Finding
    difference: SampleMean | None
    sign_flip_p: float | None


@dataclass(frozen=True)
class Verdict:
    """The answer at one noise level, and the doubts that speak against it.

    Attributes:
        finding: What is known of the best rate against the strongest CE.
        reason: Why not more is known; None where it is.
        use: What to use: the rate where it is proven better, else the strongest CE. The best rate where the search
            tries no CE; None where nothing can be said.
        ce: The strongest CE: the better, on mean validation accuracy, of the selected one and CE with the defaults.
        rate: The best configuration besides CE, on mean validation accuracy, of those that are proven better than CE
            if there are any: a rate other than 0, or another loss.
        difference: Test accuracy of ``rate`` minus that of ``ce`` over fresh seeds; None without a confirmation.
        detectable: The smallest true difference that this confirmation would have found with a probability of 80 %.
        sign_flip_p: Exact p value of no difference, corrected over levels and methods (Holm); None where nothing is
            claimed.
        search_difference: ``rate`` minus ``ce`` on validation in the search: one trial each, the best of many, so
            that luck alone makes it large; None where the search lacks one of them, CE has not learned, or another
            metric than accuracy selects.
        methods: What is known of each method, where other losses were compared; else empty.
        metric: What the run selects by; accuracies are its values.
    """

    noise_level: str
    noise_rate: float | None
    estimated_noise_rate: float | None
    finding: Finding
    reason: Reason | None
    use: Choice | None
    ce: Choice | None
    rate: Choice | None
    difference: SampleMean | None
    detectable: float | None
    sign_flip_p: float | None
    search_difference: PairedDifference | None
    doubts: tuple[DoubtKind, ...]
    methods: tuple[MethodFinding, ...] = ()
    metric: Metric = "accuracy"


@dataclass(frozen=True, eq=False)
class Findings:
    """What the search and the confirmation of a run found at each noise level, and the verdicts."""

    summaries: tuple[LevelSummary, ...]
    confirmations: tuple[LevelConfirmation, ...]
    verdicts: tuple[Verdict, ...]


def find(run: Run) -> Findings:
    """Return what a run found at its noise levels."""
    content = run.content
    return findings(
        run.trials, run.epochs_of, run.levels, {level.noise_level: level.trials for level in content.plan},
        space=content.searched or None,
        metric=content.metric,
        val_clean=content.data is not None and content.data.val_clean,
        test_clean=content.data is None or content.data.test_clean,
    )  # fmt: skip


def findings(
    trials: pd.DataFrame,
    epochs_of: _EpochsOf | None = None,
    levels: Sequence[str] = (),
    planned: Mapping[str, Mapping[str, int]] | None = None,
    *,
    space: Mapping[str, Mapping[str, Any]] | None = None,
    metric: Metric = "accuracy",
    val_clean: bool = False,
    test_clean: bool = True,
) -> Findings:
    """Return the findings of a run; the test set takes no part in a choice.

    ``better`` and ``worse`` are what `PairedComparison` calls proven, and validation prefers such a rate to CE.

    ``epochs_of`` returns the rows of ``epochs/`` of some trials; without it no CE counts as rising. ``planned`` are
    the numbers of planned search trials by level and arm: whether CE is among them. ``space`` holds the searched
    settings: where the range of the rate ends (by default with the rates that were tried). The ``metric`` is what the
    run selects by. With ``val_clean`` validation labels are clean; without ``test_clean`` test labels are as noisy as
    those that are trained on.
    """
    summaries, confirmed = level_summaries(trials, levels, metric), confirmations(trials, levels, metric)
    confirmed_at, num_claims = {found.noise_level: found for found in confirmed}, count_claims(confirmed)
    at_levels = [
        Level(
            rows=trials[trials["noise_level"] == summary.noise_level],
            summary=summary,
            confirmation=confirmed_at.get(summary.noise_level),
            num_claims=num_claims,
            planned=(planned or {}).get(summary.noise_level, {}),
            rate=None if space is None else space.get("smooth_rate"),
            val_clean=val_clean,
            test_clean=test_clean,
        )
        for summary in summaries
    ]
    verdicts = tuple(_verdict(level, epochs_of) for level in at_levels)
    used = {found.noise_level: None if found.use is None else found.use.config for found in verdicts}
    unlearned = {found.noise_level for found in verdicts if found.finding == "not_trained_enough"}
    return Findings(
        tuple(replace(s, used=_arm_of(s, used[s.noise_level])) for s in summaries),
        tuple(
            _without_gains(c) if c.noise_level in unlearned else replace(c, used=_index_of(c, used.get(c.noise_level)))
            for c in confirmed
        ),
        verdicts,
    )


def _arm_of(summary: LevelSummary, config: Config | None) -> Arm | None:
    return next((arm for arm, found in summary.arms.items() if found.config == config), None)


def _index_of(confirmation: LevelConfirmation, config: Config | None) -> int | None:
    return next((i for i, found in enumerate(confirmation.configurations) if found.config == config), None)


def _without_gains(found: LevelConfirmation) -> LevelConfirmation:
    """Leave out the differences to a CE that has not learned: no table and no figure may state them as gains."""
    configurations = tuple(
        replace(one, on_all_labels=one.on_all_labels and replace(one.on_all_labels, difference=None))
        for one in found.configurations
    )
    return replace(found, configurations=configurations, comparisons=(None,) * len(configurations))


def _verdict(level: Level, epochs_of: _EpochsOf | None) -> Verdict:
    summary, found = level.summary, level.confirmed
    comparison: PairedComparison | None = None
    if found is not None:
        best = best_besides_ce(found)
        ce = None if found.strongest_ce is None else confirmed_choice(level, found, found.strongest_ce)
        rate = None if best is None else confirmed_choice(level, found, best)
        comparison = None if best is None else found.comparisons[best]
    else:
        ce, rate = (searched_choice(level, arms) for arms in (("ce",), [arm for arm in summary.arms if arm != "ce"]))
    ce = ce or searched_choice(level, ("ce",))
    finding: Finding = "not_trained_enough"
    if reason := _not_trained(level, ce, rate, epochs_of):
        comparison = None  # it would state a gain against a CE that has not learned
    else:
        finding, reason = _compared(level, ce, rate, comparison)
    if finding == "better" and _may_vanish(level, ce, rate, epochs_of):
        finding, reason, comparison = "not_trained_enough", "ce_rising", None
    use = ce or (rate if reason == "no_ce" else None)
    if finding == "better":
        use = rate
    elif finding == "not_trained_enough":
        use = None
    return Verdict(
        noise_level=summary.noise_level,
        noise_rate=summary.noise_rate,
        estimated_noise_rate=summary.estimated_noise_rate,
        finding=finding,
        reason=reason,
        use=use,
        ce=ce,
        rate=rate,
        difference=None if comparison is None else comparison.difference,
        detectable=None if comparison is None else comparison.detectable,
        sign_flip_p=None if comparison is None else comparison.holm_p,
        search_difference=None if finding == "not_trained_enough" else _search_difference(level, ce, rate),
        doubts=doubts(
            level, None if rate is None else (rate.arm, rate.config["smooth_rate"]), comparison, has_use=use is not None
        ),
        methods=_methods(level, ce, finding, reason, epochs_of),
        metric=summary.metric,
    )


def _methods(
    level: Level, ce: Choice | None, finding: Finding, reason: Reason | None, epochs_of: _EpochsOf | None
) -> tuple[MethodFinding, ...]:
    """Return what is known of each method, where there are others than GLS; as little as the level's verdict says."""
    arms, found = level.summary.arms, level.confirmed
    if set(arms) <= set(RATE_ARMS):
        return ()
    chosen: list[tuple[str, Choice | None, PairedComparison | None]]
    if found is None:
        methods = dict.fromkeys(method_of(arm) for arm in arms if arm != "ce")
        chosen = [(m, searched_choice(level, [arm for arm in arms if method_of(arm) == m]), None) for m in methods]
    else:
        of_methods = best_of_methods(found).items()
        chosen = [(m, confirmed_choice(level, found, i), found.comparisons[i]) for m, i in of_methods]
    judged = []
    for method, choice, comparison in ((m, one, c) for m, one, c in chosen if one is not None):
        known = _of_comparison(comparison, finding if reason is not None or comparison is None else None)
        if known[0] == "better" and _may_vanish(level, ce, choice, epochs_of):
            known = "not_trained_enough", None, None
        judged.append(MethodFinding(method, choice, *known))
    return tuple(judged)


def _of_comparison(
    comparison: PairedComparison | None, of_level: Finding | None
) -> tuple[Finding, SampleMean | None, float | None]:
    """Return what a comparison says, unless the level's own finding is that nothing can be said."""
    if comparison is None or of_level == "not_trained_enough":
        return of_level or "not_confirmed", None, None
    if of_level is not None:
        return of_level, comparison.difference, None
    found: Finding = "no_proven_difference"
    if comparison.proven:
        found = "better" if comparison.difference.mean > 0 else "worse"
    return found, comparison.difference, comparison.holm_p


def _compared(
    level: Level, ce: Choice | None, rate: Choice | None, comparison: PairedComparison | None
) -> tuple[Finding, Reason | None]:
    """Return what the comparison of the best rate with the strongest CE says, and why it says no more."""
    missing: dict[Reason, bool] = {
        "no_ce": ce is None,
        "no_rate": rate is None,
        "no_test_set": bool((level.rows["num_test"] == 0).all()),
        "no_fresh_seeds": comparison is None,
        "one_seed": comparison is not None and comparison.difference.num_seeds < 2,
    }
    if reason := next((kind for kind, holds in missing.items() if holds), None):
        return "not_confirmed", reason
    if comparison is None or not comparison.proven:
        return "no_proven_difference", None
    return ("better" if comparison.difference.mean > 0 else "worse"), None


def _not_trained(level: Level, ce: Choice | None, rate: Choice | None, epochs_of: _EpochsOf | None) -> Reason | None:
    """Return why no comparison could be fair: the CE that is compared with has not learned."""
    if ce is None:
        return "nothing_completed" if rate is None else "no_ce_completed" if level.has_ce else None
    if is_at_chance(ce.val_accuracy, level.summary.num_classes, level.num_val):
        return "ce_at_chance"
    return "ce_rising" if _is_ce_rising(level, ce, epochs_of) else None


def _may_vanish(level: Level, ce: Choice | None, better: Choice | None, epochs_of: _EpochsOf | None) -> bool:
    """Whether a lead is not much larger than what CE still gains in a quarter of its training: it may gain it next."""
    if ce is None or better is None:
        return False
    return _is_ce_rising(level, ce, epochs_of, better.val_accuracy - ce.val_accuracy)


def _is_ce_rising(level: Level, ce: Choice, epochs_of: _EpochsOf | None, lead: float | None = None) -> bool:
    rows = level.rows[have_settings(level.rows, ce.config)]
    complete = rows[(rows["status"] == "completed") & rows["stage"].isin(["search", "confirm"])]
    if "config_schedule" in complete:
        complete = complete[complete["config_schedule"] != "one_cycle"]  # accuracy rises as the rate falls, to the end
    if epochs_of is None or complete.empty:
        return False
    epochs = epochs_of(complete["trial_id"].tolist())
    return is_rising(epochs, level.summary.num_classes, level.num_val, lead, level.summary.metric)


def _search_difference(level: Level, ce: Choice | None, rate: Choice | None) -> PairedDifference | None:
    if ce is None or rate is None:
        return None
    search = search_trials(level.rows)
    metric = level.summary.metric
    pair = [select(search[search["trial_id"] == one.trial_id], metric) for one in (rate, ce)]
    return None if pair[0] is None or pair[1] is None else paired_trials(pair[0], pair[1], "val", metric)
