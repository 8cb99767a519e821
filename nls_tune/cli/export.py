"""The command line of ``nls-tune export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nls_tune.cli.apps import make_app

app = make_app(no_args_is_help=True, help="Write a run in the format of another tool.")

_Run = Annotated[str, typer.Argument(help="Run directory, or URL of a run.", show_default=False)]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


@app.command()
def optuna(
    run: _Run,
    file: Annotated[Path, typer.Argument(help="Journal to write.", show_default=False)],
    overwrite: _Overwrite = False,
) -> int:
    """Write an Optuna journal, one study per noise level and arm: optuna-dashboard FILE."""
    from nls_tune.export.optuna_journal import export_optuna
    from nls_tune.report.text import amount, printable
    from nls_tune.runs import load_run

    loaded = load_run(run)
    for name, count in export_optuna(loaded, file, overwrite=overwrite).items():
        print(f"{printable(name)}: {amount(count, 'trial')}")
    _say_problems(loaded.problems)
    print(f"To look at it: optuna-dashboard {file}")
    return 0


@app.command()
def tensorboard(
    run: _Run,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.", show_default=False)],
    overwrite: _Overwrite = False,
) -> int:
    """Write TensorBoard event files with hyperparameters, one per trial: tensorboard --logdir DIR."""
    from nls_tune.export.tensorboard import export_tensorboard
    from nls_tune.report.text import amount
    from nls_tune.runs import load_run

    loaded = load_run(run)
    print(amount(export_tensorboard(loaded, folder, overwrite=overwrite), "trial"))
    _say_problems(loaded.problems)
    print(f"To look at it: tensorboard --logdir {folder}")
    return 0


def _say_problems(problems: tuple[str, ...]) -> None:
    from nls_tune.report.text import printable

    for problem in problems:
        print(f"Left out: {printable(problem)}")
