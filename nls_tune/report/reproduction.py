"""The table that ``nls-tune reproduce`` fills, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nls_tune.analysis.method_results import MethodResult, TableRowResult
from nls_tune.report.run_tables import Columns
from nls_tune.report.table import Column, Table, table_of, words
from nls_tune.report.text import NONE, interval, mean_text
from nls_tune.report.words import FINDINGS

#: What arms are called; other losses are called as ``--methods`` names them.
_ARMS = {"ce": "cross-entropy", "positive": "smoothing, rate above 0", "negative": "smoothing, rate below 0"}


@dataclass(frozen=True)
class FilledRow:
    """A row of a table: what was published and what was measured.

    ``published`` are the figures in % by what they are. ``result`` is None where nothing was trained yet; then, and
    where the row is not finished, ``command`` is what fills it. ``minutes`` are those of training, ``pflop`` its
    arithmetic in 10^15 operations.
    """

    name: str
    dataset: str
    noise_level: str
    published: Mapping[str, float]
    result: TableRowResult | None
    finished: bool
    command: str
    minutes: float
    pflop: float


def reproduction_table(rows: Sequence[FilledRow], note: str | None = None) -> Table:
    """Return published figures and measured accuracies in %, one row per row of the table."""
    figures = list(dict.fromkeys(what for row in rows for what in row.published))
    arms = list(dict.fromkeys(found.arm for row in rows if row.result for found in row.result.methods))

    def published(what: str) -> tuple[Column, Callable[[FilledRow], str]]:
        return Column(f"published: {what}"), lambda row: f"{row.published[what]:.2f}" if what in row.published else NONE

    def measured(arm: str) -> tuple[Column, Callable[[FilledRow], str]]:
        return Column(_ARMS.get(arm, arm)), lambda row: mean_text(found.test) if (found := _of(row, arm)) else NONE

    def on_all(arm: str) -> tuple[Column, Callable[[FilledRow], str]]:
        return Column(f"{_ARMS.get(arm, arm)}, all labels"), lambda row: mean_text(
            found.on_all_labels.test if (found := _of(row, arm)) and found.on_all_labels else None
        )

    columns: Columns[FilledRow] = [
        (Column("row", "text"), lambda row: row.name),
        *map(published, figures),
        *map(measured, arms),
        *(map(on_all, arms) if _on_all_labels(rows) else ()),
        (Column("verdict", "text"), _verdict),
        (Column("minutes"), lambda row: f"{row.minutes:.0f}" if row.result else NONE),
        (Column("PFLOP"), lambda row: f"{row.pflop:.3g}" if row.result else NONE),
    ]
    return table_of(rows, columns, note)


def gains_table(rows: Sequence[FilledRow]) -> Table:
    """Return what each method has over cross-entropy, seed by seed, in points with 95 % intervals."""
    both = _on_all_labels(rows)
    cells = []
    for row in rows:
        for found in row.result.methods if row.result else ():
            if found.arm == "ce":
                continue
            again = found.on_all_labels.difference if found.on_all_labels else None
            cells.append(
                (row.name, _ARMS.get(found.arm, found.arm), _rate(found), str(found.test.num_seeds),
                 interval(found.difference), "yes" if found.proven else "no", *([interval(again)] if both else []),
                 mean_text(found.plain), mean_text(found.average))
            )  # fmt: skip
    names = ["row", "method", "rate", "seeds", "against cross-entropy, points", "proven"]
    columns = words(*names, *(["on all labels, points"] if both else []))
    return Table((*columns, Column("plain weights %"), Column("averaged weights %")), tuple(cells))


def _on_all_labels(rows: Sequence[FilledRow]) -> bool:
    """Whether any method of a table was trained on all labels as well."""
    return any(found.on_all_labels for row in rows if row.result for found in row.result.methods)


def _of(row: FilledRow, arm: str) -> MethodResult | None:
    return next((found for found in row.result.methods if found.arm == arm), None) if row.result else None


def _rate(found: MethodResult) -> str:
    value = found.config.get("smooth_rate")
    return f"{value:.4g}".replace("-", "−") if isinstance(value, int | float) and value else NONE


def _verdict(row: FilledRow) -> str:
    if row.result is None:
        return "not measured"
    said = FINDINGS[row.result.finding] if row.result.finding else "no trial has ended"
    return said if row.finished else f"{said}, not finished"
