"""The configurations that a verdict chooses among, and what is known of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.confirmation import LevelConfirmation, stop_epoch, usual_readout
from nls_tune.analysis.doubts import Level
from nls_tune.analysis.rows import have_settings, number, search_trials
from nls_tune.analysis.selection import best_first
from nls_tune.analysis.statistics import SampleMean
from nls_tune.metrics import PLAIN
from nls_tune.spaces.settings import Arm


@dataclass(frozen=True)
class Choice:
    """A configuration (the settings that were searched) and what is known of it; accuracies are at the best epoch.

    Attributes:
        best_epoch: The epoch at which to stop: the median over the fresh seeds, else that of the search's trial.
        trial_id: The search's completed trial with this configuration, if there is one.
        num_seeds: The number of fresh seeds; 0 where only the search has trained it.
        readout: The weights to use, ``plain`` (as they are after the epoch) or ``average:SPAN``: those that most
            of the fresh seeds were best with, else the search's trial.
        schedule: The schedule of the learning rate.
        class_weights: The weights of the classes in the loss, ``none`` or ``balanced``.
        val_accuracy: The accuracy on noisy validation labels: the mean over the fresh seeds, else the search's trial's.
        test: The accuracy on clean test labels over the fresh seeds; without any, the single value of the search's
            trial.
    """

    arm: Arm
    config: Config
    best_epoch: int | None
    trial_id: str | None
    warmup_lr: float | None
    num_seeds: int
    val_accuracy: float
    test: SampleMean | None
    readout: str = PLAIN
    schedule: str = "constant"
    class_weights: str = "none"


def confirmed_choice(level: Level, found: LevelConfirmation, index: int) -> Choice:
    """Return a confirmed configuration, with its means over fresh seeds."""
    one = found.configurations[index]
    return _choice(level, one.arm, one.config, len(one.seeds), one.validation.mean, one.test_at_best)


def searched_choice(level: Level, arms: Sequence[Arm]) -> Choice | None:
    """Return the best of what the search selected in some arms; None where it selected nothing."""
    found = [level.summary.arms[arm] for arm in arms if arm in level.summary.arms]
    if not found:
        return None
    best = max(found, key=lambda one: one.val_accuracy)
    test = best.test_accuracy_at_best
    mean = None if test is None else SampleMean(1, test, math.nan, -math.inf, math.inf)
    return _choice(level, best.arm, best.config, 0, best.val_accuracy, mean)


def _choice(
    level: Level, arm: Arm, config: Config, num_seeds: int, val_accuracy: float, test: SampleMean | None
) -> Choice:
    """Return a choice with the epoch and weights of its fresh seeds, else of its trial in the search."""
    rows = level.rows[have_settings(level.rows, config)]
    searched = best_first(search_trials(rows), level.summary.metric)
    ended = rows["status"].isin(["completed", "diverged"]) & rows["best_epoch"].notna()
    fresh = rows[ended & (rows["stage"] == "confirm")]
    told = searched[:1] if fresh.empty else fresh
    epochs = told["best_epoch"].dropna().astype(int).tolist()
    return Choice(
        arm,
        config,
        best_epoch=stop_epoch(epochs) if epochs else None,
        trial_id=None if searched.empty else str(searched["trial_id"].iloc[0]),
        warmup_lr=number(rows["config_warmup_lr"].iloc[0]) if "config_warmup_lr" in rows else None,
        num_seeds=num_seeds,
        val_accuracy=val_accuracy,
        test=test,
        readout=usual_readout(told["readout"].dropna().tolist()),
        schedule=str(rows["config_schedule"].iloc[0]) if "config_schedule" in rows else "constant",
        class_weights=str(rows["config_class_weights"].iloc[0]) if "config_class_weights" in rows else "none",
    )
