"""The runs below a folder as a list, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console

from nls_tune.analysis.run_overviews import RunOverview
from nls_tune.report.console.tables import print_line, print_table
from nls_tune.report.formats import FORMAT_VERSION, plain
from nls_tune.report.table import Table, csv_text, markdown_text, numbers, words
from nls_tune.report.text import percent, rate

#: The most noise levels that are listed one by one.
_MOST_LEVELS = 3
_TABLE = (*words("run", "status", "dataset", "noise levels"), *numbers("trials", "use", "val", "age"))
_COLUMNS = (
    "name", "path", "status", "dataset", "num_levels", "num_ended", "num_planned", "levels", "created_at", "problem",
)  # fmt: skip


def print_runs(runs: Sequence[RunOverview], console: Console, now: datetime) -> None:
    """Print one line per run, with its age at the time ``now``, and what is wrong with damaged ones."""
    print_table(Table(_TABLE, tuple(_cells(run, now) for run in runs)), console)
    for run in runs:
        if run.problem is not None:
            print_line(f"{run.name}: {run.problem}", console)


def runs_json(runs: Sequence[RunOverview]) -> str:
    """Return the runs as one JSON object, by the field names of ``RunOverview``."""
    return json.dumps({"format_version": FORMAT_VERSION, "runs": plain(runs)}, allow_nan=False)


def runs_csv(runs: Sequence[RunOverview]) -> str:
    """Return the runs as CSV; ``levels`` holds rate to use, validation accuracy and finding of each as JSON."""
    rows = []
    for run in runs:
        cells = {**plain(run), "num_levels": len(run.levels), "levels": json.dumps(plain(run.levels))}
        rows.append([cells[name] for name in _COLUMNS])
    return csv_text(_COLUMNS, rows)


def runs_markdown(runs: Sequence[RunOverview], now: datetime) -> str:
    """Return the runs as a table in Markdown."""
    rows = [tuple(", ".join(cell.split("\n")) for cell in (*_cells(run, now), run.problem or "")) for run in runs]
    return markdown_text(Table((*_TABLE, *words("problem")), tuple(rows)))


def _cells(run: RunOverview, now: datetime) -> tuple[str, ...]:
    trials = "–" if run.num_ended is None else f"{run.num_ended}/{run.num_planned}"
    age = "–" if run.created_at is None else _age((now - run.created_at).total_seconds())
    names, rates, accuracies = _levels(run)
    return (run.name, run.status or "damaged", run.dataset or "–", names, trials, rates, accuracies, age)


def _levels(run: RunOverview) -> tuple[str, str, str]:
    """Noise levels, rates to use and their validation accuracies: one line per level, or how many there are."""
    if len(run.levels) <= _MOST_LEVELS:
        names = "\n".join(level.noise_level for level in run.levels) or "–"
        rates = "\n".join(rate(level.smooth_rate) for level in run.levels) or "–"
        return names, rates, "\n".join(percent(level.val_accuracy) for level in run.levels) or "–"
    have = sum(level.smooth_rate is not None for level in run.levels)
    return f"{len(run.levels)} levels", f"{have} found", "–"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "now"
