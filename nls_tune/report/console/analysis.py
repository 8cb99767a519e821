"""What runs say, on the console: the verdicts first, then the numbers behind them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import Console

from nls_tune.analysis.allocation import Allocation
from nls_tune.analysis.analysis import Analysis, RunAnalysis
from nls_tune.analysis.comparison import Comparison
from nls_tune.analysis.importances import LevelImportances
from nls_tune.analysis.rate_against_noise import RateAgainstNoise
from nls_tune.report.console.tables import print_command, print_levels, print_line, print_table
from nls_tune.report.console.verdicts import print_verdicts
from nls_tune.report.run_tables import (
    arms_table,
    comparison_table,
    confirmation_table,
    costs_table,
    differences_table,
    sweep_table,
)
from nls_tune.report.table import Column, Table, numbers, table_of, words
from nls_tune.report.text import amount, duration, of_metric, paused, percent, rate
from nls_tune.report.words import all_labels_sentence, verdict_words


def print_analysis(analysis: Analysis, console: Console, *, details: bool = False) -> None:
    """Print what runs say, run by run, then how they compare; with details the numbers behind the verdicts as well."""
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
        print_command(f"The numbers behind it: nls-tune analyze --details {shlex.quote(run.place)}", console, "dim")
        return
    for verdict in found.verdicts:
        words = verdict_words(verdict)
        # Where something is missing, it was said below the table.
        headline = words.headline if verdict.reason is None else words.badge
        print_line(f"\n{words.noise_level}: {headline}", console, "bold")
        if words.snippet is not None:
            print_command(words.snippet.rstrip(), console, "dim")
    _heading("The search", console)
    print_levels(arms_table(found.summaries), console)
    if found.confirmations:
        _heading("Confirmation", console)
        print_levels(confirmation_table(found.confirmations), console)
        for level in found.confirmations:
            if sentence := all_labels_sentence(level):
                print_line(sentence, console)
    if found.rate_sweeps:
        _heading("Rates over fresh seeds", console)
        print_levels(sweep_table(found.rate_sweeps), console)
    if found.rate_against_noise is not None:
        _heading("Rate to use against noise", console)
        _print_rates(found.rate_against_noise, console)
    if found.importances:
        _heading(of_metric("Which settings matter for validation accuracy", [found.run.content.metric]), console)
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
        note = "among the best: PED-ANOVA; overall: fANOVA; of completed trials"
        print_table(Table(columns, tuple(rows), note), console)
    for level in levels:
        if level.reason is not None:
            print_line(f"{level.noise_level}: {level.reason}", console)


def _print_allocation(found: Allocation, console: Console) -> None:
    print_table(costs_table(found), console)
    print_line(
        f"{amount(found.num_slots, 'slot')}, {percent(found.busy_share)} of their time in trials, "
        f"{duration(found.wall_seconds)} from first start to last end{paused(found.paused_seconds)}",
        console,
        "dim",
    )


def _print_comparison(found: Comparison, console: Console) -> None:
    print_line("The runs side by side", console, "bold underline")
    if found.differences:
        print_table(differences_table(found), console)
    else:
        print_line("All settings are the same.", console)
    console.print()
    print_levels(comparison_table(found), console)
