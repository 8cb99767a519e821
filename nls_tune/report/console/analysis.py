"""What runs say, on the console: the verdicts first, then the numbers behind them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from nls_tune.analysis.allocation import Allocation
from nls_tune.analysis.analysis import Analysis, RunAnalysis
from nls_tune.analysis.comparison import Comparison, RunAtLevel
from nls_tune.analysis.importances import LevelImportances
from nls_tune.analysis.rate_against_noise import RateAgainstNoise
from nls_tune.report.console.confirmation import print_confirmations
from nls_tune.report.console.search import print_summaries
from nls_tune.report.console.tables import print_line, print_table
from nls_tune.report.console.verdicts import print_verdicts
from nls_tune.report.table import Column, Table, numbers, table_of, words
from nls_tune.report.text import ARM_NAMES, amount, duration, interval, number, paused, percent, points, rate
from nls_tune.report.words import verdict_words


def print_analysis(analysis: Analysis, console: Console, *, details: bool = False) -> None:
    """Print what runs say, run by run, then how they compare.

    Args:
        analysis: What they say.
        console: Where to print.
        details: Whether to print the numbers behind the verdicts as well.
    """
    for index, found in enumerate(analysis.runs):
        if index:
            console.print()
        _print_run(found, console, details)
    if analysis.comparison is not None:
        console.print()
        _print_comparison(analysis.comparison, console)


def _print_run(found: RunAnalysis, console: Console, details: bool) -> None:
    run = found.run
    dataset = run.content.identity.settings.get("dataset")
    facts = [
        run.status,
        *([str(dataset)] if dataset else []),
        amount(len(run.levels), "noise level"),
    ]
    print_line(f"{run.name}  ({', '.join(facts)})", console, "bold")
    print_verdicts(found.verdicts, console)
    if not found.verdicts:
        return
    if not details:
        print_line(f"The numbers behind it: nls-tune analyze --details {shlex.quote(str(run.path))}", console, "dim")
        return
    for verdict in found.verdicts:
        words = verdict_words(verdict)
        print_line(f"\n{words.noise_level}: {words.headline}", console, "bold")
        if words.snippet is not None:
            print_line(words.snippet.rstrip(), console, "dim")
    _heading("The search", console)
    print_summaries(found.summaries, console)
    if found.confirmations:
        _heading("Confirmation", console)
        print_confirmations(found.confirmations, console)
    if found.rate_against_noise is not None:
        _heading("Rate to use against noise", console)
        _print_rates(found.rate_against_noise, console)
    if found.importances:
        _heading("Which settings matter for validation accuracy", console)
        _print_importances(found.importances, console)
    if found.allocation is not None:
        _heading("Where the time went", console)
        _print_allocation(found.allocation, console)


def _heading(title: str, console: Console) -> None:
    print_line(f"\n{title}", console, "bold underline")


def _print_rates(found: RateAgainstNoise, console: Console) -> None:
    table = table_of(
        found.levels,
        [
            (Column("noise level", "text"), lambda level: level.noise_level),
            (Column("noise"), lambda level: percent(level.noise_rate)),
            (Column("estimated"), lambda level: percent(level.estimated_noise_rate)),
            (Column("noise-cancelling"), lambda level: rate(level.noise_cancelling_rate)),
            (Column("use"), lambda level: rate(level.smooth_rate)),
            (Column("plausible 95 %"), lambda level: f"[{rate(level.low)}, {rate(level.high)}]"),
        ],
    )
    print_table(table, console)


def _print_importances(levels: Sequence[LevelImportances], console: Console) -> None:
    rows = []
    for level in levels:
        for index, one in enumerate(level.importances):
            name, trials = (level.noise_level, str(level.num_trials)) if index == 0 else ("", "")
            rows.append((name, one.setting, percent(one.ped_anova), percent(one.fanova), trials))
    if rows:
        columns = (*words("noise level", "setting"), *numbers("among the best", "overall", "trials"))
        print_table(Table(columns, tuple(rows)), console)
        print_line("\namong the best: PED-ANOVA; overall: fANOVA; of completed trials", console, "dim")
    for level in levels:
        if level.reason is not None:
            print_line(f"{level.noise_level}: {level.reason}", console)


_STAGES = {"search": "search", "confirm": "confirm", "confirm_all": "all labels"}


def _print_allocation(found: Allocation, console: Console) -> None:
    table = table_of(
        found.groups,
        [
            (Column("noise level", "text"), lambda group: group.noise_level),
            (Column("stage", "text"), lambda group: _STAGES.get(group.stage, group.stage)),
            (Column("arm", "text"), lambda group: ARM_NAMES[group.arm]),
            (Column("trials"), lambda group: f"{group.num_trials}"),
            (Column("trained"), lambda group: f"{group.epochs_trained:,}"),
            (Column("reused"), lambda group: f"{group.epochs_reused:,}"),
            (Column("saved"), lambda group: f"{group.epochs_saved:,}"),
            (Column("training"), lambda group: duration(group.train_seconds)),
        ],
    )
    print_table(table, console)
    print_line(
        "\ntrained, reused, saved: epochs, those taken from shared warm-ups, and those not trained\n"
        "because a trial was stopped\n"
        f"{amount(found.num_slots, 'slot')}, {percent(found.busy_share)} of their time in trials, "
        f"{duration(found.wall_seconds)} from first start to last end{paused(found.paused_seconds)}",
        console,
        "dim",
    )


# Several runs


def _print_comparison(found: Comparison, console: Console) -> None:
    print_line("The runs side by side", console, "bold underline")
    if found.differences:
        settings = tuple((name, *map(_setting, values)) for name, values in found.differences)
        print_table(Table(words("setting", *found.runs), settings), console)
    else:
        print_line("All settings are the same.", console)
    columns = (*words(""), *numbers("trials", "use", "val", "test", "fresh", "best rate to CE", "to first"))
    rows: list[tuple[str, ...]] = []
    for level in found.levels:
        rows.append((level.noise_level, *[""] * (len(columns) - 1)))
        rows += [_at_level(run) for run in level.runs]
    console.print()
    print_table(Table(columns, tuple(rows)), console)
    print_line(
        "\nfresh: mean test accuracy over fresh seeds; best rate to CE: paired difference to\n"
        "the strongest CE over them, in points; to first: test accuracy of the search's trial\n"
        "minus that of the first run, in points, with its paired standard error, where both\n"
        "were tested on the same samples",
        console,
        "dim",
    )


def _at_level(found: RunAtLevel) -> tuple[str, ...]:
    against, verdict = found.against_first, found.verdict
    use = None if verdict is None else verdict.use
    return (
        f"  {found.run}",
        str(found.num_trials),
        "–" if use is None else rate(use.config["smooth_rate"]),
        percent(found.val_accuracy),
        percent(found.test_accuracy_at_best),
        percent(None if use is None or not use.num_seeds or use.test is None else use.test.mean),
        interval(found.difference).replace(" [", "\n["),
        "–" if against is None else f"{points(against.difference, 2)}\n± {100 * against.standard_error:.2f}",
    )


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
