"""Finds the best label-smoothing rate, positive or negative, for each level of label noise.

Names are imported when they are first used: ``import nls_tune`` loads neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nls_tune._version import __version__ as __version__

if TYPE_CHECKING:
    from nls_tune.datasets import Data as Data
    from nls_tune.datasets import NoisyDataset as NoisyDataset
    from nls_tune.datasets import load_dataset as load_dataset
    from nls_tune.errors import InputError as InputError
    from nls_tune.errors import NlsTuneError as NlsTuneError
    from nls_tune.losses import GLSLoss as GLSLoss
    from nls_tune.losses import gls_loss as gls_loss
    from nls_tune.noise import noise_cancelling_rate as noise_cancelling_rate
    from nls_tune.noise import noise_rate as noise_rate
    from nls_tune.noise import transition_matrix as transition_matrix
    from nls_tune.noise.anchors import AnchorEstimate as AnchorEstimate
    from nls_tune.noise.anchors import estimate_from_anchors as estimate_from_anchors
    from nls_tune.noise.annotators import AnnotatorEstimate as AnnotatorEstimate
    from nls_tune.noise.annotators import estimate_annotators as estimate_annotators
    from nls_tune.noise.annotators import majority_vote as majority_vote
    from nls_tune.noise.confident_learning import NoiseEstimate as NoiseEstimate
    from nls_tune.noise.confident_learning import TransitionEstimate as TransitionEstimate
    from nls_tune.noise.confident_learning import estimate_transition as estimate_transition
    from nls_tune.noise.label_issues import LabelIssues as LabelIssues
    from nls_tune.noise.label_issues import find_label_issues as find_label_issues
    from nls_tune.runs.reading import read_epochs as read_epochs
    from nls_tune.runs.reading import read_trials as read_trials
    from nls_tune.session.conclusion import SearchResult as SearchResult
    from nls_tune.session.session import run_search as run_search
    from nls_tune.spaces.settings import TrainingSettings as TrainingSettings
    from nls_tune.training.estimate import estimate_noise as estimate_noise
    from nls_tune.training.predictor import Predictor as Predictor
    from nls_tune.training.predictor import load_predictor as load_predictor
    from nls_tune.training.training import Training as Training


_HOME = {
    "Data": "datasets",
    "NoisyDataset": "datasets",
    "load_dataset": "datasets",
    "InputError": "errors",
    "NlsTuneError": "errors",
    "estimate_noise": "training.estimate",
    "GLSLoss": "losses",
    "gls_loss": "losses",
    "noise_cancelling_rate": "noise",
    "noise_rate": "noise",
    "transition_matrix": "noise",
    "AnchorEstimate": "noise.anchors",
    "estimate_from_anchors": "noise.anchors",
    "AnnotatorEstimate": "noise.annotators",
    "estimate_annotators": "noise.annotators",
    "majority_vote": "noise.annotators",
    "NoiseEstimate": "noise.confident_learning",
    "TransitionEstimate": "noise.confident_learning",
    "estimate_transition": "noise.confident_learning",
    "LabelIssues": "noise.label_issues",
    "find_label_issues": "noise.label_issues",
    "read_epochs": "runs.reading",
    "read_trials": "runs.reading",
    "SearchResult": "session.conclusion",
    "run_search": "session.session",
    "TrainingSettings": "spaces.settings",
    "Predictor": "training.predictor",
    "load_predictor": "training.predictor",
    "Training": "training.training",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
