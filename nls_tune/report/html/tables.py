"""The tables of the report page: cells as text, numbers so that they sort."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nls_tune.analysis.allocation import Allocation
from nls_tune.analysis.comparison import Comparison
from nls_tune.analysis.confirmation import LevelConfirmation
from nls_tune.analysis.level_summaries import LevelSummary
from nls_tune.analysis.statistics import SampleMean
from nls_tune.report.text import ARM_NAMES, number, points, rate

if TYPE_CHECKING:
    import pandas as pd

#: Longer tables are cut: a page must stay small enough to be mailed.
MAX_ROWS = 1000
_MAX_TEXT = 160
_NONE = "–"


@dataclass(frozen=True)
class Column:
    """A column; numbers are aligned to the right and sort by the first number of a cell."""

    name: str
    kind: Literal["text", "number"] = "number"


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        key: Unique in a page.
        caption: What it holds, plain text like all else.
        columns: From left to right.
        rows: Cells as text, of the length of ``columns``.
        note: What the columns mean, or what is left out; None where nothing needs to be said.
        long: Whether it begins closed.
    """

    key: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str | None = None
    long: bool = False


def _text(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "text") for name in names)


def _numbers(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name) for name in names)


def percent_cell(value: Any, digits: int = 2) -> str:
    """Write a fraction as a percentage without its sign, which the header has; a dash for what is no number."""
    return f"{100 * value:.{digits}f}" if _is_number(value) else _NONE


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


def _rate_cell(value: Any) -> str:
    return rate(value) if _is_number(value) else _NONE


def _whole(value: Any) -> str:
    return str(int(value)) if _is_number(value) else _NONE


def searched_settings(summaries: Iterable[LevelSummary]) -> tuple[str, ...]:
    """Return the settings that were searched, besides rate, warm-up and learning rate."""
    names = (name for summary in summaries for arm in summary.arms.values() for name in arm.config)
    return tuple(name for name in dict.fromkeys(names) if name not in ("smooth_rate", "warmup_epochs", "lr"))


def _config_cells(config: Mapping[str, Any] | None, others: Sequence[str]) -> tuple[str, ...]:
    found = config or {}
    return (
        _rate_cell(found.get("smooth_rate")),
        _whole(found.get("warmup_epochs")),
        _cell(found.get("lr")),
        *(_cell(found.get(name)) for name in others),
    )


def arms_table(key: str, summaries: Sequence[LevelSummary]) -> Table:
    """Return the selected trial of each arm at each level."""
    others = searched_settings(summaries)
    rows = []
    for level in summaries:
        for name, arm in level.arms.items():
            rows.append(
                (
                    level.noise_level,
                    ARM_NAMES[name],
                    "best of the search" if name == level.recommended else "",
                    *_config_cells(arm.config, others),
                    percent_cell(arm.val_accuracy),
                    percent_cell(arm.test_accuracy_at_best),
                    percent_cell(arm.last_test_accuracy),
                    str(arm.best_epoch),
                    str(arm.epochs),
                    str(arm.num_completed),
                    str(arm.num_trials),
                )
            )
    columns = (
        *_text("Noise level", "Arm", "Choice"),
        *_numbers("Rate", "Warm-up", "lr"),
        *_text(*others),
        *_numbers("Validation, %", "Test, %", "Test at last, %", "Best epoch", "Epochs", "Completed", "Trials"),
    )
    note = (
        "The selected trial of each arm, chosen by noisy validation at its best epoch. Test accuracy (clean labels) "
        "takes no part in any choice. A level without a completed trial has no row."
    )
    return Table(key, "Selected trial of each arm", columns, tuple(rows), note)


