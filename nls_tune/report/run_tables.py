"""One table per question about runs; the console, Markdown and the page all show it. Cells hold no markup."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from nls_tune.analysis.allocation import Allocation
from nls_tune.analysis.comparison import Comparison, RunAtLevel
from nls_tune.analysis.confirmation import ConfirmedConfiguration, LevelConfirmation, PairedComparison
from nls_tune.analysis.level_summaries import ArmSummary, LevelSummary
from nls_tune.analysis.per_class import ClassResult, LevelClasses
from nls_tune.analysis.rate_sweep import RateSweep, SweptRate
from nls_tune.report.table import Column, Table, table_of, words
from nls_tune.report.text import (
    NONE,
    average_of,
    interval,
    mean_text,
    number,
    of_metric,
    other_settings,
    points,
    printable,
    rate,
    seed_count,
    weights_text,
)
from nls_tune.report.words import FINDINGS, test_text

_T = TypeVar("_T")
#: The columns of a table, each with the text of an item's cell.
Columns = list[tuple[Column, Callable[[_T], str]]]
_MAX_TEXT = 160


# Cells


def percent_cell(value: Any) -> str:
    """Write a fraction as a percentage without its sign, which the heading has."""
    return f"{100 * value:.2f}" if is_number(value) else NONE


def is_number(value: Any) -> bool:
    """Return whether a cell holds a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def cell_text(value: Any) -> str:
    """Write a value of a setting, or anything else that has no format of its own."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    if isinstance(value, float):
        return number(value).replace("-", "−") if abs(value) >= 1 else number(value)
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else " ".join(str(value).split())
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def setting_columns(config: Callable[[_T], Mapping[Any, Any]], others: Iterable[str] = ()) -> Columns[_T]:
    """Return the columns of rate, warm-up and learning rate, and of other settings by their keys."""

    def column(name: str) -> tuple[Column, Callable[[_T], str]]:
        heading = Column(name.removeprefix("config_"), "text", detail=True)
        return heading, lambda item: cell_text(config(item).get(name))

    def rate_cell(item: _T) -> str:
        value = config(item).get("smooth_rate")
        return rate(value) if is_number(value) else NONE

    return [
        (Column("rate"), rate_cell),
        (Column("warm-up"), lambda item: cell_text(config(item).get("warmup_epochs"))),
        (Column("lr"), lambda item: cell_text(config(item).get("lr"))),
        *map(column, others),
    ]


# The search


def searched_settings(summaries: Iterable[LevelSummary]) -> tuple[str, ...]:
    """Return the settings that were searched, besides rate, warm-up and learning rate."""
    found = (name for level in summaries for arm in level.arms.values() for name in other_settings(arm.config))
    return tuple(dict.fromkeys(found))


def has_averages(readouts: Iterable[Any]) -> bool:
    """Return whether some trials were best with averaged weights: only then do tables say which weights."""
    return any(average_of(readout) is not None for readout in readouts)


def arm_columns(
    at: Callable[[_T], tuple[LevelSummary, ArmSummary]], others: Iterable[str] = (), *, averages: bool = False
) -> Columns[_T]:
    """Return the columns that say what the selected trial of an arm is and reaches; of which weights on request."""

    def config(item: _T) -> Mapping[str, Any]:
        return at(item)[1].config

    weights: Columns[_T] = [(Column("weights", "text"), lambda item: weights_text(at(item)[1].readout))]
    return [
        (Column("noise level", "text"), lambda item: at(item)[0].noise_level),
        (Column("arm", "text"), lambda item: at(item)[1].arm),
        (Column("use", "text"), lambda item: "*" if at(item)[1].arm == at(item)[0].used else ""),
        *setting_columns(config, others),
        *(weights if averages else []),
        (Column("val %"), lambda item: percent_cell(at(item)[1].val_accuracy)),
        (Column("test %"), lambda item: percent_cell(at(item)[1].test_accuracy_at_best)),
        (Column("last %"), lambda item: percent_cell(at(item)[1].last_test_accuracy)),
        (Column("epoch"), lambda item: f"{at(item)[1].best_epoch}/{at(item)[1].epochs}"),
        (Column("trials"), lambda item: f"{at(item)[1].num_completed}/{at(item)[1].num_trials}"),
    ]


def arms_table(summaries: Sequence[LevelSummary]) -> Table:
    """Return the selected trial of each arm at each level."""
    note = (
        "The selected trial of each arm; *: what the verdict says to use. val: accuracy on validation labels, "
        "mean of the best epoch and the one before; it alone chooses. test: on test labels at the best epoch; last: "
        "at the last one. epoch: the best one, of all. trials: completed, of all that ran."
    )
    entries = [(level, arm) for level in summaries for arm in level.arms.values()]
    averages = has_averages(arm.readout for _, arm in entries)
    if averages:
        note += " weights: those that val and test are of; average 0.2 reaches back over about a fifth of the phase."
    columns: Columns[tuple[LevelSummary, ArmSummary]] = arm_columns(
        lambda at: at, searched_settings(summaries), averages=averages
    )
    return table_of(entries, columns, of_metric(note, (level.metric for level in summaries)))


# The confirmation


_Confirmed = tuple[LevelConfirmation, int, ConfirmedConfiguration, PairedComparison | None]


def confirmation_table(levels: Sequence[LevelConfirmation]) -> Table:
    """Return the confirmed configurations with their differences to the strongest CE."""
    entries = [
        (level, i, found, level.comparisons[i]) for level in levels for i, found in enumerate(level.configurations)
    ]
    columns: Columns[_Confirmed] = [
        (Column("noise level", "text"), lambda at: at[0].noise_level),
        (Column("arm", "text"), lambda at: at[2].arm),
        (Column("use", "text"), lambda at: "*" if at[1] == at[0].used else ""),
        *setting_columns(_confirmed_config),
        (Column("test %"), lambda at: mean_text(at[2].test_at_best)),
        (Column("against CE, points"), _against_ce),
        (Column("p", detail=True), lambda at: f"{at[3].sign_flip_p:.2g}" if at[3] else NONE),
        (Column("p over levels", detail=True), lambda at: _holm(at[3])),
        (Column("detectable, points", detail=True), lambda at: percent_cell(at[3].detectable if at[3] else None)),
        (Column("seeds", detail=True), lambda at: str(len(at[2].seeds))),
        (Column("diverged", detail=True), lambda at: str(at[2].num_diverged)),
        (Column("val %", detail=True), lambda at: mean_text(at[2].validation)),
        (Column("last %", detail=True), lambda at: mean_text(at[2].test_at_last)),
    ]
    if any(found.on_all_labels for _, _, found, _ in entries):
        columns.append(
            (
                Column("on all labels %"),
                lambda at: mean_text(at[2].on_all_labels.test if at[2].on_all_labels else None),
            )
        )
    note = (
        f"Means ± standard deviation over {seed_count(at[2] for at in entries)}, at the best epoch; *: what the "
        "verdict says to use. Against CE: paired difference in test accuracy to the strongest cross-entropy with "
        "its 95 % t interval. Proven: at most 5 % in the t test and, where it can fall so far, in the exact sign-flip "
        "test (p), both corrected over the levels by Holm's method; where it cannot, six seeds or more all agree. "
        "Detectable: the smallest true difference that would have been found with a probability of 80 %. All of it is "
        "for this test set and, unless every seed drew its own, this draw of the noise. The same seeds choose the best "
        "configuration, by validation, and test it."
    )
    return table_of(entries, columns, of_metric(note, (level.metric for level in levels)))


def sweep_table(sweeps: Sequence[RateSweep]) -> Table:
    """Return the rates of a sweep with their differences to rate 0."""
    entries = [(sweep, i, rate) for sweep in sweeps for i, rate in enumerate(sweep.rates)]
    columns: Columns[tuple[RateSweep, int, SweptRate]] = [
        (Column("noise level", "text"), lambda at: at[0].noise_level),
        (Column("best", "text"), lambda at: "*" if at[1] == at[0].best else ""),
        *setting_columns(_swept_config),
        (Column("seeds"), lambda at: str(at[2].validation.num_seeds)),
        (Column("val %"), lambda at: mean_text(at[2].validation)),
        (Column("test %"), lambda at: mean_text(at[2].test)),
        (Column("against rate 0, points"), lambda at: interval(at[2].difference)),
    ]
    note = (
        "Means ± standard deviation over fresh seeds, at the best epoch; *: the highest mean on validation. Each "
        "rate has the best of several choices of settings, or those of the search's best trial near it. Rates of the "
        "confirmation are shown too. The intervals are those of single rates: no gain is proven by the best of many, "
        "the confirmation does that."
    )
    return table_of(entries, columns, of_metric(note, (sweep.metric for sweep in sweeps)))


def _swept_config(at: tuple[RateSweep, int, SweptRate]) -> Mapping[str, Any]:
    return at[2].config


def _confirmed_config(at: _Confirmed) -> Mapping[str, Any]:
    return at[2].config


def _against_ce(at: _Confirmed) -> str:
    level, index, _, comparison = at
    return "strongest" if index == level.strongest_ce else interval(comparison.difference if comparison else None)


def _holm(comparison: PairedComparison | None) -> str:
    return NONE if comparison is None or comparison.holm_p is None else f"{comparison.holm_p:.2g}"


# The classes


def classes_table(levels: Sequence[LevelClasses]) -> Table:
    """Return how well what to use tells each class, at each noise level."""
    note = (
        "The configuration that the verdict says to use, at the best epoch, over its fresh seeds taken together, or in "
        "the search's trial without any. recall: share of a class's samples that are told; precision: share of what is "
        "taken for a class that belongs to it; F1: their harmonic mean."
    )
    if any(level.split == "val" for level in levels):
        note += " val: there is no test set, so these are validation samples, whose labels may be wrong."
    columns: Columns[tuple[LevelClasses, ClassResult]] = [
        (Column("noise level", "text"), lambda at: at[0].noise_level),
        (Column("class", "text"), lambda at: printable(at[1].name)),
        (Column("samples"), lambda at: f"{at[1].num_samples:,} {at[0].split}"),
        (Column("recall %"), lambda at: percent_cell(at[1].recall)),
        (Column("precision %"), lambda at: percent_cell(at[1].precision)),
        (Column("F1 %"), lambda at: percent_cell(at[1].f1)),
    ]
    return table_of([(level, one) for level in levels for one in level.classes], columns, note)


# Time


def costs_table(found: Allocation) -> Table:
    """Return what each group of trials cost."""
    note = (
        "Epochs: trained; reused, which come from shared warm-ups; saved, which were not trained because a trial was "
        "stopped."
    )
    return table_of(
        found.groups,
        [
            (Column("noise level", "text"), lambda group: group.noise_level),
            (Column("stage", "text"), lambda group: group.stage),
            (Column("arm", "text"), lambda group: group.arm),
            (Column("trials"), lambda group: str(group.num_trials)),
            (Column("trained"), lambda group: str(group.epochs_trained)),
            (Column("reused"), lambda group: str(group.epochs_reused)),
            (Column("saved"), lambda group: str(group.epochs_saved)),
            (Column("training, s"), lambda group: f"{group.train_seconds:.1f}"),
        ],
        note,
    )


# Several runs


def comparison_table(comparison: Comparison) -> Table:
    """Return what each run says at each level."""
    entries = [(level.noise_level, run) for level in comparison.levels for run in level.runs]
    others = dict.fromkeys(name for at in entries for name in other_settings(_config(at)))
    columns: Columns[tuple[str, RunAtLevel]] = [
        (Column("noise level", "text"), lambda at: at[0]),
        (Column("run", "text"), lambda at: at[1].run),
        (Column("verdict", "text", detail=True), lambda at: FINDINGS[at[1].verdict.finding] if at[1].verdict else NONE),
        *setting_columns(_config, others),
        (Column("val %"), lambda at: percent_cell(at[1].val_accuracy)),
        (Column("test %"), lambda at: percent_cell(at[1].test_accuracy_at_best)),
        (Column("fresh %"), lambda at: test_text(use) if (use := at[1].use) and use.num_seeds else NONE),
        (Column("best to CE"), lambda at: interval(at[1].difference).replace(" [", "\n[")),
        (Column("to first"), lambda at: _to_first(at[1])),
        (Column("trials", detail=True), lambda at: str(at[1].num_trials)),
        (Column("training, s", detail=True), lambda at: f"{at[1].train_seconds:.1f}"),
    ]
    note = (
        "The configuration to use. val and test: of the search's trial; fresh: test, mean ± standard error over fresh "
        "seeds. best to CE: test accuracy of the best rate minus that of the strongest CE over them, in points. to "
        "first: the search's trial minus that of the first run on the same test samples, in points ± the paired "
        "standard error."
    )
    return table_of(entries, columns, of_metric(note, comparison.metrics))


def _config(at: tuple[str, RunAtLevel]) -> Mapping[str, Any]:
    return {} if at[1].use is None else at[1].use.config


def _to_first(found: RunAtLevel) -> str:
    gap = found.against_first
    return NONE if gap is None else f"{points(gap.difference, 2)}\n± {100 * gap.standard_error:.2f}"


def differences_table(comparison: Comparison) -> Table:
    """Return the settings in which the runs differ."""
    rows = tuple((name, *map(cell_text, values)) for name, values in comparison.differences)
    return Table(words("setting", *comparison.runs), rows)
