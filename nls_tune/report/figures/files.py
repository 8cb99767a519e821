"""Draws the figures of an analysis and writes them; the same analysis gives the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nls_tune.errors import InputError, unknown_name
from nls_tune.files import write_atomically
from nls_tune.report.figures.confirmation import confirmation
from nls_tune.report.figures.latex import latex_table
from nls_tune.report.figures.rates import accuracy_against_rate, best_rate_against_noise
from nls_tune.report.figures.style import styled

if TYPE_CHECKING:
    from nls_tune.analysis.analysis import Analysis, RunAnalysis

#: Formats of figures, and what keeps the time of writing out of their files.
FORMATS: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
#: The figures of a run, by the names of their files.
_FIGURES: dict[str, Callable[[RunAnalysis], Figure | str]] = {
    "accuracy_against_rate": accuracy_against_rate,
    "best_rate_against_noise": best_rate_against_noise,
    "confirmation": confirmation,
}


@dataclass(frozen=True)
class DrawnFigures:
    """The figures and LaTeX tables of an analysis, by their place below the folder, without an ending.

    ``missing`` says why a figure was not drawn.
    """

    figures: dict[str, Figure] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Return the formats, each once.

    Raises:
        InputError: If no format is given, or an unknown one.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"--figure-format: {unknown_name('format of figures', name, list(FORMATS))}")
    if not formats:
        raise InputError(f"--figure-format must name a format, got none; take one of {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(formats))


def write_figures(analysis: Analysis, folder: Path, formats: Sequence[str] = ("png",)) -> tuple[Path, ...]:
    """Draw and write the figures of an analysis, and the LaTeX table of a confirmation; return the files.

    The folder is made if it is missing; each of several runs has its own folder in it.

    Raises:
        InputError: For an unknown format, or a folder that cannot be written.
    """
    return save_figures(draw_figures(analysis), folder, formats)


def draw_figures(analysis: Analysis) -> DrawnFigures:
    """Draw the figures of an analysis."""
    found = DrawnFigures()
    with styled():
        for place, run in zip(_places([run.run.name for run in analysis.runs]), analysis.runs, strict=True):
            for name, draw in _FIGURES.items():
                drawn = draw(run)
                if isinstance(drawn, Figure):
                    found.figures[place + name] = drawn
                else:
                    found.missing[place + name] = drawn
            if (table := latex_table(run)) is not None:
                found.tables[f"{place}table"] = table
    return found


def _places(names: Sequence[str]) -> list[str]:
    """Return a folder for each of several runs; a single one needs none."""
    if len(names) == 1:
        return [""]
    places: list[str] = []
    for name in names:
        place = base = re.sub(r"[^\w.+-]+", "_", name).strip("._") or "run"
        while f"{place}/" in places:
            place = f"{base}-{len(places) + 1}"
        places.append(f"{place}/")
    return places


def save_figures(drawn: DrawnFigures, folder: Path, formats: Sequence[str] = ("png",)) -> tuple[Path, ...]:
    """Write what ``draw_figures`` returned; arguments, result and errors are those of ``write_figures``."""
    formats, folder = check_formats(formats), Path(folder)
    written: list[Path] = []
    try:
        with styled():
            for name, content in _files(drawn, formats):
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, content)
                written.append(path)
    except OSError as error:
        raise InputError(
            f"--figures must be a folder that can be written, {folder} is not ({error.strerror}); give another place"
        ) from None
    return tuple(written)


def _files(drawn: DrawnFigures, formats: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name, figure in drawn.figures.items():
        FigureCanvasAgg(figure)
        if figure.get_layout_engine() is not None:
            # Once for all formats: it is most of the work.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        for kind in formats:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=FORMATS[kind])
            yield f"{name}.{kind}", buffer.getvalue()
    for name, text in drawn.tables.items():
        yield f"{name}.tex", text.encode()
