"""Recommendations in plain English, for the console and for the page: strings without any markup."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nls_tune.analysis.recommendations import MIN_TRIALS, DoubtKind, Recommendation
from nls_tune.analysis.statistics import SampleMean
from nls_tune.report.text import number, points, rate


@dataclass(frozen=True)
class Words:
    """What is said of one noise level.

    Attributes:
        headline: What to use.
        reasons: What supports it, one sentence each.
        doubts: What speaks against it, one sentence each.
    """

    headline: str
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]


#: One sentence for each doubt.
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


def doubt_sentence(kind: DoubtKind) -> str:
    """Return what is said of a doubt."""
    return _DOUBTS[kind]


def recommendation_words(recommendation: Recommendation) -> Words:
    """Say what to use at a noise level, why, and what speaks against it; always against the strongest CE."""
    found = recommendation
    if found.config is None:
        headline = f"{found.noise_level}: nothing can be recommended, no trial was completed."
        return Words(headline, (), tuple(_DOUBTS[kind] for kind in found.doubts))
    return Words(_headline(found, found.config), _reasons(found), tuple(_DOUBTS[kind] for kind in found.doubts))


def copyable_configuration(recommendation: Recommendation) -> str | None:
    """Return a recommendation as a line of Python that can be copied; None where nothing is recommended."""
    found = recommendation
    if found.config is None:
        return None
    others = [f"{name}={value!r}" for name, value in found.config.items() if name not in _NAMED]
    comments = [
        f"{found.config['warmup_epochs']} epochs of cross-entropy first",
        ", ".join([f"then lr={found.config['lr']:.6g}", *others]),
        *([] if found.best_epoch is None else [f"stop after epoch {found.best_epoch}"]),
    ]
    return f"GLSLoss(smooth_rate={found.config['smooth_rate'] + 0.0:.6g})  # {'; '.join(comments)}"


_NAMED = ("smooth_rate", "warmup_epochs", "lr")


def _headline(found: Recommendation, config: Mapping[str, Any]) -> str:
    text = f"{found.noise_level}: use {_settings(config, found.arm == 'ce')}"
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
        ce = f"the strongest CE ({_parts(found.strongest_ce)})"
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
    interval = f"{points(difference.mean, 2)} [{points(difference.low, 2)}, {points(difference.high, 2)}] points"
    p = "" if found.sign_flip_p is None else f", sign-flip p over all levels {found.sign_flip_p:.2g}"
    seeds = f"Over {difference.num_seeds} fresh seeds"
    if found.verdict in ("better", "worse"):
        return [f"{seeds} it is {found.verdict} on test than {ce}: {interval}{p}."]
    seen = ""
    if found.detectable is not None and math.isfinite(found.detectable):
        seen = f"; this run would have seen a difference of {100 * found.detectable:.2f} points"
    return [f"{seeds} smoothing makes no proven difference on test to {ce}: {interval}{p}{seen}."]


def _settings(config: Mapping[str, Any], is_ce: bool) -> str:
    what = "cross-entropy" if is_ce else f"smooth_rate {rate(config['smooth_rate'])}"
    return f"{what} ({_parts(config)})"


def _parts(config: Mapping[str, Any]) -> str:
    parts = [f"warm-up {config['warmup_epochs']}", f"lr {number(config['lr'])}"]
    for name, value in config.items():
        if name not in _NAMED:
            parts.append(f"{name} {number(value) if isinstance(value, float) else value}")
    return ", ".join(parts)
