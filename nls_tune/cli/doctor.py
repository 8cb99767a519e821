"""``nls-tune doctor``: what could keep a search from running here, or a run from being whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from nls_tune.machine.check import EXIT_CODES, Check, worst

_Run = Annotated[
    str | None, typer.Argument(metavar="RUN", help="Run directory or URL to check as well; one may yet be empty.")
]
_Address = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Ray cluster whose nodes to check, as in search.")
]
_DataDir = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder of data files to check, as in search.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")]


def doctor(run: _Run = None, address: _Address = None, data_dir: _DataDir = None, json: _Json = False) -> int:
    """Check this machine, its Ray, the data files and a run; say the way out of what is wrong.

    Ends with 0 if all is well, 1 if there are warnings, 2 if something keeps a search from running or a run is damaged.
    """
    from rich.console import Console

    from nls_tune.report.console.checks import checks_json, print_checks

    if json:
        made = list(_checks(run, address, data_dir))
        print(checks_json(made))
    else:
        made = print_checks(_checks(run, address, data_dir), Console())
    return EXIT_CODES[worst(made)]


def _checks(run: str | None, address: str | None, data_dir: Path | None) -> Iterator[Check]:
    from nls_tune.datasets.checks import check_data
    from nls_tune.machine.check import run_checks
    from nls_tune.machine.checks import machine_checks, written_folders
    from nls_tune.runs.audit import audit_run, audit_storage
    from nls_tune.runs.storage.opening import is_url
    from nls_tune.tune.checks import check_authentication, check_ray

    url = run if is_url(run) else None
    path = None if run is None or url is not None else Path(run).expanduser().absolute()
    shared = {"--out": path} if path is not None and path.is_dir() else {}
    yield from run_checks(
        {
            **machine_checks(written_folders(path)),
            "data": lambda: check_data(data_dir),
            "authentication": check_authentication,
            "ray": lambda: check_ray(address, shared, url),
            **({} if url is None else {"storage": lambda: audit_storage(url)}),
            **({} if path is None else {"run": lambda: audit_run(path)}),
        }
    )
