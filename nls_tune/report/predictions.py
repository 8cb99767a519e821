"""Predictions as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def prediction_table(
    probabilities: np.ndarray, files: Sequence[str] | None = None, class_names: Sequence[str] | None = None
) -> pa.Table:
    """Return one row per sample of probabilities (N, K): where it came from, its class, and a probability per class."""
    labels = probabilities.argmax(axis=1)
    columns: dict[str, object] = {"index": np.arange(len(labels))} if files is None else {"file": list(files)}
    columns["predicted"] = labels
    if class_names is not None:
        columns["predicted_name"] = [class_names[label] for label in labels]
    columns |= {f"probability_{k}": probabilities[:, k] for k in range(probabilities.shape[1])}
    return pa.table(columns)
