"""The confirmation of a search on the console."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table

from nls_tune.analysis.confirmation import AllLabels, LevelConfirmation
from nls_tune.report.console.tables import print_whole
from nls_tune.report.text import ARM_NAMES, interval, mean_text, number, percent, points, rate

_COLUMNS: tuple[tuple[str, int, Literal["left", "right"]], ...] = (
    ("", 1, "left"),
    ("arm", 5, "left"),
    ("rate", 9, "right"),
    ("warm-up", 7, "right"),
    ("lr", 9, "right"),
    ("test", 12, "right"),
    ("at last", 7, "right"),
    ("against CE", 20, "right"),
)


#: Only where something was trained on them.
_ALL_LABELS = "on all labels"


def print_confirmations(
    confirmations: Sequence[LevelConfirmation], console: Console, *, sentences: bool = True
) -> None:
    """Print the table of a confirmation and, unless they are said elsewhere, one sentence a level."""
    has_all = any(found.on_all_labels for level in confirmations for found in level.configurations)
    for index, level in enumerate(confirmations):
        counts = {len(found.seeds) for found in level.configurations}
        seeds = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
        console.print(
            f"{level.noise_level}  ({seeds} fresh seed{'s' if seeds != '1' else ''})",
            style="bold",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=index == 0)
        for header, width, justify in _COLUMNS:
            table.add_column(header, min_width=width, justify=justify, no_wrap=True)
        if has_all:
            table.add_column(_ALL_LABELS, min_width=len(_ALL_LABELS), justify="right", no_wrap=True)
        for i, found in enumerate(level.configurations):
            comparison, on_all = level.comparisons[i], found.on_all_labels
            table.add_row(
                "*" if i == level.recommended else "",
                ARM_NAMES[found.arm],
                rate(found.config["smooth_rate"]),
                str(found.config["warmup_epochs"]),
                number(found.config["lr"]),
                mean_text(found.test_at_best),
                percent(None if found.test_at_last is None else found.test_at_last.mean),
                "strongest"
                if i == level.strongest_ce
                else interval(None if comparison is None else comparison.difference),
                *([mean_text(None if on_all is None else on_all.test)] if has_all else []),
            )
        print_whole(table, console)
    console.print(
        "\n*: the highest mean validation accuracy. test: mean ± standard deviation over fresh seeds, in %, at\n"
        "the best epoch. against CE: paired difference in points to the strongest CE, with its 95 % t interval.\n"
        "Proven: at most 5 % in the t test and, where it can fall so far, in the sign-flip test, over all levels.\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
        style="dim",
    )
    for level in confirmations:
        if sentences:
            console.print(confirmation_sentence(level), markup=False, highlight=False, soft_wrap=True)
        if sentence := all_labels_sentence(level):
            console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def confirmation_sentence(level: LevelConfirmation) -> str:
    """Say what fresh seeds prove of the recommended configuration of a level, and what they could have seen."""
    best = level.configurations[level.recommended]
    if level.recommended == level.strongest_ce:
        return f"{level.noise_level}: over fresh seeds no confirmed rate beats cross-entropy on validation."
    name = f"{level.noise_level}: smooth_rate {rate(best.config['smooth_rate'])}"
    comparison = level.comparisons[level.recommended]
    if comparison is None:
        return f"{name} cannot be compared with cross-entropy on test."
    if comparison.difference.num_seeds < 2:
        gain = points(comparison.difference.mean)
        return f"{name} differs by {gain} points from the strongest CE with one seed, which proves nothing."
    verdict = "makes no proven difference to"
    if comparison.proven:
        verdict = "is better than" if comparison.difference.mean > 0 else "is worse than"
    p = f"sign-flip p {comparison.sign_flip_p:.2g} (smallest possible {comparison.smallest_p:.2g}"
    p += f", over all levels {comparison.holm_p:.2g})" if comparison.holm_p is not None else ")"
    if comparison.holm_t_p is not None:
        p += f", t test over all levels {comparison.holm_t_p:.2g}"
    seen = ""
    if math.isfinite(comparison.detectable):
        seen = f"; this run would have seen a difference of {100 * comparison.detectable:.2f} points"
    return f"{name} {verdict} the strongest CE: {interval(comparison.difference)} points, {p}{seen}."


def all_labels_sentence(level: LevelConfirmation) -> str | None:
    """Say how long a level's configurations were trained on all labels, and how the recommended one differs from CE."""
    trained = [
        f"{rate(found.config['smooth_rate'])} for {_epochs(found.on_all_labels)}"
        for found in level.configurations
        if found.on_all_labels
    ]
    if not trained:
        return None
    sentence = (
        f"{level.noise_level}: on all labels, validation samples included, each configuration was trained for the "
        f"median of its best epochs: smooth_rate {', '.join(trained)}"
    )
    best = level.configurations[level.recommended]
    if best.on_all_labels is None or best.on_all_labels.difference is None:
        return f"{sentence}."
    return (
        f"{sentence}; {rate(best.config['smooth_rate'])} minus the strongest CE: "
        f"{interval(best.on_all_labels.difference)} points."
    )


def _epochs(found: AllLabels) -> str:
    parts = [f"{' or '.join(map(str, found.epochs))} epochs"] if found.epochs else []
    return ", ".join([*parts, *([f"{found.num_diverged} diverged"] if found.num_diverged else [])])
