"""How a session ends: its summary in run.json and on the screen."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from nls_tune.report.text import amount
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import load_run, load_trials, read_trials
from nls_tune.runs.run_json import RunJson

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from nls_tune.analysis.confirmation import LevelConfirmation
    from nls_tune.analysis.level_summaries import LevelSummary
    from nls_tune.analysis.verdicts import Verdict
    from nls_tune.plan.plan import SearchPlan


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What a search leaves behind; notebooks show it as a table.

    Attributes:
        run: The run directory.
        status: ``finished`` or ``interrupted``.
        verdicts: The answer at each noise level.
        levels: The selected trial of each arm, one entry per noise level.
        confirmation: What fresh seeds say, one entry per noise level; empty without a confirmation.
    """

    run: Path
    status: str
    verdicts: tuple[Verdict, ...]
    levels: tuple[LevelSummary, ...]
    confirmation: tuple[LevelConfirmation, ...]

    def best(self, noise_level: str | None = None) -> Verdict:
        """Return the verdict of a noise level; of a run with one level, that one.

        Raises:
            ValueError: If the run has no verdict of that level, or several and none is named.
        """
        found = [v for v in self.verdicts if noise_level in (None, v.noise_level)]
        if len(found) != 1:
            names = ", ".join(v.noise_level for v in self.verdicts) or "none yet"
            raise ValueError(f"noise_level must be one of those with a verdict ({names}), got {noise_level}")
        return found[0]

    @property
    def trials(self) -> pd.DataFrame:
        """The rows of ``trials/``, all columns."""
        return read_trials(self.run)

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows of ``trials/`` without the packed bits of single samples."""
        return self.trials.drop(columns=["val_correct_at_best", "test_correct_at_best"])

    def report(self, out: str | Path | None = None) -> Path:
        """Write the report page and return its path, by default ``report.html`` in the run directory."""
        from nls_tune.analysis.analysis import analyze
        from nls_tune.files import write_atomically
        from nls_tune.report.html.page import page_bytes

        target = self.run / "report.html" if out is None else Path(out)
        write_atomically(target, page_bytes(analyze([load_run(self.run)])))
        return target

    def __repr__(self) -> str:
        """Return the answer in one line."""
        from nls_tune.report.words import summary_line

        answer = summary_line(self.verdicts) if self.verdicts else "No trial has ended."
        return f"<SearchResult {self.run} ({self.status}): {answer}>"

    def _repr_html_(self) -> str:
        from nls_tune.report.table import html_text
        from nls_tune.report.words import summary_line, table_note, verdict_table

        if not self.verdicts:
            return "<p>No trial has ended.</p>"
        answer, note = escape(summary_line(self.verdicts)), escape(table_note(self.verdicts))
        return f"<p><strong>{answer}</strong></p>{html_text(verdict_table(self.verdicts))}<p>{note}</p>"


def count_search_trials(trials: pd.DataFrame) -> int:
    """A row that somebody removed is missed by this number, and run again."""
    return int((trials["stage"] == "search").sum())


def conclude_run(plan: SearchPlan, run: RunDirectory, content: RunJson, console: Console) -> SearchResult:
    """Decide the verdicts, write them, and print the answer."""
    from nls_tune.analysis.verdicts import find
    from nls_tune.report.console.search import epochs_line
    from nls_tune.report.console.tables import print_command, print_line
    from nls_tune.report.console.verdicts import print_verdicts

    loaded = load_trials(run.path)
    found = find(loaded)
    content.search_trials = count_search_trials(loaded.trials)
    content.verdicts = [asdict(verdict) for verdict in found.verdicts]
    run.write_json(content)
    console.print()
    print_verdicts(found.verdicts, console)
    _say_what_time_left_out(plan, content, found.summaries, console)
    if failed := int((loaded.trials["status"] == "failed").sum()):
        print_line(f"{amount(failed, 'trial')} failed; the column error of trials/ says why.", console)
    if line := epochs_line(loaded.trials):
        print_line(line, console)
    path = shlex.quote(str(run.path))
    print_command(f"Results: {run.path}", console)
    print_command(f"The numbers behind it: nls-tune analyze --details {path}", console)
    print_command(f"As a page with plots: nls-tune report {path}", console)
    return SearchResult(run.path, content.status, found.verdicts, found.summaries, found.confirmations)


def _say_what_time_left_out(
    plan: SearchPlan, content: RunJson, summaries: Sequence[LevelSummary], console: Console
) -> None:
    """Say that the time budget ended the search, and at which levels no trial ran at all."""
    from nls_tune.report.text import duration

    if content.ended_by != "time_budget":
        return
    lines = [
        f"{level.level}: no trial began within the time budget, so nothing is known."
        for level in plan.levels
        if level.level not in {summary.noise_level for summary in summaries}
    ]
    lines.append(
        f"The time budget ended the search after {duration(content.search_seconds)}, with {content.search_trials} of "
        f"{plan.num_trials} trials begun; the same command with a larger --time-budget goes on."
    )
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
