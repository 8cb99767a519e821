"""Whether a training has learned: above chance, and no longer rising steeply at its end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: Standard errors above 1 / K within which an accuracy is chance. Three and not two: it is the best of many.
_ERRORS = 3.0
#: A rise over a quarter of the training by more than this share of what was learned is steep.
_STEEP = 0.1
#: A learning rate that ends below this share of its highest has run its course: accuracy rises with its fall.
_SETTLED = 0.1


def is_at_chance(accuracy: float, num_classes: int, num_samples: int) -> bool:
    """Return whether an accuracy on so many samples is within its error of guessing one of the K classes.

    Args:
        accuracy: A fraction, on balanced classes.
        num_classes: K.
        num_samples: How many samples it was measured on.
    """
    chance = 1 / num_classes
    return accuracy - chance <= _ERRORS * math.sqrt(chance * (1 - chance) / num_samples)


def is_rising(epochs: pd.DataFrame, num_classes: int, num_samples: int) -> bool:
    """Return whether the validation accuracy of a trial still rises steeply at its end.

    Compared are the means of the last quarter of the epochs and of the quarter before it (one epoch at least): a
    steep rise is more than a tenth of what was learned, and more than twice its standard error. A trial of fewer
    than three epochs cannot tell, nor can one whose learning rate has fallen to its end.

    Args:
        epochs: Rows of ``epochs/`` of one trial, in order.
        num_classes: K.
        num_samples: Validation samples.
    """
    healthy = epochs[~epochs["diverged"].astype(bool)]
    accuracies, rates = healthy["val_accuracy"].to_numpy(float), healthy["lr"].to_numpy(float)
    if len(accuracies) < 3 or rates[-1] < _SETTLED * rates.max():
        return False
    span = max(1, len(accuracies) // 4)
    last, before = float(np.mean(accuracies[-span:])), float(np.mean(accuracies[-2 * span : -span]))
    error = math.sqrt(2 * last * (1 - last) / (num_samples * span))
    return last - before > max(2 * error, _STEEP * (last - 1 / num_classes))
