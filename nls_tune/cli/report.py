"""The command line of the report: ``nls-tune report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nls_tune.analysis.analysis import Analysis

_Runs = Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, by folder or URL.", show_default=False)]
_Out = Annotated[
    Path | None,
    typer.Option(
        help="File to write. By default RUN/report.html; report.html in this folder for several runs or a URL."
    ),
]
_Figures = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder for the figures that papers print (accuracy against rate, best rate against noise, the "
        "confirmation) and a LaTeX table.",
    ),
]
_FigureFormat = Annotated[
    str, typer.Option(metavar="FORMATS", help="Formats of the figures: png, svg, pdf, comma-separated.")
]


def report(runs: _Runs, out: _Out = None, figures: _Figures = None, figure_format: _FigureFormat = "png") -> int:
    """Write what runs say as one HTML page that opens offline, and with --figures also as figures for papers."""
    from nls_tune.analysis.analysis import analyze
    from nls_tune.report.figures import check_formats
    from nls_tune.report.html.page import page_bytes
    from nls_tune.runs import load_runs

    formats = check_formats([part.strip() for part in figure_format.split(",") if part.strip()])
    found = load_runs(runs)
    in_run = len(found) == 1 and found[0].url is None
    target = Path(out) if out is not None else found[0].path / "report.html" if in_run else Path("report.html")
    _check_target(target)
    analysis = analyze(found)
    content = page_bytes(analysis)
    _write(target, content)
    print(f"Wrote {target} ({len(content) / 1e6:.1f} MB)")
    if figures is not None:
        _write_figures(analysis, figures, formats)
    return 0


def _write_figures(analysis: Analysis, folder: Path, formats: tuple[str, ...]) -> None:
    from nls_tune.report.figures import draw_figures, save_figures

    drawn = draw_figures(analysis)
    for path in save_figures(drawn, folder, formats):
        print(f"Wrote {path}")
    for name, reason in drawn.missing.items():
        print(f"No {name}: {reason}")


def _check_target(target: Path) -> None:
    """Complain before the work, not after it."""
    from nls_tune.errors import InputError

    if target.is_dir():
        raise InputError(f"--out must be a file, {target} is a folder; give --out {target / 'report.html'}")
    if not target.parent.is_dir():
        raise InputError(f"--out must be in a folder that exists, {target.parent} does not; make it or give another")


def _write(target: Path, content: bytes) -> None:
    from nls_tune.errors import InputError
    from nls_tune.files import write_atomically

    try:
        write_atomically(target, content)
    except OSError as error:
        raise InputError(
            f"--out must be a place that can be written, {target} is not ({error.strerror}); give another --out"
        ) from None
