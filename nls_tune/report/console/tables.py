"""Plain tables on consoles of any width: text is folded, numbers are never cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich import table as rich_table
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from nls_tune.report.table import Column, Table

#: Folded text gets at least this many columns, so that usual noise levels stay whole; a narrower console gets long
#: lines.
_LEAST = 16


def print_table(table: Table, console: Console) -> None:
    """Print a table without a frame, and its note; cells are taken as they are, not as markup."""
    widths = [_width([column.heading, *cells]) for column, *cells in zip(table.columns, *table.rows, strict=True)]
    excess = sum(widths) + len(widths) - 1 - console.width
    text = [i for i, column in enumerate(table.columns) if column.kind == "text"]
    for i in sorted(text, key=lambda i: -widths[i]):
        cut = min(max(excess, 0), max(0, widths[i] - _LEAST))
        widths[i], excess = widths[i] - cut, excess - cut
    drawn = rich_table.Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for column, width in zip(table.columns, widths, strict=True):
        justify = "left" if column.kind == "text" else "right"
        drawn.add_column(Text(column.heading), width=width, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    drawn.width = sum(widths) + len(widths) - 1  # its own: rich would cut the columns to a narrower console
    console.print(drawn, crop=False)
    if table.note is not None:
        console.print(f"\n{table.note}", markup=False, highlight=False, style="dim")


def print_levels(table: Table, console: Console) -> None:
    """Print a table whose first column is the noise level: each level once, above its rows; without details."""
    kept = [i for i, column in enumerate(table.columns) if not column.detail][1:]
    columns = (Column("", "text"), *(table.columns[i] for i in kept[1:]))
    rows: list[tuple[str, ...]] = []
    for level, of_level in itertools.groupby(table.rows, key=lambda row: row[0]):
        rows.append((level, *[""] * len(kept[1:])))
        rows += [(f"  {row[kept[0]]}", *(row[i] for i in kept[1:])) for row in of_level]
    print_table(Table(columns, tuple(rows), table.note), console)


def print_wrapped(table: Table, console: Console) -> None:
    """Print a table that fits the console: cells break at their line breaks where they must, else nowhere.

    On a console that is still too narrow they break between words, never inside of one.
    """
    columns = [[column.heading, *cells] for column, *cells in zip(table.columns, *table.rows, strict=True)]
    flat = [[cell.replace("\n", " ") for cell in cells] for cells in columns]
    shown = flat.copy()
    for i in sorted(range(len(columns)), key=lambda i: _width(columns[i]) - _width(flat[i])):
        if sum(_width(cells) + 1 for cells in shown) - 1 > console.width:
            shown[i] = columns[i]
    widths = [_width(cells) for cells in shown]
    least = [max(cell_len(word) for cell in cells for word in cell.split()) for cells in shown]
    excess = sum(widths) + len(widths) - 1 - console.width
    for i in sorted(range(len(widths)), key=lambda i: least[i] - widths[i]):
        cut = min(max(excess, 0), widths[i] - least[i])
        widths[i], excess = widths[i] - cut, excess - cut
    drawn = rich_table.Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for column, cells, width in zip(table.columns, shown, widths, strict=True):
        justify = "left" if column.kind == "text" else "right"
        drawn.add_column(Text(cells[0]), width=width, justify=justify)  # type: ignore[arg-type]
    for row in zip(*(cells[1:] for cells in shown), strict=True):
        drawn.add_row(*(Text(cell) for cell in row))
    drawn.width = sum(widths) + len(widths) - 1
    console.print(drawn, crop=False)


def _width(cells: Sequence[str]) -> int:
    return max(cell_len(line) for cell in cells for line in cell.split("\n"))


def print_line(line: str, console: Console, style: str | None = None) -> None:
    """Print a sentence as it is: not as markup, not cut. On a terminal it breaks between words, in a file nowhere."""
    console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal, style=style)


def print_command(line: str, console: Console, style: str | None = None) -> None:
    """Print what may be copied: it is never broken, whatever the width."""
    console.print(line, markup=False, highlight=False, soft_wrap=True, style=style)
