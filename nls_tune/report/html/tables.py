"""The tables of the report page; the template escapes their cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nls_tune.metrics import Metric
from nls_tune.report.run_tables import Columns, cell_text, has_averages, is_number, percent_cell, setting_columns
from nls_tune.report.table import Column, Table, table_of
from nls_tune.report.text import NONE, of_metric, weights_text
from nls_tune.runs.schemas import objective_columns

if TYPE_CHECKING:
    import pandas as pd

_Row = Mapping[Any, Any]
#: Longer tables are cut: a page must stay small enough to be mailed.
MAX_ROWS = 1000


@dataclass(frozen=True)
class PageTable:
    """A table of the page; a long one scrolls in a box of its own. The key is unique in a page."""

    key: str
    caption: str
    table: Table
    long: bool = False


def trials_table(
    key: str, trials: pd.DataFrame, others: Sequence[str], most: int = MAX_ROWS, metric: Metric = "accuracy"
) -> PageTable:
    """Return all trials, or the best of each noise level where they are more than ``most``.

    ``others`` are the settings that were searched besides rate, warm-up and learning rate.
    """
    note, objective = None, objective_columns(metric)
    if len(trials) > most:
        ranked = trials.sort_values(objective.best_val, ascending=False, na_position="last", kind="stable")
        place = ranked.groupby("noise_level", sort=False).cumcount()
        # The best of each level in turn: accuracies of different noise are not comparable.
        chosen = place.sort_values(kind="stable").index[:most]
        note = f"The {most:,} best of {len(trials):,} trials by validation accuracy, about as many of each noise level."
        note = of_metric(note, [metric])
        trials = trials.loc[trials.index.isin(chosen)]
    setting = [column for o in others if (column := f"config_{o}") in trials.columns]
    smooth_rate, *more_settings = setting_columns(lambda row: row, setting)
    # A telephone shows the first columns only.
    columns: Columns[_Row] = [
        _text("noise_level"),
        smooth_rate,
        (Column("test %"), lambda row: percent_cell(row[objective.test_at_best])),
        (Column("val %"), lambda row: percent_cell(row[objective.best_val])),
        *more_settings,
        *(_text(name) for name in ("stage", "arm", "status")),
        _whole("best_epoch"),
        _whole("epochs"),
        (Column("last %"), lambda row: percent_cell(row[objective.last_test])),
        (Column("training, s"), lambda row: f"{s:.4g}" if is_number(s := row["train_seconds"]) else NONE),
        _whole("seed"),
        _text("trial_id"),
    ]
    if has_averages(trials["readout"]):
        columns.insert(4, (Column("weights", "text"), lambda row: weights_text(row["readout"])))
    if trials["error"].notna().any():
        columns.append((Column("error", "text"), lambda row: cell_text(row["error"]).removeprefix(NONE)))
    long = [name for name in trials.columns if name.endswith(("_correct_at_best", "_counts_at_best"))]
    rows = trials.drop(columns=long).to_dict("records")
    return PageTable(key, "Trials", replace(table_of(rows, columns), note=note), long=True)


def _text(name: str) -> tuple[Column, Callable[[_Row], str]]:
    return Column(name.replace("_", " "), "text"), lambda row: cell_text(row[name])


def _whole(name: str) -> tuple[Column, Callable[[_Row], str]]:
    return Column(name.replace("_", " ")), lambda row: str(int(row[name])) if is_number(row[name]) else NONE
