"""Which trial held which slot when, and what ASHA and shared warm-ups saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from nls_tune.spaces import Arm

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TrialSpan:
    """One trial in time.

    Attributes:
        slot: 0, 1, ...: two trials of one slot do not overlap; slots are of one device.
        start_seconds: From the start of the run's first trial.
        seconds: From its start to its end, pauses between sessions included.
        epochs: Reached, reused ones included.
    """

    trial_id: str
    stage: str
    noise_level: str
    arm: Arm
    smooth_rate: float
    status: str
    node: str
    device: str
    slot: int
    start_seconds: float
    seconds: float
    epochs: int
    epochs_reused: int


@dataclass(frozen=True)
class GroupCost:
    """What one group (noise level, arm) cost in one stage.

    Attributes:
        epochs_trained: Without the reused ones.
        epochs_reused: Taken from shared warm-ups.
        epochs_saved: Not trained because ASHA stopped the trial.
    """

    stage: str
    noise_level: str
    arm: Arm
    num_trials: int
    epochs_trained: int
    epochs_reused: int
    epochs_saved: int
    train_seconds: float


@dataclass(frozen=True)
class Allocation:
    """Where the time of a run went.

    Attributes:
        started_at: Of the first trial.
        wall_seconds: From the first start to the last end.
        busy_share: Trial time over slots times wall time.
        spans: In the order of their starts.
        groups: In the order of levels, stages and arms.
    """

    started_at: datetime
    wall_seconds: float
    num_slots: int
    busy_share: float
    spans: tuple[TrialSpan, ...]
    groups: tuple[GroupCost, ...]


def allocation(trials: pd.DataFrame, levels: Sequence[str] = ()) -> Allocation | None:
    """Return where the time of a run went; None without a trial."""
    raise NotImplementedError
