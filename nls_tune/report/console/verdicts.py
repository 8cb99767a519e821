"""The verdicts on the console: one row per noise level, then what speaks against them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from nls_tune.analysis.verdicts import Verdict
from nls_tune.report.console.tables import print_line, print_wrapped
from nls_tune.report.words import methods_table, summary_line, table_note, verdict_table, verdict_words


def print_verdicts(verdicts: Sequence[Verdict], console: Console) -> None:
    """Print the answer of a run: a line, a table, and the doubts, each once."""
    if not verdicts:
        print_line("No trial has ended yet.", console)
        return
    said = [verdict_words(found) for found in verdicts]
    print_line(summary_line(verdicts), console, "bold")
    print_wrapped(verdict_table(verdicts), console)
    for found, words in zip(verdicts, said, strict=True):
        if found.reason is not None:
            print_line(f"{found.noise_level}: {words.headline}", console)
    levels_of: dict[str, list[str]] = {}
    for words in said:
        for doubt in words.doubts:
            levels_of.setdefault(doubt, []).append(words.noise_level)
    for doubt, levels in levels_of.items():
        where = "" if len(levels) == len(said) else f"{', '.join(levels)}: "
        print_line(f"- {where}{doubt}", console)
    print_line(table_note(verdicts), console, "dim")
    if (methods := methods_table(verdicts)).rows:
        print_line("\nThe methods", console, "bold")
        print_wrapped(methods, console)
        print_line(methods.note or "", console, "dim")
