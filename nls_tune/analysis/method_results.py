"""What each method of a run with one noise level has reached over fresh seeds: a row of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.confirmation import ConfirmedConfiguration
from nls_tune.analysis.rows import have_settings
from nls_tune.analysis.statistics import SampleMean, sample_mean
from nls_tune.analysis.verdicts import Finding, find
from nls_tune.runs import Run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class MethodResult:
    """One arm over fresh seeds; accuracies on clean test labels.

    Attributes:
        arm: ``ce`` (the strongest one), ``positive``, ``negative``, or another loss.
        config: The settings that were searched.
        test: At the best epoch by noisy validation, with the weights, plain or averaged, that were better there; on all
            labels after the last epoch, if the run was confirmed so.
        difference: ``test`` minus that of the strongest CE, seed by seed; None for CE itself.
        proven: Whether the difference on the split is proven, corrected over the methods.
        plain: At the best epoch of the weights as they are, on the split.
        average: At the best epoch of averaged weights, on the split.
    """

    arm: str
    config: Config
    test: SampleMean
    difference: SampleMean | None
    proven: bool
    plain: SampleMean | None
    average: SampleMean | None


@dataclass(frozen=True)
class TableRowResult:
    """A row: the verdict, and the methods in the order CE, positive and negative rates, other losses."""

    finding: Finding | None
    methods: tuple[MethodResult, ...]


def table_row(run: Run) -> TableRowResult:
    """Return what a run says; without methods where nothing is confirmed on clean test labels yet."""
    found = find(run)
    finding = found.verdicts[0].finding if found.verdicts else None
    if not found.confirmations:
        return TableRowResult(finding, ())
    level, rows, results = (
        found.confirmations[0],
        run.trials[run.trials["stage"] == "confirm"],
        dict[str, MethodResult](),
    )
    for index, configuration in enumerate(level.configurations):
        arm = configuration.arm
        if arm in results or (arm == "ce" and index != level.strongest_ce):
            continue  # CE with the defaults, where the selected one is stronger
        on_all, comparison = configuration.on_all_labels, level.comparisons[index]
        test = configuration.test_at_best if on_all is None else on_all.test
        if test is None:
            continue
        on_split = None if comparison is None else comparison.difference
        results[arm] = MethodResult(
            arm=arm,
            config=configuration.config,
            test=test,
            difference=on_split if on_all is None else on_all.difference,
            proven=comparison is not None and comparison.proven,
            plain=_readout(rows, configuration, "plain"),
            average=_readout(rows, configuration, "average"),
        )
    return TableRowResult(finding, tuple(results.values()))


def _readout(rows: pd.DataFrame, configuration: ConfirmedConfiguration, readout: str) -> SampleMean | None:
    """The test accuracy of one readout over the seeds of a configuration; None where a seed has none."""
    mine = rows[have_settings(rows, configuration.config) & (rows["arm"] == configuration.arm)]
    values = mine.loc[mine["seed"].isin(configuration.seeds), f"{readout}_test_accuracy_at_best"].dropna()
    return sample_mean([float(value) for value in values]) if len(values) == len(configuration.seeds) else None
