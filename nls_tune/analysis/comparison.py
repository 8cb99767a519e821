"""Two or more runs side by side, level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nls_tune.analysis.choices import Choice
from nls_tune.analysis.level_summaries import PairedDifference, paired_trials
from nls_tune.analysis.rows import number, search_trials
from nls_tune.analysis.statistics import SampleMean
from nls_tune.analysis.verdicts import Findings, Verdict, find
from nls_tune.metrics import Metric
from nls_tune.runs import Run
from nls_tune.runs.schemas import objective_columns

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunAtLevel:
    """What one run says at a level; accuracies are fractions, and values of the run's metric.

    Attributes:
        num_trials: The number of its search trials.
        train_seconds: Their device time together.
        verdict: The run's verdict, if it has one.
        val_accuracy: The accuracy of the search's trial of what to use; None without such a trial.
        test_accuracy_at_best: The same trial's test accuracy.
        against_first: That trial minus the first run's, on test; None for the first run, without a test set, and
            where the two do not have the same samples or another metric than accuracy selects.
    """

    run: str
    num_trials: int
    train_seconds: float
    verdict: Verdict | None
    val_accuracy: float | None
    test_accuracy_at_best: float | None
    against_first: PairedDifference | None

    @property
    def use(self) -> Choice | None:
        """What the verdict says to use."""
        return None if self.verdict is None else self.verdict.use

    @property
    def difference(self) -> SampleMean | None:
        """Test accuracy of the run's best rate minus that of its strongest CE; None without a confirmation."""
        return None if self.verdict is None else self.verdict.difference


@dataclass(frozen=True)
class LevelComparison:
    """One noise level in all runs that have it, in the order of the runs."""

    noise_level: str
    runs: tuple[RunAtLevel, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, by their names.

    ``differences`` are the settings that differ: the name and its value in each run, None where a run lacks it;
    ``metrics`` say what each run selects by.
    """

    runs: tuple[str, ...]
    differences: tuple[tuple[str, tuple[Any, ...]], ...]
    levels: tuple[LevelComparison, ...]
    metrics: tuple[Metric, ...] = ()


def compare(runs: Sequence[Run], findings: Sequence[Findings] | None = None) -> Comparison:
    """Compare runs; the first one is what the others are compared with.

    Two runs have the same validation and test samples at a noise level where run.json has the same fingerprint.

    ``findings`` is what each run found, where that is known already.

    Raises:
        ValueError: If there are fewer than two.
    """
    if len(runs) < 2:
        raise ValueError(f"a comparison needs at least two runs, got {len(runs)}")
    known = [find(run) for run in runs] if findings is None else findings
    pairs = list(zip(runs, known, strict=True))
    names = dict.fromkeys(level for run in runs for level in run.levels)
    return Comparison(
        runs=tuple(run.name for run in runs),
        differences=_differences([run.content.identity.model_dump(mode="json") for run in runs]),
        levels=tuple(_level(name, [pair for pair in pairs if name in pair[0].levels], runs[0]) for name in names),
        metrics=tuple(run.content.metric for run in runs),
    )


def _level(level: str, pairs: Sequence[tuple[Run, Findings]], first: Run) -> LevelComparison:
    first_row: pd.Series | None = None
    compared = []
    for run, findings in pairs:
        search = search_trials(run.trials[run.trials["noise_level"] == level])
        verdict = next((found for found in findings.verdicts if found.noise_level == level), None)
        columns = objective_columns(run.content.metric)
        row = None if verdict is None or verdict.use is None else _row(run.trials, verdict.use.trial_id)
        against = None
        if run is first:
            first_row = row
        elif row is not None and first_row is not None and _same_samples(run, first, level):
            against = paired_trials(row, first_row, "test", run.content.metric)
        compared.append(
            RunAtLevel(
                run=run.name,
                num_trials=len(search),
                train_seconds=float(search["train_seconds"].sum()),
                verdict=verdict,
                val_accuracy=None if row is None else number(row[columns.best_val]),
                test_accuracy_at_best=None if row is None else number(row[columns.test_at_best]),
                against_first=against,
            )
        )
    return LevelComparison(level, tuple(compared))


def _row(trials: pd.DataFrame, trial_id: str | None) -> pd.Series | None:
    rows = trials[trials["trial_id"] == trial_id]
    return None if rows.empty else rows.iloc[0]


def _same_samples(run: Run, first: Run, level: str) -> bool:
    if run.content.metric != first.content.metric:
        return False
    known, expected = (one.content.identity.fingerprints.get(level) for one in (run, first))
    return known is not None and known == expected


# Settings


def _differences(identities: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    flat = [_flat(identity) for identity in identities]
    names = dict.fromkeys(name for settings in flat for name in settings)
    rows = ((name, tuple(settings.get(name) for settings in flat)) for name in names)
    return tuple((name, values) for name, values in rows if any(value != values[0] for value in values[1:]))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten mappings to dotted names; fingerprints follow from the rest, and search settings stand at the top."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if not prefix and name == "fingerprints":
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, "" if not prefix and name == "settings" else f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
