"""Saved networks that nobody trained."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from nls_tune.runs.saved_model import FACTS, WEIGHTS, SavedModel
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.models import build_model
from nls_tune.training.predictor import weights_of


def facts_of(weights: bytes = b"", **changes: Any) -> SavedModel:
    values = {
        "model": "mlp",
        "num_classes": 3,
        "input_shape": (4,),
        "mean": (0.1, 0.2, 0.3, 0.4),
        "std": (1.0, 2.0, 0.5, 1.5),
        "precision": "float32",
        "settings": TrainingSettings(model="mlp", epochs=4, lr=0.01).model_dump(mode="json"),
        "epochs": 3,
        "trained_on": "all",
        "num_samples": 100,
        "dataset": "twonorm",
        "noise_level": "symmetric:0.2",
        "trial_id": "0" * 16,
        "finding": "no_proven_difference",
        "verdict": "use cross-entropy.",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    return SavedModel(**{**values, **changes})


def write_model(folder: Path, **changes: Any) -> SavedModel:
    """Write a network with fresh weights, drawn from seed 0."""
    shape = changes.get("input_shape", (4,))
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = build_model(changes.get("model", "mlp"), num_classes=changes.get("num_classes", 3), input_shape=shape)
    weights = weights_of(network)
    saved = facts_of(weights, **changes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / FACTS).write_text(saved.text(), encoding="utf-8")
    return saved