def confirmation_table(key: str, levels: Sequence[LevelConfirmation]) -> Table:
    """Return the confirmed configurations with their differences to the strongest CE."""
    has_all = any(found.on_all_labels for level in levels for found in level.configurations)
    rows = []
    for level in levels:
        for i, found in enumerate(level.configurations):
            comparison = level.comparisons[i]
            marks = ["strongest CE"] if i == level.strongest_ce else []
            marks += ["recommended"] if i == level.recommended else []
            holm = None if comparison is None else comparison.holm_p
            on_all = found.on_all_labels
            rows.append(
                (
                    level.noise_level,
                    ARM_NAMES[found.arm],
                    ", ".join(marks),
                    *_config_cells(found.config, ()),
                    _mean(found.test_at_best),
                    _NONE if comparison is None else _interval(comparison.difference),
                    _NONE if comparison is None else f"{comparison.sign_flip_p:.2g}",
                    _NONE if holm is None else f"{holm:.2g}",
                    percent_cell(comparison.detectable) if comparison else _NONE,
                    str(len(found.seeds)),
                    str(found.num_diverged),
                    _mean(found.validation),
                    _mean(found.test_at_last),
                    *([_NONE if on_all is None else _mean(on_all.test)] if has_all else []),
                )
            )
    columns = (
        *_text("Noise level", "Arm", "Choice"),
        *_numbers("Rate", "Warm-up", "lr", "Test, %", "Against CE, points", "p", "p over levels", "Detectable, points"),
        *_numbers("Seeds", "Diverged", "Validation, %", "Test at last, %"),
        *_numbers(*(["On all labels, %"] if has_all else [])),
    )
    note = (
        "Means ± standard deviation over fresh seeds, at the best epoch. Against CE: paired difference in test "
        "accuracy to the strongest cross-entropy with its 95 % t interval. p: exact sign-flip test; over levels: "
        "corrected by Holm's method. Detectable: the smallest true difference that would have been found with a "
        "probability of 80 %. All of it is for this test set and, unless every seed drew its own, this draw of the "
        "noise. The same seeds choose the recommended configuration, by validation, and test it."
    )
    return Table(key, "Confirmed configurations", columns, tuple(rows), note)


def _mean(found: SampleMean | None) -> str:
    if found is None:
        return _NONE
    spread = "" if math.isnan(found.standard_deviation) else f" ± {100 * found.standard_deviation:.2f}"
    return f"{100 * found.mean:.2f}{spread}"


def _interval(found: SampleMean) -> str:
    if math.isinf(found.low):
        return points(found.mean, 2)
    return f"{points(found.mean, 2)} [{points(found.low, 2)}, {points(found.high, 2)}]"


def trials_table(key: str, trials: pd.DataFrame, others: Sequence[str], most: int = MAX_ROWS) -> Table:
    """Return all trials, or the best of each noise level where they are more than ``most``.

    Args:
        key: Of the table.
        trials: Rows of ``trials/``.
        others: Settings that were searched besides rate, warm-up and learning rate.
        most: Rows at most.
    """
    note = None
    if len(trials) > most:
        ranked = trials.sort_values("best_val_accuracy", ascending=False, na_position="last", kind="stable")
        place = ranked.groupby("noise_level", sort=False).cumcount()
        # The best of each level in turn: accuracies of different noise are not comparable.
        chosen = place.sort_values(kind="stable").index[:most]
        note = f"The {most:,} best of {len(trials):,} trials by validation accuracy, about as many of each noise level."
        trials = trials.loc[trials.index.isin(chosen)]
    others = [name for name in others if f"config_{name}" in trials.columns]
    names = ["noise_level", "stage", "arm", "status", "smooth_rate", "warmup_epochs", "lr"]
    names += [f"config_{name}" for name in others]
    names += [
        "best_epoch",
        "epochs",
        "best_val_accuracy",
        "test_accuracy_at_best",
        "last_test_accuracy",
        "train_seconds",
    ]
    names += ["seed", "trial_id", "error"]
    rows = tuple(
        _trial_row(values, len(others)) for values in zip(*(trials[name].tolist() for name in names), strict=True)
    )
    columns = (
        *_text("Noise level", "Stage", "Arm", "Status"),
        *_numbers("Rate", "Warm-up", "lr"),
        *_text(*others),
        *_numbers("Best epoch", "Epochs", "Validation, %", "Test, %", "Test at last, %", "Training, s", "Seed"),
        *_text("Trial", "Error"),
    )
    has_error = any(row[-1] for row in rows)
    if not has_error:
        columns, rows = columns[:-1], tuple(row[:-1] for row in rows)
    return Table(key, "Trials", columns, rows, note, long=True)


