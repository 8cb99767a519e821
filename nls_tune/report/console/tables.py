"""Plain tables on consoles of any width: text is folded, numbers are never cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import table as rich_table
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from nls_tune.report.table import Column, Table
from nls_tune.report.text import number, rate

#: A star for what the verdict says to use, and the arm.
CHOSEN_COLUMNS = (Column("", "text", 1), Column("arm", "text", 5))
#: A configuration without the other settings.
CONFIG_COLUMNS = (Column("rate", "number", 9), Column("warm-up", "number", 7), Column("lr", "number", 9))
#: Folded text gets at least this many columns, so that usual noise levels stay whole; a narrower console gets long
#: lines.
_LEAST = 16


def print_table(table: Table, console: Console, *, header: bool = True) -> None:
    """Print a table without a frame; cells are taken as they are, not as markup.

    Args:
        table: The table; a cell may have several lines.
        console: Where to print.
        header: Whether to print the headings.
    """
    widths = [
        max(column.least, *(cell_len(line) for cell in cells for line in cell.split("\n")))
        for column, *cells in zip(table.columns, [c.heading for c in table.columns], *table.rows, strict=True)
    ]
    excess = sum(widths) + len(widths) - console.width
    text = [i for i, column in enumerate(table.columns) if column.kind == "text"]
    for i in sorted(text, key=lambda i: -widths[i]):
        cut = min(max(excess, 0), max(0, widths[i] - _LEAST))
        widths[i], excess = widths[i] - cut, excess - cut
    drawn = rich_table.Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_header=header)
    for column, width in zip(table.columns, widths, strict=True):
        justify = "left" if column.kind == "text" else "right"
        drawn.add_column(Text(column.heading), width=width, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    drawn.width = sum(widths) + len(widths)  # its own: rich would cut the columns to a narrower console
    console.print(drawn, crop=False)


def print_wrapped(table: Table, console: Console) -> None:
    """Print a table that fits the console: cells break at their line breaks where they must, else nowhere.

    On a console that is still too narrow they break between words, never inside of one.
    """
    columns = [[column.heading, *cells] for column, *cells in zip(table.columns, *table.rows, strict=True)]
    flat = [[cell.replace("\n", " ") for cell in cells] for cells in columns]
    shown = flat.copy()
    for i in sorted(range(len(columns)), key=lambda i: _width(columns[i]) - _width(flat[i])):
        if sum(_width(cells) + 1 for cells in shown) > console.width:
            shown[i] = columns[i]
    drawn = rich_table.Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for column, cells in zip(table.columns, shown, strict=True):
        longest = max(cell_len(word) for cell in cells for word in cell.split())
        justify = "left" if column.kind == "text" else "right"
        drawn.add_column(Text(cells[0]), min_width=longest, justify=justify)  # type: ignore[arg-type]
    for row in zip(*(cells[1:] for cells in shown), strict=True):
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn, crop=False)


def _width(cells: Sequence[str]) -> int:
    return max(cell_len(line) for cell in cells for line in cell.split("\n"))


def config_cells(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of ``CONFIG_COLUMNS``."""
    return rate(config["smooth_rate"]), str(config["warmup_epochs"]), number(config["lr"])


def print_line(line: str, console: Console, style: str | None = None) -> None:
    """Print a line as it is: not as markup, not cut; a terminal wraps it."""
    console.print(line, markup=False, highlight=False, soft_wrap=True, style=style)
