"""The tables of the report page, from dataclasses and rows to text. Cells hold no markup; the template escapes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nls_tune.analysis.allocation import Allocation
from nls_tune.analysis.comparison import Comparison, RunAtLevel
from nls_tune.analysis.confirmation import LevelConfirmation
from nls_tune.analysis.level_summaries import ArmSummary, LevelSummary
from nls_tune.analysis.verdicts import Choice
from nls_tune.report.table import Column, Table, numbers, table_of, words
from nls_tune.report.text import ARM_NAMES, interval, mean_text, number, other_settings, points, rate
from nls_tune.report.words import FINDINGS, choice_marks, test_text

if TYPE_CHECKING:
    import pandas as pd

_T = TypeVar("_T")
#: The columns of a table, each with the text of an item's cell.
_Row = Mapping[Any, Any]
_Columns = list[tuple[Column, Callable[[_T], str]]]
#: Longer tables are cut: a page must stay small enough to be mailed.
MAX_ROWS = 1000
_MAX_TEXT = 160
_NONE = "–"


@dataclass(frozen=True)
class PageTable:
    """A table of the page.

    Attributes:
        key: Unique in a page.
        caption: What it holds, plain text like all else.
        table: Its columns and cells.
        note: What the columns mean, or what is left out; None where nothing needs to be said.
        long: Whether it scrolls in a box of its own.
    """

    key: str
    caption: str
    table: Table
    note: str | None = None
    long: bool = False


def _percent(value: Any) -> str:
    """Write a fraction as a percentage without its sign, which the header has."""
    return f"{100 * value:.2f}" if _is_number(value) else _NONE


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _cell(value: Any) -> str:
    """Write a value of a setting, or anything else that has no format of its own."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _NONE
    if isinstance(value, float):
        return number(value).replace("-", "−") if abs(value) >= 1 else number(value)
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else " ".join(str(value).split())
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _rate(value: Any) -> str:
    return rate(value) if _is_number(value) else _NONE


def _whole(value: Any) -> str:
    return str(int(value)) if _is_number(value) else _NONE


def searched_settings(summaries: Iterable[LevelSummary]) -> tuple[str, ...]:
    """Return the settings that were searched, besides rate, warm-up and learning rate."""
    found = (name for level in summaries for arm in level.arms.values() for name in other_settings(arm.config))
    return tuple(dict.fromkeys(found))


def _setting_columns(config: Callable[[_T], Mapping[str, Any]], others: Iterable[str] = ()) -> _Columns[_T]:
    def column(name: str) -> tuple[Column, Callable[[_T], str]]:
        return Column(name, "text"), lambda item: _cell(config(item).get(name))

    return [
        (Column("Rate"), lambda item: _rate(config(item).get("smooth_rate"))),
        (Column("Warm-up"), lambda item: _whole(config(item).get("warmup_epochs"))),
        (Column("lr"), lambda item: _cell(config(item).get("lr"))),
        *map(column, others),
    ]


def _arm_config(at: tuple[LevelSummary, ArmSummary]) -> Mapping[str, Any]:
    return at[1].config


def arms_table(key: str, summaries: Sequence[LevelSummary]) -> PageTable:
    """Return the selected trial of each arm at each level."""
    columns: _Columns[tuple[LevelSummary, ArmSummary]] = [
        (Column("Noise level", "text"), lambda at: at[0].noise_level),
        (Column("Arm", "text"), lambda at: ARM_NAMES[at[1].arm]),
        (Column("Choice", "text"), lambda at: "use" if at[1].arm == at[0].used else ""),
        *_setting_columns(_arm_config, searched_settings(summaries)),
        (Column("Validation, %"), lambda at: _percent(at[1].val_accuracy)),
        (Column("Test, %"), lambda at: _percent(at[1].test_accuracy_at_best)),
        (Column("Test at last, %"), lambda at: _percent(at[1].last_test_accuracy)),
        (Column("Best epoch"), lambda at: str(at[1].best_epoch)),
        (Column("Epochs"), lambda at: str(at[1].epochs)),
        (Column("Completed"), lambda at: str(at[1].num_completed)),
        (Column("Trials"), lambda at: str(at[1].num_trials)),
    ]
    note = (
        "The selected trial of each arm, chosen by noisy validation at its best epoch. Test accuracy (clean labels) "
        "takes no part in any choice. A level without a completed trial has no row."
    )
    entries = [(level, arm) for level in summaries for arm in level.arms.values()]
    return PageTable(key, "Selected trial of each arm", table_of(entries, columns), note)


