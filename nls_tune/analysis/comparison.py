"""Two or more runs side by side, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nls_tune.analysis.level_summaries import PairedDifference
from nls_tune.analysis.statistics import SampleMean
from nls_tune.runs import Run
from nls_tune.spaces import Arm


@dataclass(frozen=True)
class RunAtLevel:
    """What one run recommends at a level; accuracies are fractions.

    Attributes:
        run: Its name.
        num_trials: Search trials of the level.
        train_seconds: Of all of them.
        arm: Of the recommended configuration; None, like what follows, where the run has none.
        confirmed: Test accuracy at the best epoch over fresh seeds of the recommended configuration.
        against_ce: The same minus the strongest CE's, seed by seed.
        against_first: This run's recommended trial minus that of the first run, on test; None for the first run,
            without a test set, and where the two do not have the same samples.
    """

    run: str
    num_trials: int
    train_seconds: float
    arm: Arm | None
    config: dict[str, Any] | None
    val_accuracy: float | None
    test_accuracy_at_best: float | None
    confirmed: SampleMean | None
    against_ce: SampleMean | None
    against_first: PairedDifference | None


@dataclass(frozen=True)
class LevelComparison:
    """One noise level in all runs that have it, in the order of the runs."""

    noise_level: str
    runs: tuple[RunAtLevel, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: Their names.
        differences: Settings that differ: name and its value in each run, None where a run lacks it.
        levels: In the order of the first run that has them.
    """

    runs: tuple[str, ...]
    differences: tuple[tuple[str, tuple[Any, ...]], ...]
    levels: tuple[LevelComparison, ...]


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs; the first one is what the others are compared with.

    Raises:
        ValueError: If there are fewer than two.
    """
    raise NotImplementedError
