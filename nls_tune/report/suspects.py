"""Labels that are probably wrong, as a table."""

from __future__ import annotations

from collections.abc import Sequence
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
    issues: LabelIssues, class_names: Sequence[str] | None = None, files: Sequence[str] | None = None
) -> pa.Table:
    """Return one row per issue, in the order of suspicion; ``files`` are those of all rows of the dataset."""
    columns: dict[str, object] = {"rank": np.arange(1, len(issues) + 1), "index": issues.indices}
    if files is not None:
        columns["file"] = [files[row] for row in issues.indices]
    columns |= {"label": issues.labels, "suggested_label": issues.suggested}
    if class_names is not None:
        columns["label_name"] = [class_names[label] for label in issues.labels]
        columns["suggested_name"] = [class_names[label] for label in issues.suggested]
    columns["score"] = issues.scores
    return pa.table(columns)
