"""Noise estimates without a training, and datasets whose true noise nobody knows."""

import dataclasses
from typing import Any

import pytest

from nls_tune.datasets import make_noisy
from nls_tune.noise.confident_learning import NoiseEstimate


def estimate_of(level: str, **changes: Any) -> NoiseEstimate:
    values = {
        "dataset": "twonorm",
        "noise_level": level,
        "num_classes": 2,
        "num_samples": 8_000,
        "noise_rate": 0.3,
        "low": 0.25,
        "high": 0.35,
        "matrix": ((0.7, 0.3), (0.3, 0.7)),
        "noise_cancelling_rate": -1.5,
        "accuracy": 0.7,
        "true_noise_rate": None,
        "true_matrix": None,
        "model": "mlp",
        "folds": 3,
        "best_epochs": (1, 2, 3),
        "seconds": 1.0,
    }
    return NoiseEstimate(**{**values, **changes})


def hide_the_truth(patch: pytest.MonkeyPatch) -> None:
    """Let every plan's datasets have no clean labels, like those of a user's own file."""

    def hidden(*arguments: Any, **settings: Any) -> Any:
        return dataclasses.replace(make_noisy(*arguments, **settings), clean_labels=None, noise_rate=None)

    patch.setattr("nls_tune.plan.plan.make_noisy", hidden)
