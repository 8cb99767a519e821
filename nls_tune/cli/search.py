"""The command line of a search: ``python -m nls_tune.search``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nls_tune.cli.apps import Version, make_app
from nls_tune.cli.flags import settings_of_flags, with_flags

app = make_app()

_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]


@app.command()
@with_flags()
def search(*, dry_run: _DryRun = False, version: Version = False, **flags: Any) -> int:
    """Search the smooth rate for each noise level of a dataset.

    For example, with the worst human labels of CIFAR-10 (add --dry-run to see the plan first):

    [bold]python -m nls_tune.search --dataset cifar10n --noise human:worst[/bold]
    """
    from rich.console import Console

    from nls_tune.session.session import run_settings
    from nls_tune.tune.interrupts import InterruptedRunError

    settings, console = settings_of_flags(flags), Console()
    try:
        result = run_settings(settings, console, dry_run=dry_run)
        if result is None or result.status == "finished":
            return 0
        run = result.run
    except InterruptedRunError as interrupted:
        run = interrupted.run
    console.print(
        "Interrupted; trials that ended are kept, and those that ran go on from their last checkpoint. "
        f"To go on: {_resume_command(run)}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    return 130


def _resume_command(run: Path) -> str:
    """Return this command with the run directory that it chose."""
    arguments = sys.argv[1:]
    if not any(a == "--out" or a.startswith("--out=") for a in arguments):
        arguments = [*arguments, "--out", str(run)]
    program = ["nls-tune"] if Path(sys.argv[0]).name == "nls-tune" else ["python", "-m", "nls_tune.search"]
    return shlex.join([*program, *arguments])
