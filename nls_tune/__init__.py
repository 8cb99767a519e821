"""Finds the best (often negative) label-smoothing rate for each level of label noise.

Names are imported when they are first used: ``import nls_tune`` loads neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nls_tune.conclusion import SearchResult as SearchResult
    from nls_tune.datasets import NoisyDataset as NoisyDataset
    from nls_tune.datasets import load_dataset as load_dataset
    from nls_tune.errors import InputError as InputError
    from nls_tune.errors import NlsTuneError as NlsTuneError
    from nls_tune.estimate import estimate_noise as estimate_noise
    from nls_tune.losses import GLSLoss as GLSLoss
    from nls_tune.losses import gls_loss as gls_loss
    from nls_tune.noise import noise_cancelling_rate as noise_cancelling_rate
    from nls_tune.noise import noise_rate as noise_rate
    from nls_tune.noise import transition_matrix as transition_matrix
    from nls_tune.noise_estimation import NoiseEstimate as NoiseEstimate
    from nls_tune.results import read_epochs as read_epochs
    from nls_tune.results import read_trials as read_trials
    from nls_tune.session import run_search as run_search
    from nls_tune.settings import TrainingSettings as TrainingSettings
    from nls_tune.training import Training as Training

__version__ = "0.1.0"

_HOME = {
    "NoisyDataset": "datasets",
    "load_dataset": "datasets",
    "InputError": "errors",
    "NlsTuneError": "errors",
    "estimate_noise": "estimate",
    "GLSLoss": "losses",
    "gls_loss": "losses",
    "noise_cancelling_rate": "noise",
    "noise_rate": "noise",
    "transition_matrix": "noise",
    "NoiseEstimate": "noise_estimation",
    "read_epochs": "results",
    "read_trials": "results",
    "SearchResult": "conclusion",
    "run_search": "session",
    "TrainingSettings": "settings",
    "Training": "training",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
