"""The plan and the results of a search on the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from nls_tune.analysis.level_summaries import LevelSummary, PairedDifference
from nls_tune.parameters import ChoiceParameter, FloatParameter
from nls_tune.report.text import number, percent, points, rate
from nls_tune.spaces import ARMS

if TYPE_CHECKING:
    from nls_tune.plan import SearchPlan

ARM_NAMES = {"ce": "CE", "positive": "r > 0", "negative": "r < 0"}


def print_plan(plan: SearchPlan, slots: int | None, console: Console) -> None:
    """Say what the search is going to do.

    Args:
        plan: The plan.
        slots: Trials that run at once; None before a cluster is known.
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
        f"{budget.epochs} epochs; ASHA stops at epochs {_rungs(plan)}"
        + ("" if slots is None else f"; {slots} at a time"),
    ]
    for name, parameter in plan.space.space.items():
        if isinstance(parameter, ChoiceParameter):
            text = ", ".join(str(v) for v in parameter.values)
        else:
            text = f"{number(parameter.low)} to {number(parameter.high)}"
            if parameter.scale != "linear":
                scale = "log(1 − r)" if parameter.scale == "log1m" else "log"
                text += f", uniform in {scale}"
        shown = number(parameter.default) if isinstance(parameter, FloatParameter) else parameter.default
        lines.append(f"  {name}: {text} (default {shown})")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for name in ("noise level", "noise rate", "noise-cancelling rate", *(f"{ARM_NAMES[a]} trials" for a in ARMS)):
        table.add_column(name, justify="left" if name == "noise level" else "right")
    for level in plan.levels:
        counts = (str(level.quotas.get(arm, 0)) for arm in ARMS)
        table.add_row(level.level, percent(level.noise_rate), rate(level.noise_cancelling_rate), *counts)
    console.print(table)
    for note in plan.notes:
        console.print(f"Note: {note}", markup=False, highlight=False, soft_wrap=True)


def _rungs(plan: SearchPlan) -> str:
    levels = plan.rungs().levels
    return ", ".join(map(str, levels)) if levels else "none"


def print_summaries(summaries: Sequence[LevelSummary], console: Console) -> None:
    """Print the table of a search and one sentence a level."""
    table = Table(box=None, pad_edge=False, caption_justify="left")
    for name in ("noise level", "noise", "r*"):
        table.add_column(name, justify="left" if name == "noise level" else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("arm", no_wrap=True)
    for name in ("rate", "warm-up", "lr", "best epoch", "val", "test at best", "test at last", "trials"):
        table.add_column(name, justify="right", no_wrap=True)
    for summary in summaries:
        facts = [summary.noise_level, percent(summary.noise_rate), rate(summary.noise_cancelling_rate)]
        for arm in ARMS:
            found = summary.arms.get(arm)
            if found is None:
                continue
            table.add_row(
                *facts,
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
            facts = ["", "", ""]
    console.print(table)
    console.print(
        "* recommended: highest validation accuracy (noisy labels, 3-epoch mean). r*: noise-cancelling rate.\n"
        "Chosen by validation alone; test (clean labels) is only shown. Trials: completed/run.\n",
        highlight=False,
        soft_wrap=True,
        style="dim",
    )
    for summary in summaries:
        console.print(level_sentence(summary), markup=False, highlight=False, soft_wrap=True)


def level_sentence(summary: LevelSummary) -> str:
    """Say which rate to use at a level, what it gains on test, and whether validation could tell."""
    if summary.recommended is None:
        why = "no trial was completed, so nothing can be recommended; lower the learning rate"
        return f"{summary.noise_level}: {why}."
    best = summary.arms[summary.recommended]
    config = f"warm-up {best.config['warmup_epochs']}, lr {number(best.config['lr'])}"
    what = "cross-entropy" if summary.recommended == "ce" else f"smooth_rate {rate(best.config['smooth_rate'])}"
    start = f"{summary.noise_level}: use {what} ({config})"
    if best.test_accuracy_at_best is not None:
        start += f", test {percent(best.test_accuracy_at_best)}"
    if summary.rival is None or summary.validation is None:
        return f"{start}; there is no completed trial to compare it with."
    other = summary.arms[summary.rival]
    name = "the strongest CE" if summary.rival == "ce" else f"r = {rate(other.config['smooth_rate'])}"
    gain = ""
    if summary.test is not None:
        theirs = percent(other.test_accuracy_at_best)
        gain = f", {points(summary.test.difference)} points against {name} ({theirs})"
    return f"{start}{gain}; {_told_apart(summary.validation, summary.signal_share, name)}."


def _told_apart(validation: PairedDifference, signal_share: float | None, name: str) -> str:
    verdict = "validation tells them apart" if validation.distinct else "validation cannot tell them apart"
    text = f"{points(validation.difference)} points, paired standard error {100 * validation.standard_error:.1f}"
    if signal_share is not None and 0 < signal_share < 1:
        clean, error = validation.difference / signal_share, validation.standard_error / signal_share
        text += f"; divided by c = {signal_share:.2g}: {points(clean)}, {100 * error:.1f}"
    return f"{verdict} ({text})"
