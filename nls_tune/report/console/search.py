"""The plan and the results of a search on the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nls_tune.analysis.level_summaries import ArmSummary, LevelSummary, PairedDifference
from nls_tune.report.console.tables import print_whole
from nls_tune.report.text import ARM_NAMES, configuration, duration, number, percent, points, rate
from nls_tune.spaces.parameters import ChoiceParameter, FloatParameter, IntParameter
from nls_tune.spaces.space import ARMS

if TYPE_CHECKING:
    import pandas as pd

    from nls_tune.plan.level import LevelPlan
    from nls_tune.plan.plan import SearchPlan


def print_plan(plan: SearchPlan, slots: int, console: Console) -> None:
    """Say what the search is going to do.

    Args:
        plan: The plan.
        slots: Trials that run at once.
        console: Where to print.
    """
    budget, info = plan.space.budget, plan.info
    first = plan.levels[0].dataset
    num_test = 0 if first.test_labels is None else len(first.test_labels)
    model = plan.training_settings(plan.space.default()).model
    lines = [
        f"Search of {info.name}: {first.num_train} training, {first.num_val} validation (noisy labels), "
        f"{num_test} test samples, {info.num_classes} classes",
        f"Space {plan.space.name}, preset {plan.preset} ({plan.preset_reason}), model {model}",
        f"{len(plan.levels)} noise level{'s' if len(plan.levels) > 1 else ''}, {plan.num_trials} trials of "
        f"{budget.epochs} epochs; ASHA stops {_rungs(plan)}"
        f"; {slots} at a time",
    ]
    if (seconds := plan.settings.time_budget) is not None:
        then = "; the confirmation follows and is not counted" if plan.confirm_seeds() else ""
        lines.append(f"The search ends after {duration(seconds)} at the latest, all sessions of the run together{then}")
    if seeds := plan.confirm_seeds():
        lines.append(
            f"Then the selected configuration of each arm and CE with the defaults again, with {len(seeds)} fresh "
            f"seed{'s' if len(seeds) > 1 else ''} each"
            + (", each with a draw of the noise of its own" if plan.settings.noise_draws else "")
            + ("; then on all labels" if plan.settings.confirm_on == "all" else "")
        )
    else:
        lines.append("No confirmation; --confirm-seeds 5 trains the winners and CE again with fresh seeds")
    if plan.shares_warmups:
        lines.append("CE warm-ups are trained once and shared")
    elif plan.settings.warmup_store not in (None, "none"):
        lines.append("No two configurations of this space have the same CE warm-up: --warmup-store is not used")
    for name, parameter in plan.space.space.items():
        if isinstance(parameter, ChoiceParameter):
            text = ", ".join(str(v) for v in parameter.values)
        else:
            text = f"{number(parameter.low)} to {number(parameter.high)}"
            if isinstance(parameter, IntParameter) and parameter.step > 1:
                text += f" in steps of {parameter.step}"
            if parameter.scale != "linear":
                scale = "log(1 − r)" if parameter.scale == "log1m" else "log"
                text += f", uniform in {scale}"
        shown = number(parameter.default) if isinstance(parameter, FloatParameter) else parameter.default
        lines.append(f"  {name}: {text} (default {shown})")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    _print_levels(plan, console)
    for level in plan.levels:
        if level.warm:
            console.print(_warm_line(level, plan), markup=False, highlight=False, soft_wrap=True)
    for note in plan.notes:
        console.print(f"Note: {note}", markup=False, highlight=False, soft_wrap=True)


def epochs_line(trials: pd.DataFrame) -> str | None:
    """Say how many epochs the trials of a run have, and how many were reused; None if none were.

    Args:
        trials: Rows of ``trials/``.
    """
    epochs, reused = int(trials["epochs"].sum()), int(trials["epochs_reused"].sum())
    return f"{epochs:,} epochs, {reused:,} of them reused warm-ups" if reused else None


def _warm_line(level: LevelPlan, plan: SearchPlan) -> str:
    """Say where the start points of a level come from, and for how many there is no trial."""
    points = "; ".join(f"{configuration(point.config)} (its {point.noise_level})" for point in level.warm)
    run = {arm: level.start[arm][:quota] for arm, quota in level.quotas.items()}
    waiting = sum(point.config not in run.get(point.arm, ()) for point in level.warm)
    tail = f"; no trial is left for {waiting} of them, raise --num-trials" if waiting else ""
    return f"{level.level} starts also from {plan.settings.warm_start}: {points}{tail}"


def _print_levels(plan: SearchPlan, console: Console) -> None:
    estimates = any(level.needs_estimate for level in plan.levels)
    table = Table(box=None, pad_edge=False)
    columns = ["noise level", "noise rate", "noise-cancelling rate", *(ARM_NAMES[a] for a in ARMS)]
    columns[3:3] = ["estimated", "its rate"] if estimates else []
    for name in columns:
        table.add_column(name, justify="left" if name == "noise level" else "right", no_wrap=True)
    for level in plan.levels:
        found = ["–", "–"]
        if level.estimate is not None:
            found = [percent(level.estimate.noise_rate), rate(level.estimate.noise_cancelling_rate)]
        # Not a string: those are read as markup.
        table.add_row(
            Text(level.level),
            percent(level.noise_rate),
            rate(level.noise_cancelling_rate),
            *(found if estimates else []),
            *(str(level.quotas.get(arm, 0)) for arm in ARMS),
        )
    # Its own width: a narrow console wraps lines, it must not cut numbers.
    table.width = console.measure(table, options=console.options.update(width=200)).maximum
    console.print(table, soft_wrap=True)
    for prior, text in _PRIORS.items():
        if levels := [level.level for level in plan.levels if level.prior == prior]:
            which = "" if len(levels) == len(plan.levels) else f" ({', '.join(levels)})"
            console.print(f"{text}{which}", markup=False, highlight=False, soft_wrap=True)


#: What the plan says of where the noise-cancelling rate among the start points comes from.
_PRIORS = {
    "true noise": "Start points hold the noise-cancelling rate of the true noise",
    "estimate": "Start points hold the noise-cancelling rate of the estimated noise; the true noise is unknown",
    "unknown": "Before the trials the noise is estimated, and its noise-cancelling rate becomes a start point",
    "none": "The noise is unknown and not estimated, so no start point holds a noise-cancelling rate",
}


def _rungs(plan: SearchPlan) -> str:
    levels = plan.rungs().levels
    return f"trials {', '.join(map(str, levels))} epochs after their warm-up" if levels else "none"


#: Columns of the results: header, width and justification. All fit into 80 characters.
_COLUMNS: tuple[tuple[str, int, Literal["left", "right"]], ...] = (
    ("", 1, "left"),
    ("arm", 5, "left"),
    ("rate", 9, "right"),
    ("warm-up", 7, "right"),
    ("lr", 9, "right"),
    ("epoch", 7, "right"),
    ("val", 7, "right"),
    ("test", 7, "right"),
    ("at last", 7, "right"),
    ("trials", 7, "right"),
)
_LEGEND = """\
*        recommended: the highest val
epoch    the best one, of all: by validation accuracy, smoothed over 3 epochs
val      that accuracy, on noisy labels; it alone decides
test     accuracy on clean labels at the best epoch; at last: at the last one
trials   completed, of all that ran
The sentences compare single best epochs, sample by sample.
"""


def print_summaries(summaries: Sequence[LevelSummary], console: Console, *, sentences: bool = True) -> None:
    """Print the table of a search and, unless they are said elsewhere, one sentence a level."""
    if not summaries:
        console.print("No trial has ended yet.")
        return
    for index, summary in enumerate(summaries):
        facts = []
        if summary.noise_rate is not None:
            facts.append(f"noise rate {percent(summary.noise_rate)}")
        if summary.noise_cancelling_rate is not None:
            facts.append(f"noise-cancelling rate {rate(summary.noise_cancelling_rate)}")
        tail = f"  ({', '.join(facts)})" if facts else ""
        console.print(f"{summary.noise_level}{tail}", style="bold", markup=False, highlight=False, soft_wrap=True)
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=index == 0)
        for header, width, justify in _COLUMNS:
            table.add_column(header, min_width=width, justify=justify, no_wrap=True)
        for arm, found in summary.arms.items():
            table.add_row(
                "*" if arm == summary.recommended else "",
                ARM_NAMES[arm],
                rate(found.config["smooth_rate"]),
                str(found.config["warmup_epochs"]),
                number(found.config["lr"]),
                f"{found.best_epoch}/{found.epochs}",
                percent(found.val_accuracy),
                percent(found.test_accuracy_at_best),
                percent(found.last_test_accuracy),
                f"{found.num_completed}/{found.num_trials}",
            )
        print_whole(table, console)
    legend = _LEGEND if sentences else "".join(_LEGEND.splitlines(keepends=True)[:-1])
    console.print(f"\n{legend}", highlight=False, markup=False, soft_wrap=True, style="dim")
    for summary in summaries if sentences else ():
        console.print(level_sentence(summary), markup=False, highlight=False, soft_wrap=True)
    if failed := sum(summary.statuses.get("failed", 0) for summary in summaries):
        console.print(f"{failed} trial{'s' if failed > 1 else ''} failed; the column error of trials/ says why.")


def level_sentence(summary: LevelSummary) -> str:
    """Say which rate to use at a level, what it gains on test, and whether validation could tell."""
    if summary.recommended is None:
        ended = ", ".join(f"{count} {status}" for status, count in summary.statuses.items())
        return f"{summary.noise_level}: no trial was completed ({ended}), so nothing can be recommended."
    best = summary.arms[summary.recommended]
    start = f"{summary.noise_level}: use {_configuration(best)}"
    test = "" if best.test_accuracy_at_best is None else f", test {percent(best.test_accuracy_at_best)}"
    if summary.rival is None or summary.validation is None:
        return f"{start}{test}; there is no completed trial to compare it with."
    other = summary.arms[summary.rival]
    name = "the strongest CE" if summary.rival == "ce" else f"r = {rate(other.config['smooth_rate'])}"
    gain = ""
    if summary.test is not None:
        theirs = percent(other.test_accuracy_at_best)
        gain = f", {points(summary.test.difference)} points against {name} ({theirs})"
    if not summary.validation.distinct and summary.rival == "ce":
        start += " or cross-entropy"
    if summary.noise_rate is not None and summary.noise_cancelling_rate is None:
        return f"{summary.noise_level}: right labels do not outweigh wrong ones, so noisy validation cannot choose."
    return f"{start}{test}{gain}; {_told_apart(summary.validation, summary.signal_share)}."


def _configuration(arm: ArmSummary) -> str:
    """Name a configuration: the rate, then all else that was searched."""
    others = [f"warm-up {arm.config['warmup_epochs']}", f"lr {number(arm.config['lr'])}"]
    for name, value in arm.config.items():
        if name not in ("smooth_rate", "warmup_epochs", "lr"):
            others.append(f"{name} {number(value) if isinstance(value, float) else value}")
    what = "cross-entropy" if arm.arm == "ce" else f"smooth_rate {rate(arm.config['smooth_rate'])}"
    return f"{what} ({', '.join(others)})"


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
