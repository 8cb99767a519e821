"""A verdict in plain English, without markup: the one place that words it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nls_tune.analysis.choices import Choice
from nls_tune.analysis.confirmation import AllLabels, ConfirmedConfiguration, LevelConfirmation
from nls_tune.analysis.doubts import MIN_TRIALS, DoubtKind
from nls_tune.analysis.statistics import SampleMean
from nls_tune.analysis.verdicts import Finding, Reason, Verdict
from nls_tune.report.snippets import snippet
from nls_tune.report.table import Column, Table, table_of
from nls_tune.report.text import (
    amount,
    average_of,
    interval,
    of_metric,
    percent,
    rate,
    settings_text,
    weights_text,
)
from nls_tune.spaces.settings import RATE_ARMS

#: A finding in one to three words.
FINDINGS: dict[Finding, str] = {
    "better": "better",
    "no_proven_difference": "no proven difference",
    "worse": "worse",
    "not_confirmed": "not confirmed",
    "not_trained_enough": "not trained enough",
}
#: Why nothing is said, and the way out; each follows a colon.
_REASONS: dict[Reason, str] = {
    "nothing_completed": "no trial was completed; give the search more time, and look at the column error of trials/",
    "no_ce_completed": "no trial of cross-entropy was completed to compare with; give it more trials with --num-trials",
    "ce_at_chance": "cross-entropy itself ({}) is within its error of guessing; train longer with --epochs, or on more "
    "samples",
    "ce_rising": "cross-entropy ({}) is still rising at its last epoch, by as much as would decide; train longer with "
    "--epochs",
    "no_ce": "the search tries no cross-entropy to compare with; let smooth_rate include 0, and give ce a share in "
    "arms or add it to --methods",
    "no_rate": "no other rate or loss was completed that it could be compared with",
    "no_test_set": "without a test set nothing is known on clean labels",
    "no_fresh_seeds": "no rate has been compared with it on fresh seeds; --confirm-seeds 5 on the same command does it",
    "one_seed": "one fresh seed proves nothing; --confirm-seeds 5 on the same command trains more",
}
#: One sentence per doubt.
_DOUBTS: dict[DoubtKind, str] = {
    "two_seeds": "Only two fresh seeds were trained, so the interval rests on one difference between them. Decide "
    "for five or more before looking.",
    "few_seeds": "With so few seeds for so many noise levels one of the two tests of a difference cannot reach 5 %; "
    "the other one decides (from six seeds on all must agree), and it takes differences to be normally distributed.",
    "noisy_test": "The test labels are given ones, and some of them may be wrong: a configuration that repeats the "
    "mistakes in them looks better than it is.",
    "small_test_set": "The difference lies within the error of the test samples, which all seeds share: with other "
    "samples there might be none.",
    "going_on": "Not all planned trials have ended; the verdict may change.",
    "too_noisy": "Right labels do not outweigh wrong ones here, so noisy validation cannot choose.",
    "asymmetric_noise": "The noise is not known to be symmetric, so noisy validation may rank configurations otherwise "
    "than clean labels would.",
    "noisy_metric": "On noisy labels balanced accuracy and macro F1 have no guarantee, whatever the noise: they may "
    "rank configurations otherwise than clean labels would.",
    "other_ce_stronger": "On fresh seeds another cross-entropy, perhaps that with the defaults, was stronger than the "
    "one that the search selected: more trials for it may change the difference.",
    "few_trials": f"An arm (perhaps cross-entropy) had fewer than {MIN_TRIALS} completed trials; more of them may "
    "find a better configuration.",
    "at_the_edge": "The best rate lies at the edge of what was searched; a wider range may hold a better one.",
    "many_diverged": "More than a quarter of the trials near the best rate, or of its fresh seeds, diverged, or one of "
    "these before it reached anything; it may be fragile.",
}


@dataclass(frozen=True)
class Words:
    """A verdict in words: the badge has one to three of them, and each doubt is a sentence.

    The headline says what to use and why, as sentences that follow the noise level and a colon. The snippet is Python
    that trains in this way; None where there is nothing to use.
    """

    noise_level: str
    finding: Finding
    badge: str
    headline: str
    doubts: tuple[str, ...]
    snippet: str | None


def verdict_words(found: Verdict) -> Words:
    """Say what to use at a noise level, why, and what speaks against it."""
    return Words(
        noise_level=found.noise_level,
        finding=found.finding,
        badge=FINDINGS[found.finding],
        headline=_headline(found),
        doubts=tuple(_DOUBTS[kind] for kind in found.doubts),
        snippet=None if found.use is None else snippet(found.use),
    )


def common_doubts(said: Sequence[Words]) -> tuple[str, ...]:
    """Return the doubts that all of several noise levels share; they are said once."""
    if len(said) < 2:
        return ()
    return tuple(doubt for doubt in said[0].doubts if all(doubt in one.doubts for one in said))


def summary_line(verdicts: Sequence[Verdict]) -> str:
    """Say in one line what a run found over all of its noise levels."""
    better = [found.noise_level for found in verdicts if found.finding == "better"]
    total = amount(len(verdicts), "noise level")
    others = any(found.methods for found in verdicts)
    if better:
        what = "Another loss" if others else "A smooth rate"
        return f"{what} is proven better than cross-entropy at {len(better)} of {total}: {', '.join(better)}."
    if all(found.finding in ("not_confirmed", "not_trained_enough") for found in verdicts):
        return f"Nothing is proven yet at {total}."
    return f"No {'other loss' if others else 'smooth rate'} is proven better than cross-entropy at {total}."


def _headline(found: Verdict) -> str:
    reason = None if found.reason is None else _REASONS[found.reason].format(_accuracy(found))
    if found.use is None:
        return f"not trained enough to say: {reason}."
    text = f"use {_named(found.use)}"
    if found.use.best_epoch is not None:
        text += f", stop after epoch {found.use.best_epoch}"
    if (span := average_of(found.use.readout)) is not None:
        text += f", weights averaged over {'all' if span == 1 else f'the last {100 * span:.3g} %'} of the phase"
    if reason is not None:
        return f"{text}. Not confirmed: {reason}.{_best_in_search(found)}"
    if found.rate is None or found.difference is None:
        return f"{text}."
    seeds = f"over {amount(found.difference.num_seeds, 'fresh seed')}"
    gap = f"{interval(found.difference)} points of {of_metric('test accuracy', [found.metric])} {seeds}"
    if found.finding == "better":
        return f"{text}: better than the strongest cross-entropy, by {gap} on this test set."
    name = f"{_the_best(found.rate)},"
    if found.finding == "worse":
        return f"{text}: nothing is proven to beat it. {name} is worse, by {gap}."
    if found.sign_flip_p is None:
        gap += "; validation prefers cross-entropy"
    return f"{text}: nothing is proven to beat it. {name} differs by {gap}{_detectable(found.detectable)}."


def _best_in_search(found: Verdict) -> str:
    if found.rate is None or found.use is found.rate:
        return ""
    kind = "rate" if found.rate.arm in RATE_ARMS else "other loss"
    return f" The best {kind} of the search was {_named(found.rate)}, which may be luck."


def _the_best(choice: Choice) -> str:
    if choice.arm in RATE_ARMS:
        return f"The best rate, {rate(choice.config['smooth_rate'])}"
    return f"The best other loss, {choice.arm}"


def _accuracy(found: Verdict) -> str:
    name = "" if found.metric == "accuracy" else f" {of_metric('accuracy', [found.metric])}"
    return "" if found.ce is None else f"{percent(found.ce.val_accuracy)}{name} on validation"


def _named(choice: Choice) -> str:
    return f"{_loss_name(choice, 'cross-entropy', 'smooth_rate')} ({settings_text(choice.config)})"


def _loss_name(choice: Choice, ce: str, of_rate: str) -> str:
    """Name the loss of a choice: CE, a rate, or another loss."""
    if choice.arm not in RATE_ARMS:
        return choice.arm
    return ce if choice.arm == "ce" else f"{of_rate} {rate(choice.config['smooth_rate'])}"


def _detectable(difference: float | None) -> str:
    if difference is None or not math.isfinite(difference):
        return ""
    seen = f"; a true difference of {100 * difference:.2f} would have been found in 4 of 5 such runs"
    return f"{seen}, had validation ranked it first"


# The table


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Return one row per noise level: what to use, what it reaches, and whether a rate beats CE.

    A line break in a cell is where it may be broken, and a space elsewhere.
    """
    return table_of(
        verdicts,
        [
            (Column("noise level", "text"), lambda found: found.noise_level),
            (Column("noise"), lambda found: percent(found.noise_rate)),
            (Column("use", "text"), lambda found: use_text(found.use)),
            (Column("test", "text"), lambda found: test_text(found.use)),
            (
                Column(f"{_best_kind(verdicts)} to CE", "text"),
                lambda found: interval(found.difference).replace(" [", "\n["),
            ),
            (Column("verdict", "text"), lambda found: "\n".join(FINDINGS[found.finding].rsplit(" ", 1))),
        ],
    )