def confirmation_table(key: str, levels: Sequence[LevelConfirmation]) -> PageTable:
    """Return the confirmed configurations with their differences to the strongest CE."""
    columns = (
        *words("Noise level", "Arm", "Choice"),
        *numbers("Rate", "Warm-up", "lr", "Test, %", "Against CE, points", "p", "p over levels", "Detectable, points"),
        *numbers("Seeds", "Diverged", "Validation, %", "Test at last, %"),
    )
    if any(found.on_all_labels for level in levels for found in level.configurations):
        columns += numbers("On all labels, %")
    rows = tuple(
        _confirmed_cells(level, i)[: len(columns)] for level in levels for i in range(len(level.configurations))
    )
    note = (
        "Means ± standard deviation over fresh seeds, at the best epoch. Against CE: paired difference in test "
        "accuracy to the strongest cross-entropy with its 95 % t interval. p: exact sign-flip test; over levels: "
        "corrected by Holm's method. Detectable: the smallest true difference that would have been found with a "
        "probability of 80 %. All of it is for this test set and, unless every seed drew its own, this draw of the "
        "noise. The same seeds choose the best configuration, by validation, and test it."
    )
    return PageTable(key, "Confirmed configurations", Table(columns, rows), note)


def _confirmed_cells(level: LevelConfirmation, index: int) -> tuple[str, ...]:
    found, comparison = level.configurations[index], level.comparisons[index]
    compared = (_NONE,) * 4
    if comparison is not None:
        compared = (
            interval(comparison.difference),
            f"{comparison.sign_flip_p:.2g}",
            _NONE if comparison.holm_p is None else f"{comparison.holm_p:.2g}",
            _percent(comparison.detectable),
        )
    return (
        level.noise_level,
        ARM_NAMES[found.arm],
        choice_marks(level, index),
        *(cell(found.config) for _, cell in _setting_columns(lambda config: config)),
        mean_text(found.test_at_best),
        *compared,
        str(len(found.seeds)),
        str(found.num_diverged),
        mean_text(found.validation),
        mean_text(found.test_at_last),
        mean_text(None if found.on_all_labels is None else found.on_all_labels.test),
    )


def trials_table(key: str, trials: pd.DataFrame, others: Sequence[str], most: int = MAX_ROWS) -> PageTable:
    """Return all trials, or the best of each noise level where they are more than ``most``.

    Args:
        key: The table's key.
        trials: Rows of ``trials/``.
        others: Settings that were searched besides rate, warm-up and learning rate.
        most: The most rows.
    """
    note = None
    if len(trials) > most:
        ranked = trials.sort_values("best_val_accuracy", ascending=False, na_position="last", kind="stable")
        place = ranked.groupby("noise_level", sort=False).cumcount()
        # The best of each level in turn: accuracies of different noise are not comparable.
        chosen = place.sort_values(kind="stable").index[:most]
        note = f"The {most:,} best of {len(trials):,} trials by validation accuracy, about as many of each noise level."
        trials = trials.loc[trials.index.isin(chosen)]
    columns: _Columns[_Row] = [
        (Column("Noise level", "text"), lambda row: _cell(row["noise_level"])),
        (Column("Stage", "text"), lambda row: _cell(row["stage"])),
        (Column("Arm", "text"), lambda row: ARM_NAMES.get(row["arm"], _cell(row["arm"]))),
        (Column("Status", "text"), lambda row: _cell(row["status"])),
        *_setting_columns(_row_config),
        *(_other_column(name) for name in others if f"config_{name}" in trials.columns),
        (Column("Best epoch"), lambda row: _whole(row["best_epoch"])),
        (Column("Epochs"), lambda row: _whole(row["epochs"])),
        (Column("Validation, %"), lambda row: _percent(row["best_val_accuracy"])),
        (Column("Test, %"), lambda row: _percent(row["test_accuracy_at_best"])),
        (Column("Test at last, %"), lambda row: _percent(row["last_test_accuracy"])),
        (Column("Training, s"), lambda row: f"{s:.4g}" if _is_number(s := row["train_seconds"]) else _NONE),
        (Column("Seed"), lambda row: _whole(row["seed"])),
        (Column("Trial", "text"), lambda row: _cell(row["trial_id"])),
    ]
    if trials["error"].notna().any():
        columns.append((Column("Error", "text"), lambda row: _cell(row["error"]).removeprefix(_NONE)))
    rows = trials.drop(columns=["val_correct_at_best", "test_correct_at_best"]).to_dict("records")
    return PageTable(key, "Trials", table_of(rows, columns), note, long=True)


