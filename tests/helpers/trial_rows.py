"""Rows of trials/ for tests that need some."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from nls_tune.metrics import METRICS
from nls_tune.runs.schemas import config_columns, trial_id, trial_schema
from nls_tune.spaces.settings import TrainingSettings

_BEGIN = datetime(2025, 1, 1, tzinfo=UTC)


def trial_row(
    settings: Mapping[str, Any] | None = None,
    *,
    val_correct: np.ndarray | None = None,
    test_correct: np.ndarray | None = None,
    minute: int = 0,
    **changes: Any,
) -> dict[str, Any]:
    """Make a row of trials/: settings by name first, then what else should differ."""
    training = TrainingSettings(**{"model": "mlp", "epochs": 10, "warmup_epochs": 2, **(settings or {})})
    val = np.arange(80) % 4 != 0 if val_correct is None else val_correct
    started_at = _BEGIN + timedelta(minutes=minute)
    row = {
        "run_id": "twonorm-1",
        "stage": "search",
        "arm": training.arm,
        "dataset": "twonorm",
        "num_classes": 2,
        "noise_level": "symmetric:0.4",
        "noise_rate": 0.4,
        "estimated_noise_rate": None,
        "noise_cancelling_rate": -4.0,
        **config_columns(training),
        "noise_seed": 0,
        "status": "completed",
        "error": None,
        "epochs": training.epochs,
        "epochs_reused": 0,
        "best_epoch": 5,
        "best_val_accuracy": float(val.mean()),
        "test_accuracy_at_best": None if test_correct is None else float(test_correct.mean()),
        "last_val_accuracy": float(val.mean()) - 0.01,
        "last_test_accuracy": None if test_correct is None else float(test_correct.mean()) - 0.02,
        "readout": "plain",
        "plain_best_epoch": 5,
        "plain_best_val_accuracy": float(val.mean()),
        "plain_test_accuracy_at_best": None if test_correct is None else float(test_correct.mean()),
        **dict.fromkeys(("average_best_epoch", "average_best_val_accuracy", "average_test_accuracy_at_best")),
        "mirrored_test_accuracy": None,
        **{name: None for name in trial_schema().names if name.endswith("_counts_at_best") or _is_other_metric(name)},
        "slot": None,
        "num_val": len(val),
        "num_test": 0 if test_correct is None else len(test_correct),
        "val_correct_at_best": np.packbits(val).tobytes(),
        "test_correct_at_best": None if test_correct is None else np.packbits(test_correct).tobytes(),
        "train_seconds": 1.5,
        "wall_seconds": 2.5,
        "device": "a CPU",
        "node": "a node",
        "started_at": started_at,
        "finished_at": started_at + timedelta(seconds=3),
        **changes,
    }
    identity = ("f" * 64, row["noise_level"], row["noise_seed"], training, row["stage"])
    return {"trial_id": trial_id(*identity), **row}


def _is_other_metric(column: str) -> bool:
    return any(metric in column for metric in METRICS[1:])


def trials_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Make the data frame that read_trials would return for some rows."""
    return pa.Table.from_pylist(list(rows), schema=trial_schema()).to_pandas()