def _trial_row(values: Sequence[Any], num_others: int) -> tuple[str, ...]:
    level, stage, arm, status, smooth_rate, warmup, lr = values[:7]
    best_epoch, epochs, val, test, last, seconds, seed, trial, error = values[7 + num_others :]
    return (
        _cell(level),
        _cell(stage),
        ARM_NAMES.get(arm, _cell(arm)),
        _cell(status),
        _rate_cell(smooth_rate),
        _whole(warmup),
        _cell(lr),
        *(_cell(value) for value in values[7 : 7 + num_others]),
        _whole(best_epoch),
        _whole(epochs),
        percent_cell(val),
        percent_cell(test),
        percent_cell(last),
        f"{seconds:.4g}" if _is_number(seconds) else _NONE,
        _whole(seed),
        _cell(trial),
        "" if _cell(error) == _NONE else _cell(error),
    )


def costs_table(key: str, found: Allocation) -> Table:
    """Return what each group of trials cost."""
    rows = tuple(
        (
            group.stage,
            group.noise_level,
            ARM_NAMES[group.arm],
            str(group.num_trials),
            str(group.epochs_trained),
            str(group.epochs_reused),
            str(group.epochs_saved),
            f"{group.train_seconds:.1f}",
        )
        for group in found.groups
    )
    columns = (
        *_text("Stage", "Noise level", "Arm"),
        *_numbers("Trials", "Epochs trained", "Reused", "Saved by stopping", "Training, s"),
    )
    note = "Reused epochs come from shared warm-ups; saved ones were not trained because the trial was stopped."
    return Table(key, "Cost of each group", columns, rows, note, long=True)


def comparison_table(key: str, comparison: Comparison) -> Table:
    """Return what each run recommends at each level."""
    found = [(level.noise_level, run) for level in comparison.levels for run in level.runs]
    configs = [run.config or {} for _, run in found]
    others = [n for c in configs for n in c if n not in ("smooth_rate", "warmup_epochs", "lr")]
    others = list(dict.fromkeys(others))
    rows = tuple(
        (
            level,
            run.run,
            _NONE if run.arm is None else ARM_NAMES[run.arm],
            *_config_cells(run.config, others),
            percent_cell(run.val_accuracy),
            percent_cell(run.test_accuracy_at_best),
            _mean(run.confirmed),
            _NONE if run.against_ce is None else _interval(run.against_ce),
            _NONE
            if run.against_first is None
            else f"{points(run.against_first.difference, 2)} ± {100 * run.against_first.standard_error:.2f}",
            str(run.num_trials),
            f"{run.train_seconds:.1f}",
        )
        for level, run in found
    )
    columns = (
        *_text("Noise level", "Run", "Arm"),
        *_numbers("Rate", "Warm-up", "lr"),
        *_text(*others),
        *_numbers(
            "Validation, %", "Test, %", "Confirmed test, %", "Against CE, points", "Against the first run, points"
        ),
        *_numbers("Trials", "Training, s"),
    )
    note = (
        "Test: of the search's trial. Confirmed: mean ± standard deviation over fresh seeds. Against the first run: "
        "the recommended trials on the same test samples, ± the paired standard error."
    )
    return Table(key, "What each run recommends", columns, rows, note)


def differences_table(key: str, comparison: Comparison) -> Table:
    """Return the settings in which the runs differ."""
    rows = tuple((name, *(_cell(value) for value in values)) for name, values in comparison.differences)
    return Table(key, "Settings that differ", _text("Setting", *comparison.runs), rows)
