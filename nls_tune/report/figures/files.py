"""Draws all figures of an analysis and writes them; the same analysis gives the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nls_tune.errors import InputError, unknown_name
from nls_tune.files import write_atomically
from nls_tune.report.figures.curves import learning_curves
from nls_tune.report.figures.latex import latex_table
from nls_tune.report.figures.rates import accuracy_against_rate, best_rate_against_noise
from nls_tune.report.figures.seeds import comparison, confirmation
from nls_tune.report.figures.settings import importances, interactions
from nls_tune.report.figures.style import styled
from nls_tune.report.figures.time import allocation

if TYPE_CHECKING:
    from nls_tune.analysis.analysis import Analysis, RunAnalysis

#: Formats of figures, and what keeps the time of writing out of their files.
FORMATS: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
#: The figures of a run, by the names of their files.
_FIGURES: dict[str, Callable[[RunAnalysis], Figure | str]] = {
    "accuracy_against_rate": accuracy_against_rate,
    "best_rate_against_noise": best_rate_against_noise,
    "learning_curves": learning_curves,
    "interactions": interactions,
    "importances": importances,
    "allocation": allocation,
    "confirmation": confirmation,
}
_TABLE = "table.tex"


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Return the formats, each once.

    Raises:
        InputError: If there is none, or one that is unknown.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"--figure-format: {unknown_name('format of figures', name, list(FORMATS))}")
    if not formats:
        raise InputError(f"--figure-format must name a format, got none; take one of {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(formats))


def write_figures(analysis: Analysis, folder: Path, formats: Sequence[str] = ("png",)) -> tuple[Path, ...]:
    """Write all figures that there is something to draw for, and the LaTeX table of a confirmation.

    Args:
        analysis: Of one run; of several, each has a folder of its own in ``folder``, beside their comparison.
        folder: Made if it is missing.
        formats: ``png``, ``svg``, ``pdf``.

    Returns:
        The files.

    Raises:
        InputError: For an unknown format, or a folder that cannot be written.
    """
    return save_figures(draw_figures(analysis), folder, formats)


def draw_figures(analysis: Analysis) -> dict[str, Figure | str]:
    """Draw all figures of an analysis.

    Returns:
        By their place below the folder, without an ending: a figure; the text of the table, whose name ends in
        .tex; or, after the name with a question mark, why there is none.
    """
    found: dict[str, Figure | str] = {}
    with styled():
        places = _places([run.run.name for run in analysis.runs])
        for place, run in zip(places, analysis.runs, strict=True):
            for name, draw in _FIGURES.items():
                _keep(found, f"{place}{name}", draw(run))
            table = latex_table(run)
            if table is not None:
                found[f"{place}{_TABLE}"] = table
        if analysis.comparison is not None:
            _keep(found, "comparison", comparison(analysis.comparison))
    return found


def _keep(found: dict[str, Figure | str], name: str, drawn: Figure | str) -> None:
    found[name if isinstance(drawn, Figure) else f"{name}?"] = drawn


def _places(names: Sequence[str]) -> list[str]:
    """A folder for each of several runs; a single one needs none."""
    if len(names) == 1:
        return [""]
    places: list[str] = []
    for name in names:
        place = base = re.sub(r"[^\w.+-]+", "_", name).strip("._") or "run"
        while f"{place}/" in places:
            place = f"{base}-{len(places) + 1}"
        places.append(f"{place}/")
    return places


def save_figures(
    figures: Mapping[str, Figure | str], folder: Path, formats: Sequence[str] = ("png",)
) -> tuple[Path, ...]:
    """Write what ``draw_figures`` returned.

    Returns:
        The files.

    Raises:
        InputError: As ``write_figures``.
    """
    formats, folder = check_formats(formats), Path(folder)
    written: list[Path] = []
    try:
        with styled():
            for name, drawn in figures.items():
                if name.endswith("?"):
                    continue
                files = {name: drawn.encode()} if isinstance(drawn, str) else _rendered(name, drawn, formats)
                for file, content in files.items():
                    path = folder / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(path, content)
                    written.append(path)
    except OSError as error:
        raise InputError(
            f"--figures must be a folder that can be written, {folder} is not ({error.strerror}); give another place"
        ) from None
    return tuple(written)


def _rendered(name: str, figure: Figure, formats: Sequence[str]) -> dict[str, bytes]:
    FigureCanvasAgg(figure)
    if figure.get_layout_engine() is not None:
        # Once for all formats: it is most of the work.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    found = {}
    for kind in formats:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=FORMATS[kind])
        found[f"{name}.{kind}"] = buffer.getvalue()
    return found
