"""Plain tables on consoles of any width: text is folded, numbers are never cut."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Folded text gets this many columns at the least, so that usual noise levels stay whole; a narrower console gets long
#: lines.
_LEAST = 16


def print_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], console: Console, *, text: Collection[int] = (0,)
) -> None:
    """Print a table without a frame; cells are taken as they are, not as markup.

    Args:
        headers: One a column.
        rows: As many cells each; a cell may have several lines.
        console: Where to print.
        text: Indices of the columns that hold text: left-aligned, and folded where the console is narrow.
    """
    widths = [
        max(cell_len(line) for cell in (header, *(row[i] for row in rows)) for line in cell.split("\n"))
        for i, header in enumerate(headers)
    ]
    excess = sum(widths) + len(widths) - console.width
    for i in sorted(text, key=lambda i: -widths[i]):
        cut = min(max(excess, 0), max(0, widths[i] - _LEAST))
        widths[i], excess = widths[i] - cut, excess - cut
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for i, (header, width) in enumerate(zip(headers, widths, strict=True)):
        justify = "left" if i in text else "right"
        table.add_column(Text(header), width=width, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    table.width = sum(widths) + len(widths)  # its own: rich would cut the columns to a narrower console
    console.print(table, crop=False)


def print_whole(table: Table, console: Console) -> None:
    """Print a table of numbers as wide as it is, however narrow the console: rich would cut or drop columns."""
    table.width = console.measure(table, options=console.options.update(width=1000)).maximum
    console.print(table, crop=False)


def print_line(line: str, console: Console, style: str | None = None) -> None:
    """Print a line as it is: not as markup, not cut; a terminal wraps it."""
    console.print(line, markup=False, highlight=False, soft_wrap=True, style=style)
