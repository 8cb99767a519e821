"""Which configuration of a group to recommend, from its trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def select(trials: pd.DataFrame) -> pd.Series | None:
    """Return the trial of a group that is selected: the highest objective of a completed one.

    Stopped trials do not count, their accuracy is that of another training length; nor do diverged ones. The
    test set takes no part.

    Args:
        trials: Rows of ``trials/`` of one group and one stage.

    Returns:
        The row, or None if no trial was completed. Ties go to the earlier trial.
    """
    completed = trials[(trials["status"] == "completed") & trials["best_val_accuracy"].notna()]
    if completed.empty:
        return None
    ordered = completed.sort_values(["best_val_accuracy", "started_at"], ascending=[False, True], kind="stable")
    return ordered.iloc[0]
