"""The confirmation of a search on the console."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from nls_tune.analysis.confirmation import LevelConfirmation
from nls_tune.report.console.tables import CHOSEN_COLUMNS, CONFIG_COLUMNS, config_cells, print_line, print_table
from nls_tune.report.table import Column, Table, numbers
from nls_tune.report.text import ARM_NAMES, interval, mean_text, percent, seed_count
from nls_tune.report.words import all_labels_sentence

_RESULTS = (Column("test", "number", 12), Column("at last", "number", 7), Column("against CE", "number", 20))
_LEGEND = """
*: what the verdict says to use. test: mean ± standard deviation over fresh seeds, in %, at
the best epoch. against CE: paired difference in points to the strongest CE, with its 95 % t interval.
Proven: at most 5 % in the t test and, where it can fall so far, in the sign-flip test, over all levels.
"""


def print_confirmations(confirmations: Sequence[LevelConfirmation], console: Console) -> None:
    """Print what fresh seeds say of each configuration at each noise level."""
    has_all = any(found.on_all_labels for level in confirmations for found in level.configurations)
    columns = (*CHOSEN_COLUMNS, *CONFIG_COLUMNS, *_RESULTS, *numbers(*(["on all labels"] if has_all else ())))
    for index, level in enumerate(confirmations):
        print_line(f"{level.noise_level}  ({seed_count(level.configurations)})", console, "bold")
        rows = tuple(_cells(level, i, has_all) for i in range(len(level.configurations)))
        print_table(Table(columns, rows), console, header=index == 0)
    print_line(_LEGEND, console, "dim")
    for level in confirmations:
        if sentence := all_labels_sentence(level):
            print_line(sentence, console)


def _cells(level: LevelConfirmation, index: int, has_all: bool) -> tuple[str, ...]:
    found, comparison = level.configurations[index], level.comparisons[index]
    gap = interval(None if comparison is None else comparison.difference)
    on_all = None if found.on_all_labels is None else found.on_all_labels.test
    return (
        "*" if index == level.used else "",
        ARM_NAMES[found.arm],
        *config_cells(found.config),
        mean_text(found.test_at_best),
        percent(None if found.test_at_last is None else found.test_at_last.mean),
        "strongest" if index == level.strongest_ce else gap,
        *([mean_text(on_all)] if has_all else []),
    )
