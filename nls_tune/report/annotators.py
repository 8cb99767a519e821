"""The table of the annotators of a user's own data."""

from __future__ import annotations

from collections.abc import Sequence

from nls_tune.report.run_tables import Columns
from nls_tune.report.table import Column, Table, table_of
from nls_tune.report.text import NONE, percent
from nls_tune.runs.run_json import RunAnnotator

#: Of more annotators than this no pairs are shown.
_MOST_PAIRED = 8
_NOTE = (
    "Estimated error: share of an annotator's labels that are most probably wrong, by Dawid and Skene's method, which "
    "does not see mistakes that annotators share. With NAME: share of equal labels among the items that both labelled."
)


def annotators_table(annotators: Sequence[RunAnnotator], most: int | None = None) -> Table:
    """Return one row per annotator: labels, estimated error, true error where known, agreement with the others.

    Of more than ``most`` annotators those with the highest estimated errors are shown.
    """
    shown, note = list(annotators), _NOTE
    if most is not None and len(shown) > most:
        shown = sorted(shown, key=lambda one: -one.error_rate)[:most]
        note += f" Shown are the {most} of {len(annotators)} annotators with the highest estimated errors."
    columns: Columns[RunAnnotator] = [
        (Column("annotator", "text"), lambda one: one.name),
        (Column("labels"), lambda one: f"{one.num_labels:,}"),
        (Column("estimated error"), lambda one: percent(one.error_rate)),
    ]
    if any(one.true_error_rate is not None for one in shown):
        columns.append((Column("true error"), lambda one: percent(one.true_error_rate)))
    if len(annotators) <= _MOST_PAIRED:
        columns += [
            (Column(f"with {other.name}"), lambda one, place=i: _agreement(annotators, one, place))  # type: ignore[misc]
            for i, other in enumerate(annotators)
        ]
    return table_of(shown, columns, note)


def _agreement(annotators: Sequence[RunAnnotator], one: RunAnnotator, place: int) -> str:
    known = place < len(one.agreement) and annotators[place] is not one
    return percent(one.agreement[place]) if known else NONE
