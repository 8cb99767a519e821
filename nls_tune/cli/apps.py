"""The look of all Typer programs of the package, and their option --version."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def make_app(**options: Any) -> typer.Typer:
    """Return a Typer program whose help is drawn in panels; errors are worded in ``nls_tune.cli.exit``."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        from nls_tune._version import __version__

        print(f"nls_tune {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
]
