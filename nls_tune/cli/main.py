"""The ``nls-tune`` command."""

from __future__ import annotations

from nls_tune.cli import export as export_command
from nls_tune.cli.analyze import analyze, runs
from nls_tune.cli.apps import Version, make_app
from nls_tune.cli.doctor import doctor
from nls_tune.cli.estimate import estimate
from nls_tune.cli.exit import exit_with
from nls_tune.cli.predict import predict
from nls_tune.cli.report import report
from nls_tune.cli.reproduce import reproduce
from nls_tune.cli.resume import resume
from nls_tune.cli.search import search
from nls_tune.cli.suspects import suspects
from nls_tune.cli.train import train
from nls_tune.cli.watch import watch

app = make_app(no_args_is_help=True)
app.command()(search)
app.command()(resume)
app.command()(estimate)
app.command()(watch)
app.command()(analyze)
app.command()(runs)
app.add_typer(export_command.app, name="export")
app.command()(report)
app.command()(suspects)
app.command()(train)
app.command()(predict)
app.command()(reproduce)
app.command()(doctor)


@app.callback()
def _main(version: Version = False) -> None:
    """Find the best label-smoothing rate for each level of label noise."""


def main() -> None:
    """Run the command and exit with its code."""
    exit_with(app)


if __name__ == "__main__":
    main()
