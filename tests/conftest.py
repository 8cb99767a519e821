from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nls_tune.plan import SearchPlan, make_plan
from nls_tune.results import config_columns, trial_id, trial_schema
from nls_tune.search_settings import check_search_settings
from nls_tune.settings import TrainingSettings

sys.path.append(str(Path(__file__).parent / "datasets"))  # its fake data serve other tests, too
_BEGIN = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory):
    """Keep all tests away from the cache and the Ray clusters of whoever runs them."""
    ray_folder = tempfile.mkdtemp(prefix="nls-")  # Ray puts sockets there, whose paths must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_TMPDIR", ray_folder)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
    shutil.rmtree(ray_folder, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_plan() -> SearchPlan:
    """A plan of four short trials at one noise level, without ASHA."""
    settings = check_search_settings(
        noise=("symmetric:0.4",),
        preset="cpu",
        epochs=6,
        num_trials=4,
        train_size=500,
        overrides=("budget.grace_epochs=40",),
    )
    return make_plan(settings, 0, progress=False)


def _trial_row(
    settings: Mapping[str, Any] | None = None,
    *,
    val_correct: np.ndarray | None = None,
    test_correct: np.ndarray | None = None,
    minute: int = 0,
    **changes: Any,
) -> dict[str, Any]:
    training = TrainingSettings(**{"model": "mlp", "epochs": 10, "warmup_epochs": 2, **(settings or {})})
    val = np.arange(20) % 4 != 0 if val_correct is None else val_correct
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


def _trials_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    return pa.Table.from_pylist(list(rows), schema=trial_schema()).to_pandas()


@pytest.fixture(scope="session")
def trial_row() -> Callable[..., dict[str, Any]]:
    """Make a row of trials/: settings by name first, then what else should differ."""
    return _trial_row


@pytest.fixture(scope="session")
def trials_frame() -> Callable[[Sequence[Mapping[str, Any]]], pd.DataFrame]:
    """Make the data frame that read_trials would return for some rows."""
    return _trials_frame