def methods_table(verdicts: Sequence[Verdict]) -> Table:
    """Return one row per noise level and method, where other losses were compared: what it reaches against CE."""
    return table_of(
        [(found.noise_level, method) for found in verdicts for method in found.methods],
        [
            (Column("noise level", "text"), lambda at: at[0]),
            (Column("method", "text"), lambda at: at[1].method),
            (Column("best configuration", "text"), lambda at: use_text(at[1].choice)),
            (Column("test", "text"), lambda at: test_text(at[1].choice)),
            (Column("to CE", "text"), lambda at: interval(at[1].difference).replace(" [", "\n[")),
            (Column("p"), lambda at: "–" if at[1].sign_flip_p is None else f"{at[1].sign_flip_p:.2g}"),
            (Column("verdict", "text"), lambda at: "\n".join(FINDINGS[at[1].finding].rsplit(" ", 1))),
        ],
        of_metric(METHODS_NOTE, (found.metric for found in verdicts)),
    )


def use_text(use: Choice | None) -> str:
    """Write what to use in one cell: ``r −0.33, warm-up 6, lr 0.05``, with line breaks where it may be broken."""
    if use is None:
        return "–"
    what = _loss_name(use, "CE", "r")
    weights = "" if average_of(use.readout) is None else f", {weights_text(use.readout)}"
    return f"{what}, {settings_text(use.config)}{weights}".replace(", ", ",\n")


