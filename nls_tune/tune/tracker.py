"""What a tracker is: something that follows the trials of a search."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nls_tune.runs.directory import RunDirectory


@dataclass(eq=False)
class TrackedTrial:
    """A trial as trackers know it; to Ray's callbacks it stands for Tune's own.

    Attributes:
        trial_id: The run's and the trial's name, so that two runs of the same trial are two.
        config: Flat: what the trial is, and all its training settings.
        local_path: A folder for files that wait to be sent.
        experiment_dir_name: The run's name.
    """

    trial_id: str
    config: dict[str, Any]
    local_path: str
    experiment_dir_name: str

    def __str__(self) -> str:
        return " ".join(str(self.config[name]) for name in ("noise_level", "arm", "stage", "trial_id"))


class Tracker(Protocol):
    """Follows the trials of a session."""

    def started(self, trial: TrackedTrial) -> None:
        """A trial starts, or goes on from an earlier session."""

    def reported(self, trial: TrackedTrial, epochs: Sequence[Mapping[str, Any]]) -> None:
        """It has trained these epochs: rows of ``epochs/`` without what names the trial."""

    def ended(self, trial: TrackedTrial, row: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> None:
        """Its row of ``trials/`` is written; with all its epochs."""

    def close(self) -> None:
        """Nothing more comes."""


def tracked_trial(run: RunDirectory, run_id: str, trial_id: str, config: Mapping[str, Any]) -> TrackedTrial:
    """Return a trial for trackers.

    Args:
        run: The run directory.
        run_id: Of the run.
        trial_id: Of the trial.
        config: What the trial is, and its training settings.
    """
    # Weights & Biases takes 64 characters and no special ones; the trial is at the end.
    name = re.sub(r"[^\w-]", "-", f"{run_id}-{trial_id}")[-64:]
    return TrackedTrial(name, {"trial_id": trial_id, **config}, str(run.path), run_id)
