"""All findings about runs in one object: what the tables, the page and the figures draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nls_tune.analysis.allocation import Allocation, allocation
from nls_tune.analysis.comparison import Comparison, compare
from nls_tune.analysis.importances import LevelImportances, importances
from nls_tune.analysis.interactions import Interaction, interactions
from nls_tune.analysis.learning_curves import LevelCurves, learning_curves
from nls_tune.analysis.per_class import LevelClasses, per_class
from nls_tune.analysis.rate_against_noise import RateAgainstNoise, rate_against_noise
from nls_tune.analysis.rate_curves import RateCurve, rate_curves
from nls_tune.analysis.rate_sweep import RateSweep, rate_sweeps
from nls_tune.analysis.verdicts import Findings, find
from nls_tune.datasets.class_names import class_names
from nls_tune.runs import Run


@dataclass(frozen=True, eq=False)
class RunAnalysis(Findings):
    """What one run says; ``run`` itself holds its provenance and its rows."""

    run: Run
    rate_curves: tuple[RateCurve, ...]
    rate_against_noise: RateAgainstNoise | None
    learning_curves: tuple[LevelCurves, ...]
    interactions: tuple[Interaction, ...]
    importances: tuple[LevelImportances, ...]
    allocation: Allocation | None
    per_class: tuple[LevelClasses, ...] = ()
    rate_sweeps: tuple[RateSweep, ...] = ()


@dataclass(frozen=True, eq=False)
class Analysis:
    """What several runs say, and how they compare; ``comparison`` is None for a single run."""

    runs: tuple[RunAnalysis, ...]
    comparison: Comparison | None


def analyze(runs: Sequence[Run]) -> Analysis:
    """Analyse runs, at least one."""
    found = tuple(_analyze(run) for run in runs)
    return Analysis(found, compare(runs, found) if len(found) > 1 else None)


def _analyze(run: Run) -> RunAnalysis:
    trials, levels, metric = run.trials, run.levels, run.content.metric
    found = find(run)
    return RunAnalysis(
        **vars(found),
        run=run,
        rate_curves=rate_curves(trials, levels, metric),
        rate_against_noise=rate_against_noise(trials, found.verdicts),
        learning_curves=learning_curves(
            trials, run.epochs, levels, defaults=run.content.defaults, summaries=found.summaries, metric=metric
        ),
        interactions=interactions(trials, levels, metric),
        importances=importances(trials, levels, metric),
        allocation=allocation(trials, levels, run.content.sessions),
        per_class=per_class(trials, found.verdicts, _class_names(run)),
        rate_sweeps=rate_sweeps(trials, levels, metric),
    )


def _class_names(run: Run) -> Sequence[str] | None:
    if run.content.data is not None:
        return run.content.data.class_names
    return class_names(str(run.content.identity.settings.get("dataset")))
