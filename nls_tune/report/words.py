"""What is said of results, in plain English and without markup: the one place that words a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nls_tune.analysis.confirmation import AllLabels, LevelConfirmation
from nls_tune.analysis.level_summaries import LevelSummary, PairedDifference
from nls_tune.analysis.recommendations import MIN_TRIALS, DoubtKind, Recommendation, Verdict
from nls_tune.analysis.statistics import SampleMean
from nls_tune.report.text import interval, other_settings, percent, points, rate, settings_text

#: A verdict in a few words.
_BADGES: dict[Verdict, str] = {
    "better": "better than CE",
    "worse": "worse than CE on test",
    "no_proven_difference": "no proven difference to CE",
    "cross_entropy": "cross-entropy",
    "unconfirmed": "not confirmed",
    "nothing": "no recommendation",
}
#: One sentence per doubt.
_DOUBTS: dict[DoubtKind, str] = {
    "going_on": "Not all planned trials of this level have ended; the recommendation may change.",
    "too_noisy": "Right labels do not outweigh wrong ones here, so noisy validation cannot choose.",
    "few_seeds": "With so few fresh seeds the exact sign-flip test, corrected over the noise levels, cannot reach 5 %; "
    "the t test alone, corrected as well, decides, and it takes differences to be normally distributed.",
    "no_test_set": "There is no test set: only noisy validation labels have been looked at.",
    "within_error": "In the search, validation does not show it to be better than what it was compared with.",
    "asymmetric_noise": "The noise is not known to be symmetric, so noisy validation may rank configurations otherwise "
    "than clean labels would.",
    "default_ce_stronger": "Cross-entropy with the defaults was stronger than the cross-entropy that the search "
    "selected: more trials for it may narrow a gain further.",
    "at_the_edge": "The rate lies at the edge of what was searched; a wider range may hold a better one.",
    "few_trials": f"An arm has fewer than {MIN_TRIALS} completed trials; more of them may find a better configuration.",
    "many_diverged": "More than a quarter of this arm's trials diverged; the configuration may be fragile.",
}


@dataclass(frozen=True)
class Words:
    """What is said of one noise level.

    Attributes:
        noise_level: In its stored spelling.
        verdict: What is proven.
        badge: The verdict in a few words.
        headline: What to use, as a sentence that follows the noise level and a colon.
        reasons: What supports it, one sentence each.
        doubts: What speaks against it, one sentence each.
        configuration: A line of Python that can be copied; None where nothing is recommended.
    """

    noise_level: str
    verdict: Verdict
    badge: str
    headline: str
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]
    configuration: str | None


def recommendation_words(found: Recommendation) -> Words:
    """Say what to use at a noise level, why, and what speaks against it; always against the strongest CE."""
    config, badge, doubts = found.config, _BADGES[found.verdict], tuple(_DOUBTS[kind] for kind in found.doubts)
    if config is None:
        headline = "nothing can be recommended, no trial was completed."
        return Words(found.noise_level, found.verdict, badge, headline, (), doubts, None)
    return Words(
        noise_level=found.noise_level,
        verdict=found.verdict,
        badge=badge,
        headline=_headline(found, config),
        reasons=_reasons(found),
        doubts=doubts,
        configuration=_python(found, config),
    )


def _python(found: Recommendation, config: Mapping[str, Any]) -> str:
    others = [f"{name}={value!r}" for name, value in other_settings(config).items()]
    comments = [
        f"{config['warmup_epochs']} epochs of cross-entropy first",
        ", ".join([f"then lr={config['lr']:.6g}", *others]),
        *([] if found.best_epoch is None else [f"stop after epoch {found.best_epoch}"]),
    ]
    return f"GLSLoss(smooth_rate={config['smooth_rate'] + 0.0:.6g})  # {'; '.join(comments)}"


def _headline(found: Recommendation, config: Mapping[str, Any]) -> str:
    text = f"use {_settings(config, found.arm == 'ce')}"
    if found.best_epoch is not None:
        text += f", stopped at epoch {found.best_epoch}"
    if found.verdict == "no_proven_difference" and found.strongest_ce is not None:
        return f"{text}, or {_settings(found.strongest_ce, True)}: smoothing makes no proven difference."
    if found.verdict == "unconfirmed" and "within_error" in found.doubts and found.strongest_ce is not None:
        return (
            f"{text}, or {_settings(found.strongest_ce, True)}: not confirmed, and validation shows no difference "
            "for the better."
        )
    if found.verdict == "cross_entropy" and found.validation is None and found.num_seeds is None:
        return f"{text}: no other rate was completed that it could be compared with."
    tail = {
        "better": ": better than the strongest cross-entropy.",
        "worse": ": the best on validation, but on test it is worse than the strongest cross-entropy.",
        "cross_entropy": ": the search selects it over every other rate."
        if found.num_seeds is None
        else ": no confirmed rate beats it on validation.",
        "unconfirmed": ": not confirmed.",
    }
    return text + tail.get(found.verdict, ".")


def _reasons(found: Recommendation) -> tuple[str, ...]:
    reasons = []
    difference = found.difference
    if difference is not None and found.strongest_ce is not None:
        ce = f"the strongest CE ({settings_text(found.strongest_ce)})"
        if difference.num_seeds < 2:
            reasons.append(
                f"With one fresh seed it differs by {points(difference.mean, 2)} points of test accuracy from {ce}, "
                "which proves nothing."
            )
        else:
            reasons += _compared(found, difference, ce)
    elif found.verdict == "cross_entropy" and found.num_seeds is not None:
        seeds = "one fresh seed" if found.num_seeds == 1 else f"{found.num_seeds} fresh seeds"
        reasons.append(f"Over {seeds} no confirmed configuration has a higher mean validation accuracy.")
    elif found.verdict == "unconfirmed":
        why = (
            "without a test set nothing can be said on clean labels"
            if "no_test_set" in found.doubts
            else "there is no cross-entropy to compare it with"
            if found.strongest_ce is None
            else "no fresh seeds have compared it with the strongest CE on test"
        )
        reasons.append(f"It is not confirmed: {why}.")
    if found.validation is not None and "within_error" not in found.doubts:
        rival = "the best other rate" if found.arm == "ce" else "the CE that the search selected"
        gap = points(found.validation.difference, 2)
        reasons.append(
            f"In the search, validation tells the best arm from {rival}: {gap} points "
            f"on noisy labels, paired standard error {100 * found.validation.standard_error:.2f}."
        )
    return tuple(reasons)


def _compared(found: Recommendation, difference: SampleMean, ce: str) -> list[str]:
    p = "" if found.sign_flip_p is None else f", sign-flip p over all levels {found.sign_flip_p:.2g}"
    gap = f"{interval(difference)} points{p}"
    seeds = f"Over {difference.num_seeds} fresh seeds"
    if found.verdict in ("better", "worse"):
        return [f"{seeds} it is {found.verdict} on test than {ce}: {gap}."]
    return [f"{seeds} smoothing makes no proven difference on test to {ce}: {gap}{_detectable(found.detectable)}."]


def _detectable(difference: float | None) -> str:
    """Say, at the end of a sentence, which difference would have been seen."""
    if difference is None or not math.isfinite(difference):
        return ""
    return f"; this run would have seen a difference of {100 * difference:.2f} points"


def _settings(config: Mapping[str, Any], is_ce: bool) -> str:
    what = "cross-entropy" if is_ce else f"smooth_rate {rate(config['smooth_rate'])}"
    return f"{what} ({settings_text(config)})"


# The search


def level_sentence(summary: LevelSummary) -> str:
    """Say which rate to use at a level, what it gains on test, and whether validation could tell."""
    if summary.recommended is None:
        ended = ", ".join(f"{count} {status}" for status, count in summary.statuses.items())
        return f"{summary.noise_level}: no trial was completed ({ended}), so nothing can be recommended."
    best = summary.arms[summary.recommended]
    start = f"{summary.noise_level}: use {_settings(best.config, best.arm == 'ce')}"
    test = "" if best.test_accuracy_at_best is None else f", test {percent(best.test_accuracy_at_best)}"
    if summary.rival is None or summary.validation is None:
        return f"{start}{test}; there is no completed trial to compare it with."
    if summary.noise_rate is not None and summary.noise_cancelling_rate is None:
        return f"{summary.noise_level}: right labels do not outweigh wrong ones, so noisy validation cannot choose."
    other = summary.arms[summary.rival]
    name = "the strongest CE" if summary.rival == "ce" else f"r = {rate(other.config['smooth_rate'])}"
    gain = ""
    if summary.test is not None:
        theirs = percent(other.test_accuracy_at_best)
        gain = f", {points(summary.test.difference)} points against {name} ({theirs})"
    if not summary.validation.distinct and summary.rival == "ce":
        start += " or cross-entropy"
    return f"{start}{test}{gain}; {_told_apart(summary.validation, summary.signal_share)}."


def _told_apart(validation: PairedDifference, signal_share: float | None) -> str:
    verdict = "validation tells them apart" if validation.distinct else "validation cannot tell them apart"
    if validation.distinct and validation.difference < 0:
        # What decides is smoothed over epochs; single epochs can disagree.
        verdict = "but at these single epochs, not smoothed, validation prefers the latter"
    text = f"{points(validation.difference)} points, paired standard error {100 * validation.standard_error:.1f}"
    if signal_share is not None and 0 < signal_share < 1:
        clean, error = validation.difference / signal_share, validation.standard_error / signal_share
        text += f"; divided by c = {signal_share:.2g}: {points(clean)}, {100 * error:.1f}"
    return f"{verdict} ({text})"


# The confirmation


def choice_marks(level: LevelConfirmation, index: int) -> str:
    """Say what a confirmed configuration was chosen as; nothing where it was not."""
    marks = ["strongest CE"] if index == level.strongest_ce else []
    return ", ".join([*marks, *(["recommended"] if index == level.recommended else [])])


def confirmation_sentence(level: LevelConfirmation) -> str:
    """Say what fresh seeds prove of the recommended configuration of a level, and what they could have seen."""
    best = level.configurations[level.recommended]
    if level.recommended == level.strongest_ce:
        return f"{level.noise_level}: over fresh seeds no confirmed rate beats cross-entropy on validation."
    name = f"{level.noise_level}: smooth_rate {rate(best.config['smooth_rate'])}"
    comparison = level.comparisons[level.recommended]
    if comparison is None:
        return f"{name} cannot be compared with cross-entropy on test."
    if comparison.difference.num_seeds < 2:
        gain = points(comparison.difference.mean)
        return f"{name} differs by {gain} points from the strongest CE with one seed, which proves nothing."
    verdict = "makes no proven difference to"
    if comparison.proven:
        verdict = "is better than" if comparison.difference.mean > 0 else "is worse than"
    p = f"sign-flip p {comparison.sign_flip_p:.2g} (smallest possible {comparison.smallest_p:.2g}"
    p += f", over all levels {comparison.holm_p:.2g})" if comparison.holm_p is not None else ")"
    if comparison.holm_t_p is not None:
        p += f", t test over all levels {comparison.holm_t_p:.2g}"
    seen = _detectable(comparison.detectable)
    return f"{name} {verdict} the strongest CE: {interval(comparison.difference)} points, {p}{seen}."


def all_labels_sentence(level: LevelConfirmation) -> str | None:
    """Say how long a level's configurations were trained on all labels, and how the recommended one differs from CE."""
    trained = [
        f"{rate(found.config['smooth_rate'])} for {_epochs(found.on_all_labels)}"
        for found in level.configurations
        if found.on_all_labels
    ]
    if not trained:
        return None
    sentence = (
        f"{level.noise_level}: on all labels, validation samples included, each configuration was trained for the "
        f"median of its best epochs: smooth_rate {', '.join(trained)}"
    )
    best = level.configurations[level.recommended]
    if best.on_all_labels is None or best.on_all_labels.difference is None:
        return f"{sentence}."
    name, gap = rate(best.config["smooth_rate"]), interval(best.on_all_labels.difference)
    return f"{sentence}; {name} minus the strongest CE: {gap} points."


def _epochs(found: AllLabels) -> str:
    parts = [f"{' or '.join(map(str, found.epochs))} epochs"] if found.epochs else []
    return ", ".join([*parts, *([f"{found.num_diverged} diverged"] if found.num_diverged else [])])
