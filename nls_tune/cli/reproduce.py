"""The command line of published tables: ``nls-tune reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nls_tune.cli.flags import with_flags

_Table = Annotated[
    str,
    typer.Argument(
        metavar="TABLE",
        help="cifar-n, cifar10n-small, symmetric, generated, digits, paper (of the paper's code), or a YAML file.",
        show_default=False,
    ),
]
_Rows = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Rows to fill now, comma-separated. By default all.", show_default=False),
]
_Minutes = Annotated[
    float | None,
    typer.Option(metavar="N", help="End in order after so many minutes; the same command goes on.", show_default=False),
]
_Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder to write. By default runs/TABLE.", show_default=False)
]


@with_flags(
    "methods", "preset", "overrides", "num_trials", "epochs", "train_size", "confirm_seeds", "sweep",
    "sweep_trials", "data_dir", "max_concurrent", "trials_per_gpu", "address", "seed",
)  # fmt: skip
def reproduce(
    table: _Table,
    context: typer.Context,
    *,
    rows: _Rows = None,
    minutes: _Minutes = None,
    out: _Out = None,
    **flags: Any,
) -> int:
    """Fill a table of published figures: per row a search with every method, and its confirmation.

    Finished rows are kept, and others go on where they were. It writes table.json, table.md and table.tex.
    """
    from rich.console import Console

    from nls_tune.report.console.tables import print_command, print_table
    from nls_tune.report.reproduction import gains_table, reproduction_table
    from nls_tune.session.reproducing import reproduce

    console = Console()
    done = reproduce(
        table,
        out=out,
        rows=[name.strip() for name in rows.split(",")] if rows else (),
        minutes=minutes,
        # By where it comes from: what is given as a search's default replaces what the table says. By the source's
        # name, because some versions of Typer have a copy of click's type.
        changes={
            name: value
            for name, value in flags.items()
            if value not in (None, ()) and getattr(context.get_parameter_source(name), "name", None) != "DEFAULT"
        },
        console=console,
    )
    console.print()
    print_table(reproduction_table(done.rows), console)
    if any(row.result and row.result.methods for row in done.rows):
        print_table(gains_table(done.rows), console)
    print_command(f"Table: {done.out / 'table.md'} (also .json and .tex)", console)
    left = [row for row in done.rows if not row.finished]
    if done.status != "finished":
        print_command(f"{done.status.capitalize()}; the same command goes on", console)
    elif left:
        print_command(f"{len(left)} of {len(done.rows)} rows are not filled: {left[0].command}", console)
    return 130 if done.status == "interrupted" else 0
