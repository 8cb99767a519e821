"""What runs say, on the console: recommendations in words first, then the numbers behind them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from nls_tune.analysis.allocation import Allocation
from nls_tune.analysis.analysis import Analysis, RunAnalysis
from nls_tune.analysis.comparison import Comparison, RunAtLevel
from nls_tune.analysis.importances import LevelImportances
from nls_tune.analysis.rate_against_noise import RateAgainstNoise
from nls_tune.analysis.recommendations import Recommendation
from nls_tune.report.console.confirmation import print_confirmations
from nls_tune.report.console.search import print_summaries
from nls_tune.report.console.tables import print_line, print_table
from nls_tune.report.text import ARM_NAMES, duration, interval, number, paused, percent, points, rate
from nls_tune.report.words import copyable_configuration, doubt_sentence, recommendation_words


def print_analysis(analysis: Analysis, console: Console) -> None:
    """Print everything that runs say, run by run, then how they compare."""
    for index, found in enumerate(analysis.runs):
        if index:
            console.print()
        _print_run(found, console)
    if analysis.comparison is not None:
        console.print()
        _print_comparison(analysis.comparison, console)


def _print_run(found: RunAnalysis, console: Console) -> None:
    run = found.run
    dataset = run.content.identity.settings.get("dataset")
    facts = [
        run.status,
        *([str(dataset)] if dataset else []),
        f"{len(run.levels)} noise level{'s' if len(run.levels) != 1 else ''}",
    ]
    print_line(f"{run.name}  ({', '.join(facts)})", console, "bold")
    if not found.recommendations:
        print_line("No trial has ended yet.", console)
        return
    console.print()
    _print_recommendations(found.recommendations, console)
    _heading("The search", console)
    print_summaries(found.summaries, console, sentences=False)
    if found.confirmations:
        _heading("Confirmation", console)
        print_confirmations(found.confirmations, console, sentences=False)
    if found.rate_against_noise is not None:
        _heading("Best rate against noise", console)
        _print_rates(found.rate_against_noise, console)
    if found.importances:
        _heading("Which settings matter for validation accuracy", console)
        _print_importances(found.importances, console)
    if found.allocation is not None:
        _heading("Where the time went", console)
        _print_allocation(found.allocation, console)


def _heading(title: str, console: Console) -> None:
    print_line(f"\n{title}", console, "bold underline")


def _print_recommendations(recommendations: Sequence[Recommendation], console: Console) -> None:
    common = set.intersection(*(set(found.doubts) for found in recommendations)) if len(recommendations) > 1 else set()
    for found in recommendations:
        words = recommendation_words(found)
        print_line(words.headline, console, "bold")
        for reason in words.reasons:
            print_line(f"  + {reason}", console)
        for kind in found.doubts:
            if kind not in common:
                print_line(f"  - {doubt_sentence(kind)}", console)
        if (line := copyable_configuration(found)) is not None:
            print_line(f"  {line}", console, "dim")
    if common:
        print_line("At every noise level:", console, "bold")
        for kind in recommendations[0].doubts:
            if kind in common:
                print_line(f"  - {doubt_sentence(kind)}", console)


def _print_rates(found: RateAgainstNoise, console: Console) -> None:
    rows = [
        (
            level.noise_level,
            percent(level.noise_rate),
            percent(level.estimated_noise_rate),
            rate(level.noise_cancelling_rate),
            rate(level.smooth_rate),
            f"[{rate(level.low)}, {rate(level.high)}]",
        )
        for level in found.levels
    ]
    headers = ("noise level", "noise", "estimated", "noise-cancelling", "best rate", "plausible 95 %")
    print_table(headers, rows, console)


def _print_importances(levels: Sequence[LevelImportances], console: Console) -> None:
    rows = []
    for level in levels:
        for index, one in enumerate(level.importances):
            name, trials = (level.noise_level, str(level.num_trials)) if index == 0 else ("", "")
            rows.append((name, one.setting, percent(one.ped_anova), percent(one.fanova), trials))
    if rows:
        print_table(("noise level", "setting", "among the best", "overall", "trials"), rows, console, text=(0, 1))
        print_line("\namong the best: PED-ANOVA; overall: fANOVA; of completed trials", console, "dim")
    for level in levels:
        if level.reason is not None:
            print_line(f"{level.noise_level}: {level.reason}", console)


_STAGES = {"search": "search", "confirm": "confirm", "confirm_all": "all labels"}


def _print_allocation(found: Allocation, console: Console) -> None:
    rows = [
        (
            group.noise_level,
            _STAGES.get(group.stage, group.stage),
            ARM_NAMES[group.arm],
            f"{group.num_trials}",
            f"{group.epochs_trained:,}",
            f"{group.epochs_reused:,}",
            f"{group.epochs_saved:,}",
            duration(group.train_seconds),
        )
        for group in found.groups
    ]
    headers = ("noise level", "stage", "arm", "trials", "trained", "reused", "saved", "training")
    print_table(headers, rows, console, text=(0, 1, 2))
    slots = f"{found.num_slots} slot{'' if found.num_slots == 1 else 's'}"
    print_line(
        "\ntrained, reused, saved: epochs, those taken from shared warm-ups, and those not trained\n"
        "because a trial was stopped\n"
        f"{slots}, {percent(found.busy_share)} of their time in trials, {duration(found.wall_seconds)} from first "
        f"start to last end{paused(found.paused_seconds)}",
        console,
        "dim",
    )


# Several runs


def _print_comparison(found: Comparison, console: Console) -> None:
    print_line("The runs side by side", console, "bold underline")
    if found.differences:
        rows = [(name, *(_setting(value) for value in values)) for name, values in found.differences]
        headers = ("setting", *found.runs)
        print_table(headers, rows, console, text=range(len(headers)))
    else:
        print_line("All settings are the same.", console)
    headers = ("", "trials", "rate", "val", "test", "fresh", "against CE", "to first")
    rows = []
    for level in found.levels:
        rows.append((level.noise_level, *[""] * (len(headers) - 1)))
        rows += [_at_level(run) for run in level.runs]
    console.print()
    print_table(headers, rows, console)
    print_line(
        "\nfresh: mean test accuracy over fresh seeds; against CE: paired difference to the\n"
        "strongest CE over them, in points; to first: test accuracy of the search's trial\n"
        "minus that of the first run, in points, with its paired standard error, where both\n"
        "were tested on the same samples",
        console,
        "dim",
    )


def _at_level(found: RunAtLevel) -> tuple[str, ...]:
    against = found.against_first
    return (
        f"  {found.run}",
        str(found.num_trials),
        "–" if found.config is None else rate(found.config["smooth_rate"]),
        percent(found.val_accuracy),
        percent(found.test_accuracy_at_best),
        percent(None if found.confirmed is None else found.confirmed.mean),
        interval(found.against_ce).replace(" [", "\n["),
        "–" if against is None else f"{points(against.difference, 2)}\n± {100 * against.standard_error:.2f}",
    )


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
