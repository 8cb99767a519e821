"""Labels that are probably wrong, on a console."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from nls_tune.datasets import NoisyDataset
from nls_tune.report.console.tables import print_line
from nls_tune.report.suspects import Suspects
from nls_tune.report.text import percent


def print_suspects(found: Suspects, dataset: NoisyDataset, console: Console) -> None:
    """Say how many labels are suspicious, by which networks, and how many of them are wrong where that is known."""
    count, settings = len(found.issues), found.settings
    how = "the recommended configuration" if found.recommended else "cross-entropy at the defaults"
    lines = [
        f"{dataset.name}, {dataset.noise_level}: {count:,} of {found.num_samples:,} labels "
        f"({percent(count / found.num_samples)}) are probably wrong",
        f"  judged by {found.folds} of {settings.model} with {how}, {settings.loss_text()}",
    ]
    if dataset.clean_labels is not None and count:
        rows = np.concatenate([dataset.train_indices, dataset.val_indices])
        wrong = dataset.noisy_labels != dataset.clean_labels
        right = wrong[found.issues.indices].sum()
        lines.append(
            f"  by the clean labels, which took no part: {percent(right / count)} of them are wrong, and "
            f"{percent(right / max(1, wrong[rows].sum()))} of all wrong labels are among them"
        )
    print_line("\n".join(lines), console)
