"""The command line of the report: ``nls-tune report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.", show_default=False)]
_Out = Annotated[
    Path | None,
    typer.Option(help="File to write. By default RUN/report.html; report.html in this folder for several runs."),
]


def report(runs: _Runs, out: _Out = None) -> int:
    """Write what runs say as one HTML page that opens offline."""
    from nls_tune.analysis.analysis import analyze
    from nls_tune.report.page import page_bytes
    from nls_tune.runs import load_runs

    found = load_runs(runs)
    target = Path(out) if out is not None else found[0].path / "report.html" if len(found) == 1 else Path("report.html")
    _check_target(target)
    content = page_bytes(analyze(found))
    _write(target, content)
    print(f"Wrote {target} ({len(content) / 1e6:.1f} MB)")
    return 0


def _check_target(target: Path) -> None:
    """Complain before the work, not after it."""
    from nls_tune.errors import InputError

    if target.is_dir():
        raise InputError(f"--out must be a file, {target} is a folder; give --out {target / 'report.html'}")
    if not target.parent.is_dir():
        raise InputError(f"--out must be in a folder that exists, {target.parent} does not; make it or give another")


def _write(target: Path, content: bytes) -> None:
    from nls_tune.errors import InputError
    from nls_tune.results import write_atomically

    try:
        write_atomically(target, content)
    except OSError as error:
        raise InputError(
            f"--out must be a place that can be written, {target} is not ({error.strerror}); give another --out"
        ) from None
