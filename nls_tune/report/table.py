"""Tables, whatever shows them: a console, Markdown, CSV, the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal, TypeVar

_T = TypeVar("_T")
#: What characters of a cell are in LaTeX.
_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "−": "$-$", "±": r"$\pm$", "–": "--",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column: numbers stand at the right and are never cut, text stands at the left; consoles leave details out."""

    heading: str
    kind: Literal["text", "number"] = "number"
    detail: bool = False


@dataclass(frozen=True)
class Table:
    """A table; its cells are plain text, one per column, and the note says what the columns mean."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str | None = None


def words(*headings: str) -> tuple[Column, ...]:
    """Return columns of text."""
    return tuple(Column(heading, "text") for heading in headings)


def numbers(*headings: str) -> tuple[Column, ...]:
    """Return columns of numbers."""
    return tuple(Column(heading) for heading in headings)


def table_of(
    items: Iterable[_T], columns: Sequence[tuple[Column, Callable[[_T], str]]], note: str | None = None
) -> Table:
    """Return a table with one row per item, from each column and the text of an item's cell in it."""
    rows = tuple(tuple(cell(item) for _, cell in columns) for item in items)
    return Table(tuple(column for column, _ in columns), rows, note)


def csv_text(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV with a header; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue()


def markdown_text(table: Table) -> str:
    """Return a table in GitHub's Markdown; nothing in a cell is taken as Markdown or HTML."""
    lines = [[column.heading for column in table.columns], ["---"] * len(table.columns)]
    lines += [[escaped_markdown(cell) for cell in row] for row in table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex_text(table: Table) -> str:
    """Return a table as a LaTeX ``tabular`` with the rules of booktabs; nothing in a cell is taken as LaTeX."""
    kinds = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    lines = [_latex_row(column.heading for column in table.columns), *map(_latex_row, table.rows)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{kinds}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join("".join(_LATEX.get(c, c) for c in " ".join(cell.split())) for cell in cells) + r" \\"


def html_text(table: Table) -> str:
    """Return a table in HTML without classes or styles."""

    def row(tag: str, cells: Iterable[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    head = row("th", (column.heading for column in table.columns))
    return f"<table><thead>{head}</thead><tbody>{''.join(row('td', cells) for cells in table.rows)}</tbody></table>"


def escaped_markdown(cell: str) -> str:
    """Return a text in one line of which nothing is taken as Markdown or HTML."""
    for character in "\\`*_[]|~#":
        cell = cell.replace(character, f"\\{character}")
    return " ".join(cell.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())
