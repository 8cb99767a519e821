"""The command line of suspicious labels: ``nls-tune suspects``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nls_tune.cli.flags import with_flags
from nls_tune.cli.train import DATA_HELP, LevelOption, RunArgument

_Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder to write. By default RUN/suspects/LEVEL, or suspects/LEVEL here.",
        show_default=False,
    ),
]
_Folds = Annotated[int, typer.Option(help="Parts that the samples are cut into: one model is trained per part.")]


@with_flags("data_dir", "images", "table", "arrays", help_=DATA_HELP)
def suspects(run: RunArgument, *, level: LevelOption = None, out: _Out = None, folds: _Folds = 3, **flags: Any) -> int:
    """List the labels of a noise level that are most probably wrong, with the class that they should have.

    Every label is judged by a network that was not trained on it, in the configuration that the run recommends.
    """
    from rich.console import Console

    from nls_tune.report.console.suspects import print_suspects
    from nls_tune.session.answer import load_answer
    from nls_tune.session.suspects import find_suspects, write_suspects

    folder = None if out is None else out.expanduser().absolute()  # loading may change the current folder
    answer = load_answer(run, level, {name: value for name, value in flags.items() if value is not None})
    console = Console()
    found = find_suspects(answer, folds=folds, progress=console.is_terminal)
    files = write_suspects(answer, found, folder or answer.folder("suspects"))
    print_suspects(found, answer.dataset, console)
    for file in files:
        print(f"Wrote {file}")
    return 0