def _row_config(row: _Row) -> _Row:
    return row


def _other_column(name: str) -> tuple[Column, Callable[[_Row], str]]:
    return Column(name, "text"), lambda row: _cell(row[f"config_{name}"])


def costs_table(key: str, found: Allocation) -> PageTable:
    """Return what each group of trials cost."""
    table = table_of(
        found.groups,
        [
            (Column("Stage", "text"), lambda group: group.stage),
            (Column("Noise level", "text"), lambda group: group.noise_level),
            (Column("Arm", "text"), lambda group: ARM_NAMES[group.arm]),
            (Column("Trials"), lambda group: str(group.num_trials)),
            (Column("Epochs trained"), lambda group: str(group.epochs_trained)),
            (Column("Reused"), lambda group: str(group.epochs_reused)),
            (Column("Saved by stopping"), lambda group: str(group.epochs_saved)),
            (Column("Training, s"), lambda group: f"{group.train_seconds:.1f}"),
        ],
    )
    note = "Reused epochs come from shared warm-ups; saved ones were not trained because the trial was stopped."
    return PageTable(key, "Cost of each group", table, note, long=True)


def _run_config(at: tuple[str, RunAtLevel]) -> Mapping[str, Any]:
    use = _use(at[1])
    return {} if use is None else use.config


def _use(run: RunAtLevel) -> Choice | None:
    return None if run.verdict is None else run.verdict.use


def comparison_table(key: str, comparison: Comparison) -> PageTable:
    """Return what each run says at each level."""
    entries = [(level.noise_level, run) for level in comparison.levels for run in level.runs]
    others = dict.fromkeys(name for _, run in entries for name in other_settings(_run_config(("", run))))
    columns: _Columns[tuple[str, RunAtLevel]] = [
        (Column("Noise level", "text"), lambda at: at[0]),
        (Column("Run", "text"), lambda at: at[1].run),
        (Column("Verdict", "text"), lambda at: _NONE if at[1].verdict is None else FINDINGS[at[1].verdict.finding]),
        *_setting_columns(_run_config, others),
        (Column("Validation, %"), lambda at: _percent(at[1].val_accuracy)),
        (Column("Test, %"), lambda at: _percent(at[1].test_accuracy_at_best)),
        (Column("Test over seeds, %"), lambda at: test_text(use) if (use := _use(at[1])) and use.num_seeds else _NONE),
        (Column("Best rate to CE, points"), lambda at: interval(at[1].difference)),
        (Column("Against the first run, points"), lambda at: _against_first(at[1])),
        (Column("Trials"), lambda at: str(at[1].num_trials)),
        (Column("Training, s"), lambda at: f"{at[1].train_seconds:.1f}"),
    ]
    note = (
        "Test: of the search's trial. Over seeds: mean ± standard error over fresh seeds. Against the first run: "
        "the trials to use on the same test samples, ± the paired standard error."
    )
    return PageTable(key, "What each run says", table_of(entries, columns), note)


def _against_first(found: RunAtLevel) -> str:
    gap = found.against_first
    return _NONE if gap is None else f"{points(gap.difference, 2)} ± {100 * gap.standard_error:.2f}"


def differences_table(key: str, comparison: Comparison) -> PageTable:
    """Return the settings in which the runs differ."""
    rows = tuple((name, *map(_cell, values)) for name, values in comparison.differences)
    return PageTable(key, "Settings that differ", Table(words("Setting", *comparison.runs), rows))
