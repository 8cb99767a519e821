"""The command lines that read runs: ``nls-tune analyze`` and ``nls-tune runs``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from nls_tune.cli.exit import check_format
from nls_tune.machine.provenance import without_password
from nls_tune.runs.storage.opening import is_url

_Runs = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="Runs, by folder or URL; several are compared.", show_default=False),
]
_Folder = Annotated[str, typer.Argument(help="Folder or URL below which runs lie.")]
_Format = Annotated[str, typer.Option("--format", help="table, json, csv or markdown.")]


_Details = Annotated[bool, typer.Option("--details", help="Print the numbers behind the verdicts as well.")]


def analyze(runs: _Runs, format_: _Format = "table", details: _Details = False) -> int:
    """Say what runs found: which rate to use, how sure that is, and how runs compare."""
    check_format(format_)
    from rich.console import Console

    from nls_tune.analysis.analysis import analyze
    from nls_tune.report.console.analysis import print_analysis
    from nls_tune.report.formats import analysis_json, levels_csv, levels_markdown
    from nls_tune.runs import load_runs

    loaded = load_runs(runs)
    for run in loaded:
        for problem in run.problems:
            print(f"note: {run.name}: {problem}", file=sys.stderr)
    analysis = analyze(loaded)
    if format_ == "json":
        print(analysis_json(analysis))
    elif format_ == "csv":
        print(levels_csv(analysis), end="")
    elif format_ == "markdown":
        print(levels_markdown(analysis), end="")
    else:
        print_analysis(analysis, Console(), details=details)
    return 0


def runs(folder: _Folder = "runs", format_: _Format = "table") -> int:
    """List the runs below a folder: where each stands, and the best that it has."""
    check_format(format_)
    from rich.console import Console

    from nls_tune.analysis.run_overviews import run_overviews
    from nls_tune.report.console.runs import print_runs, runs_csv, runs_json, runs_markdown

    found, now = run_overviews(folder), datetime.now(UTC)
    if format_ == "json":
        print(runs_json(found))
    elif format_ == "csv":
        print(runs_csv(found), end="")
    elif format_ == "markdown":
        print(runs_markdown(found, now), end="")
    elif found:
        print_runs(found, Console(), now)
    else:
        print(f"No run lies below {without_password(folder) if is_url(folder) else Path(folder).absolute()}.")
    return 0
