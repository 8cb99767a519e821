"""The command line of a search: ``python -m nls_tune.search``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nls_tune.cli.apps import Version, make_app
from nls_tune.cli.flags import settings_of_flags, with_flags
from nls_tune.errors import InputError
from nls_tune.machine.provenance import without_password
from nls_tune.plan.settings import SearchSettings

app = make_app()

_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
_AssumeGpus = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="With --dry-run: plan for a machine with N GPUs, whatever this one has."),
]


@app.command()
@with_flags()
def search(*, dry_run: _DryRun = False, assume_gpus: _AssumeGpus = None, version: Version = False, **flags: Any) -> int:
    """Search the smooth rate for each noise level of a dataset.

    For example, with the worst human labels of CIFAR-10 (add --dry-run to see the plan first):

    [bold]python -m nls_tune.search --dataset cifar10n --noise human:worst[/bold]
    """
    settings = settings_of_flags(flags)
    if assume_gpus is not None and not dry_run:
        raise InputError("--assume-gpus needs --dry-run: it plans for another machine, and a search runs on this one")
    if assume_gpus is not None and settings.address is not None:
        raise InputError("--assume-gpus cannot go with --address, whose cluster has GPUs of its own; leave one out")
    return run_and_report(settings, dry_run=dry_run, assume_gpus=assume_gpus)


def run_and_report(settings: SearchSettings, *, dry_run: bool = False, assume_gpus: int | None = None) -> int:
    """Run a search, print how to go on if it was interrupted, and return the exit code."""
    from rich.console import Console

    from nls_tune.session.session import run_settings
    from nls_tune.tune.interrupts import InterruptedRunError

    console = Console()
    try:
        result = run_settings(settings, console, dry_run=dry_run, assume_gpus=assume_gpus)
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
    """Return this command with the run directory that it chose, and without passwords: a screen is seen by others."""
    arguments = [without_password(argument) for argument in sys.argv[1:]]
    if arguments[:1] != ["resume"] and not any(a == "--out" or a.startswith("--out=") for a in arguments):
        arguments = [*arguments, "--out", str(run)]
    program = ["nls-tune"] if Path(sys.argv[0]).name == "nls-tune" else ["python", "-m", "nls_tune.search"]
    return shlex.join([*program, *arguments])
