"""How a session ends: its summary in run.json and on the screen."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_trials
from nls_tune.runs.run_json import RunJson

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from nls_tune.analysis.confirmation import LevelConfirmation
    from nls_tune.analysis.level_summaries import LevelSummary
    from nls_tune.plan.plan import SearchPlan


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves behind.

    Attributes:
        run: The run directory.
        status: ``finished`` or ``interrupted``.
        levels: One summary a noise level.
        confirmation: What fresh seeds say, one entry per level; empty without a confirmation.
    """

    run: Path
    status: str
    levels: tuple[LevelSummary, ...]
    confirmation: tuple[LevelConfirmation, ...]


def count_search_trials(trials: pd.DataFrame) -> int:
    """A row that somebody removed is missed by this number, and run again."""
    return int((trials["stage"] == "search").sum())


def conclude_run(plan: SearchPlan, run: RunDirectory, content: RunJson, console: Console) -> SearchResult:
    """Summarise the run, write its selection, and print the table."""
    from nls_tune.analysis.confirmation import confirmations
    from nls_tune.analysis.level_summaries import level_summaries
    from nls_tune.report.console.confirmation import print_confirmations
    from nls_tune.report.console.search import epochs_line, print_summaries

    trials, levels = read_trials(run.path), [p.level for p in plan.levels]
    summaries = level_summaries(trials, levels, content.searched or None)
    confirmed = confirmations(trials, levels)
    content.search_trials = count_search_trials(trials)
    content.selection = [asdict(summary) for summary in summaries]
    content.confirmation = [asdict(confirmation) for confirmation in confirmed]
    run.write_json(content)
    console.print()
    print_summaries(summaries, console)
    _say_what_time_left_out(plan, content, summaries, console)
    if confirmed:
        console.print("\nConfirmation", style="bold")
        print_confirmations(confirmed, console)
    if line := epochs_line(trials):
        console.print(line, highlight=False)
    console.print(f"Results: {run.path}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"Plots and tables of them: {shlex.join(['nls-tune', 'report', str(run.path)])}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    return SearchResult(run.path, content.status, summaries, confirmed)


def _say_what_time_left_out(
    plan: SearchPlan, content: RunJson, summaries: Sequence[LevelSummary], console: Console
) -> None:
    """Say that the time budget ended the search, and at which levels no trial ran at all."""
    from nls_tune.report.text import duration

    if content.ended_by != "time_budget":
        return
    lines = [
        f"{level.level}: no trial began within the time budget, so nothing can be recommended."
        for level in plan.levels
        if level.level not in {summary.noise_level for summary in summaries}
    ]
    lines.append(
        f"The time budget ended the search after {duration(content.search_seconds)}, with {content.search_trials} of "
        f"{plan.num_trials} trials begun; the same command with a larger --time-budget goes on."
    )
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
