"""What each method has reached over fresh seeds in runs of one noise level each: the rows of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.choices import Choice
from nls_tune.analysis.confirmation import (
    AllLabels,
    ConfirmedConfiguration,
    LevelConfirmation,
    correct_over_levels,
)
from nls_tune.analysis.rows import have_settings
from nls_tune.analysis.statistics import SampleMean, sample_mean
from nls_tune.analysis.verdicts import Finding, Findings, find
from nls_tune.metrics import Metric
from nls_tune.runs import Run
from nls_tune.runs.schemas import objective_columns
from nls_tune.spaces.settings import method_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class MethodResult:
    """One arm over fresh seeds; accuracies on clean test labels.

    Attributes:
        arm: ``ce`` (the strongest one), ``positive``, ``negative``, or another loss.
        config: The settings that were searched.
        test: At the best epoch by noisy validation, with the weights, plain or averaged, that were better there.
        difference: ``test`` minus that of the strongest CE, seed by seed; None for CE itself, and where CE still gains
            as much.
        proven: Whether the difference is proven, corrected over the methods and rows of the table.
        plain: At the best epoch of the weights as they are.
        average: At the best epoch of averaged weights.
        on_all_labels: Trained again on all labels, if the run was confirmed so: nothing is claimed from that.
    """

    arm: str
    config: Config
    test: SampleMean
    difference: SampleMean | None
    proven: bool
    plain: SampleMean | None
    average: SampleMean | None
    on_all_labels: AllLabels | None


@dataclass(frozen=True)
class TableRowResult:
    """A row: the verdict, and the methods in the order CE, positive and negative rates, other losses."""

    finding: Finding | None
    methods: tuple[MethodResult, ...]


def table_rows(runs: Sequence[Run]) -> tuple[TableRowResult, ...]:
    """Return what runs of one noise level each say, with p values corrected over all of them and their methods.

    A row has no methods where nothing is confirmed on clean test labels yet.
    """
    found = [find(run) for run in runs]
    corrected = iter(correct_over_levels([one.confirmations[0] for one in found if one.confirmations]))
    return tuple(
        _table_row(run, one, next(corrected) if one.confirmations else None)
        for run, one in zip(runs, found, strict=True)
    )


def _table_row(run: Run, found: Findings, level: LevelConfirmation | None) -> TableRowResult:
    verdict = found.verdicts[0] if found.verdicts else None
    if verdict is None or level is None:
        return TableRowResult(verdict.finding if verdict else None, ())
    finding = verdict.finding
    if finding in ("better", "worse") and not _is_proven(level, verdict.rate):
        finding = "no_proven_difference"  # it was proven for its run alone
    rows = run.trials[run.trials["stage"] == "confirm"]
    vanishing = {one.method for one in verdict.methods if one.finding == "not_trained_enough"}
    results: dict[str, MethodResult] = {}
    for arm, index in _best_of_arms(level).items():
        configuration, comparison = level.configurations[index], level.comparisons[index]
        if configuration.test_at_best is None:
            continue
        if method_of(configuration.arm) in vanishing:
            comparison = None
        results[arm] = MethodResult(
            arm=arm,
            config=configuration.config,
            test=configuration.test_at_best,
            difference=None if comparison is None else comparison.difference,
            proven=comparison is not None and comparison.proven,
            plain=_readout(rows, configuration, "plain", level.metric),
            average=_readout(rows, configuration, "average", level.metric),
            on_all_labels=configuration.on_all_labels,
        )
    return TableRowResult(finding, tuple(results.values()))


def _best_of_arms(level: LevelConfirmation) -> dict[str, int]:
    """Return the index of each arm's configuration with the highest validation accuracy; CE's is the strongest CE.

    A search that went on may have confirmed several.
    """
    best: dict[str, int] = {}
    for index, configuration in enumerate(level.configurations):
        arm = configuration.arm
        before = level.configurations[best[arm]].validation.mean if arm in best else -math.inf
        if index == level.strongest_ce or (arm != "ce" and configuration.validation.mean > before):
            best[arm] = index
    return best


def _is_proven(level: LevelConfirmation, choice: Choice | None) -> bool:
    """Whether the difference of a choice to the strongest CE is proven."""
    return any(
        comparison is not None and comparison.proven
        for one, comparison in zip(level.configurations, level.comparisons, strict=True)
        if choice is not None and (one.arm, one.config) == (choice.arm, choice.config)
    )


def _readout(
    rows: pd.DataFrame, configuration: ConfirmedConfiguration, readout: str, metric: Metric
) -> SampleMean | None:
    """The metric of one readout on test over the seeds of a configuration; None where a seed has none."""
    mine = rows[have_settings(rows, configuration.config) & (rows["arm"] == configuration.arm)]
    column = f"{readout}_{objective_columns(metric).test_at_best}"
    values = mine.loc[mine["seed"].isin(configuration.seeds), column].dropna()
    return sample_mean([float(value) for value in values]) if len(values) == len(configuration.seeds) else None