def test_text(use: Choice | None) -> str:
    """Write test accuracy in %, with its standard error over fresh seeds where there are some."""
    if use is None or use.test is None:
        return "–"
    return mean_and_error(use.test)


def mean_and_error(found: SampleMean) -> str:
    """Write a mean in % with its standard error, where it has one."""
    if found.num_seeds < 2:
        return f"{100 * found.mean:.2f}"
    return f"{100 * found.mean:.2f}\n± {100 * found.standard_deviation / math.sqrt(found.num_seeds):.2f}"


#: What the columns of the table of methods mean.
METHODS_NOTE = (
    "Each method's best configuration by accuracy on validation labels, against the strongest cross-entropy (CE) "
    "as above. gls: either sign of its rate. p: exact sign-flip test; – where validation prefers CE, so that nothing "
    "is claimed. Where few seeds keep p above 5 %, the paired t test decides, from six seeds on only where "
    "all agree. Both are corrected by Holm's method over all levels and methods."
)


def table_note(verdicts: Sequence[Verdict]) -> str:
    """Say what the columns of the verdict table mean."""
    note = of_metric(_TABLE_NOTE, (found.metric for found in verdicts)).replace("best rate", _best_kind(verdicts))
    given = any("noisy_test" in found.doubts for found in verdicts)
    return note.replace("clean labels", "the given test labels") if given else note


def _best_kind(verdicts: Sequence[Verdict]) -> str:
    return "best other loss" if any(found.methods for found in verdicts) else "best rate"


_TABLE_NOTE = (
    "test: accuracy on clean labels in %, mean over fresh seeds ± standard error (one trial where nothing is "
    "confirmed). best rate to CE: test accuracy of the best rate minus that of the strongest cross-entropy (CE), seed "
    "by seed, in points, with 95 % interval of this level alone: the verdict also corrects over the levels."
)


# The confirmation


def choice_marks(level: LevelConfirmation, index: int) -> str:
    """Say what a confirmed configuration is to the verdict; nothing where it is nothing."""
    marks = ["strongest CE"] if index == level.strongest_ce else []
    return ", ".join([*marks, *(["use"] if index == level.used else [])])


def all_labels_sentence(level: LevelConfirmation) -> str | None:
    """Say how long a level's configurations were trained on all labels, and how the best one differs from CE."""
    trained = [
        f"{_rate_or_loss(found)} for {_epochs(found.on_all_labels)}"
        for found in level.configurations
        if found.on_all_labels
    ]
    if not trained:
        return None
    sentence = (
        f"{level.noise_level}: on all labels, validation samples included, each configuration was trained for the "
        f"median of its best epochs: smooth_rate {', '.join(trained)}"
    )
    best = level.configurations[level.best]
    if best.on_all_labels is None or best.on_all_labels.difference is None:
        return f"{sentence}."
    name, gap = _rate_or_loss(best), interval(best.on_all_labels.difference)
    return f"{sentence}; {name} minus the strongest CE: {gap} points."


def _rate_or_loss(found: ConfirmedConfiguration) -> str:
    return rate(found.config["smooth_rate"]) if found.arm in RATE_ARMS else f"loss {found.arm}"


def _epochs(found: AllLabels) -> str:
    parts = [f"{' or '.join(map(str, found.epochs))} epochs"] if found.epochs else []
    return ", ".join([*parts, *([f"{found.num_diverged} diverged"] if found.num_diverged else [])])
