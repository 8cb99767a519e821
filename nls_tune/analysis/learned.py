"""Whether a training has learned: above chance, and no longer rising steeply at its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nls_tune.metrics import Metric
from nls_tune.runs.schemas import objective_columns

if TYPE_CHECKING:
    import pandas as pd

#: Standard errors above 1 / K within which an accuracy is chance. Three and not two: it is the best of many.
_ERRORS = 3.0
#: A rise over a quarter of the training by more than this share of what was learned is steep.
_STEEP = 0.1
#: A learning rate that ends below this share of its highest has run its course: accuracy rises with its fall.
_SETTLED = 0.1


def effective_samples(counts: Sequence[int]) -> float:
    """Return how many samples of balanced classes have the error of a mean recall over classes of these sizes.

    Recalls near the same p give it the variance ``p (1 - p) * sum(1 / n_c) / K**2``. Classes without samples are left
    out.
    """
    present = [count for count in counts if count]
    return len(present) ** 2 / sum(1 / count for count in present)


def is_at_chance(accuracy: float, num_classes: int, num_samples: float) -> bool:
    """Return whether an accuracy on so many samples, of balanced classes, is within its error of guessing."""
    chance = 1 / num_classes
    return accuracy - chance <= _ERRORS * math.sqrt(chance * (1 - chance) / num_samples)


def is_rising(
    epochs: pd.DataFrame,
    num_classes: int,
    num_samples: float,
    lead: float | None = None,
    metric: Metric = "accuracy",
) -> bool:
    """Return whether the validation accuracy of a configuration still rises steeply at the end of its trials.

    Compared are the means of the last quarter of the epochs and of the quarter before it (one epoch at least). A rise
    is steep if it is more than a tenth of what was learned, or more than half of a lead that is claimed over it, and
    more than twice its standard error: over the trials, or of the samples for a single one. Trials of fewer than three
    epochs cannot tell, nor can those whose learning rate has fallen to its end. ``epochs`` are rows of ``epochs/``,
    each trial's in order; ``num_samples`` counts the validation samples; ``lead`` is how far another configuration is
    ahead on validation.
    """
    column = objective_columns(metric).epoch_val
    rises, reached = [], []
    for _, rows in epochs[~epochs["diverged"].astype(bool)].groupby("trial_id"):
        accuracies, rates = rows[column].to_numpy(float), rows["lr"].to_numpy(float)
        warmup = int((rows["phase"] == "warmup").sum())
        if 0 < warmup < len(rates) and rates[warmup] < _SETTLED * rates[:warmup].max():
            accuracies, rates = accuracies[warmup:], rates[warmup:]  # a new phase, and no schedule at its end
        if len(accuracies) >= 3 and rates[-1] >= _SETTLED * rates.max():
            span = max(1, len(accuracies) // 4)
            reached.append(float(accuracies[-span:].mean()))
            rises.append(reached[-1] - float(accuracies[-2 * span : -span].mean()))
    if not rises:
        return False
    rise, last = float(np.mean(rises)), float(np.mean(reached))
    error = math.sqrt(2 * last * (1 - last) / num_samples)
    if len(rises) > 1:
        error = float(np.std(rises, ddof=1)) / math.sqrt(len(rises))
    enough = _STEEP * (last - 1 / num_classes)
    return rise > max(2 * error, enough if lead is None else min(enough, lead / 2))
