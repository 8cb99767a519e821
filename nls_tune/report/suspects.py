"""Labels that are probably wrong, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from nls_tune.noise.label_issues import LabelIssues
from nls_tune.spaces.settings import TrainingSettings


@dataclass(frozen=True, eq=False)
class Suspects:
    """The labels of a dataset that are probably wrong, most suspicious first.

    The ``issues`` have the rows of the dataset as their indices, among ``num_samples`` labels that were judged, by
    ``folds`` networks with the ``settings``. ``recommended`` says whether the run recommended these.
    """

    issues: LabelIssues
    num_samples: int
    folds: int
    settings: TrainingSettings
    recommended: bool


def suspect_table(
    issues: LabelIssues,
    class_names: Sequence[str] | None = None,
    origins: Mapping[str, np.ndarray] | None = None,
) -> pa.Table:
    """Return one row per issue, in the order of suspicion; ``origins`` are columns for all rows of the dataset."""
    columns: dict[str, object] = {"rank": np.arange(1, len(issues) + 1), "index": issues.indices}
    columns |= {name: values[issues.indices] for name, values in (origins or {}).items()}
    columns |= {"label": issues.labels, "suggested_label": issues.suggested}
    if class_names is not None:
        columns["label_name"] = [class_names[label] for label in issues.labels]
        columns["suggested_name"] = [class_names[label] for label in issues.suggested]
    columns["score"] = issues.scores
    return pa.table(columns)
