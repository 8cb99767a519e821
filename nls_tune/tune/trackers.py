"""What follows a search in other tools: TensorBoard's files, MLflow, Weights & Biases.

The recorder tells trackers what it writes to Parquet: the epochs of a running trial as they come, and its row.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from nls_tune.errors import InputError
from nls_tune.export.tensorboard import write_trial_events
from nls_tune.machine.provenance import without_password
from nls_tune.plan.settings import SearchSettings
from nls_tune.runs.directory import RunDirectory
from nls_tune.tune.tracker import TrackedTrial, Tracker

if TYPE_CHECKING:
    from nls_tune.plan.plan import SearchPlan

_LOG = logging.getLogger(__name__)
#: At the end of a session a tracker gets so many seconds to take what it has not taken yet.
_PATIENCE = 30.0
#: Weights & Biases starts two processes a trial, which takes its time, and sends everything at the end.
_WANDB_PATIENCE = 120.0


class BackgroundTracker:
    """Tells another tracker from a thread of its own, so that none can hold up or end a search.

    What fails is said once, as a warning, and the next trial is tried again.

    Args:
        name: For the warning.
        make: Makes the tracker, in that thread.
        patience: Seconds that ``close`` waits at most.
    """

    def __init__(self, name: str, make: Callable[[], Tracker], patience: float = _PATIENCE) -> None:
        self._name, self._make, self._patience = name, make, patience
        self._jobs: SimpleQueue[Callable[[Tracker], None] | None] = SimpleQueue()
        self._warned = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def started(self, trial: TrackedTrial) -> None:
        """See ``Tracker``."""
        self._jobs.put(lambda tracker: tracker.started(trial))

    def reported(self, trial: TrackedTrial, epochs: Sequence[Mapping[str, Any]]) -> None:
        """See ``Tracker``."""
        self._jobs.put(lambda tracker: tracker.reported(trial, epochs))

    def ended(self, trial: TrackedTrial, row: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> None:
        """See ``Tracker``."""
        self._jobs.put(lambda tracker: tracker.ended(trial, row, epochs))

    def close(self) -> None:
        """Wait until everything is told, as long as patience allows."""
        self._jobs.put(lambda tracker: tracker.close())
        self._jobs.put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._warn(f"did not take everything within {self._patience:g} s")

    def _run(self) -> None:
        tracker = None
        try:
            tracker = self._make()
        except Exception as error:
            self._warn(_first_line(error))
        while (job := self._jobs.get()) is not None:
            try:
                if tracker is not None:
                    job(tracker)
            except Exception as error:
                self._warn(_first_line(error))

    def _warn(self, reason: str) -> None:
        if not self._warned:
            _LOG.warning("%s lacks a part of this search (%s); the run directory has everything", self._name, reason)
        self._warned = True


class TensorboardTracker:
    """Writes a trial's event file when it ends.

    Args:
        folder: TensorBoard's folder.
        searched: Names of the training settings that the search varies.
    """

    def __init__(self, folder: Path, searched: Sequence[str]) -> None:
        self._folder, self._searched = folder, searched

    def started(self, trial: TrackedTrial) -> None:
        """Nothing to write yet."""

    def reported(self, trial: TrackedTrial, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Nothing to write yet."""

    def ended(self, trial: TrackedTrial, row: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> None:
        """Write the file."""
        write_trial_events(self._folder, row, epochs, self._searched)

    def close(self) -> None:
        """Every file is closed already."""


def check_trackers(settings: SearchSettings) -> None:
    """Check that what a search is to be followed in is installed and answers.

    Raises:
        InputError: If it is not; Ray is not started yet.
    """
    if settings.mlflow is not None:
        _check_installed("mlflow")
        _check_mlflow(settings.mlflow)
    if settings.wandb is not None:
        _check_installed("wandb")
        _check_wandb(settings.wandb)


def _check_installed(package: str) -> None:
    spec = importlib.util.find_spec(package)
    # A folder of that name, which both tools leave where they were used, looks like a package without a file.
    if spec is None or spec.origin is None:
        raise InputError(
            f"--{package} needs the package {package}, which is not here; pip install 'nls-tune[{package}]'"
        )


def _check_mlflow(uri: str) -> None:
    from mlflow.tracking import MlflowClient

    quick = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    before = {name: os.environ.get(name) for name in quick}
    os.environ.update(quick)  # MLflow would try for minutes
    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except Exception as error:  # each kind of store has its own
        raise InputError(
            f"--mlflow must be a tracking URI that answers, {without_password(uri)} does not ({_first_line(error)}); "
            "start its server, or give sqlite:///mlflow.db"
        ) from None
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check_wandb(project: str) -> None:
    from ray.air.integrations.wandb import WandbLoggerCallback

    if not project.strip() or len(project) > 128 or set(project) & set("/\\#?%:"):
        raise InputError(
            f"--wandb must be the name of a project, at most 128 characters without / \\ # ? % :, got {project!r}"
        )
    try:
        callback: Any = WandbLoggerCallback(project=project)
        callback.setup()
    except ValueError:
        raise InputError(
            "--wandb must know who you are, no key is found; run wandb login, set WANDB_API_KEY, or set "
            "WANDB_MODE=offline to keep everything here"
        ) from None


@contextmanager
def open_trackers(plan: SearchPlan, run: RunDirectory, run_id: str) -> Iterator[list[BackgroundTracker]]:
    """Open what the settings of a search name; at the end wait for what has not been taken.

    Args:
        plan: Of the search.
        run: Its directory.
        run_id: MLflow's experiment and the group at Weights & Biases.
    """
    settings, trackers = plan.settings, []
    if settings.tensorboard:
        folder, searched = run.tensorboard, list(plan.space.space)
        trackers.append(BackgroundTracker("TensorBoard", lambda: TensorboardTracker(folder, searched)))
    if (uri := settings.mlflow) is not None:
        from nls_tune.tune.ray_trackers import MlflowTracker

        trackers.append(BackgroundTracker("MLflow", lambda: MlflowTracker(uri, run_id)))
    if (project := settings.wandb) is not None:
        from nls_tune.tune.ray_trackers import WandbTracker

        trackers.append(
            BackgroundTracker(
                "Weights & Biases",
                lambda: WandbTracker(project, run_id, _WANDB_PATIENCE),
                patience=_WANDB_PATIENCE + _PATIENCE,
            )
        )
    try:
        yield trackers
    except KeyboardInterrupt:
        trackers = []  # whoever presses Ctrl-C again does not wait for a server
        raise
    finally:
        for tracker in trackers:
            tracker.close()


def _first_line(error: Exception) -> str:
    line = next(iter(without_password(str(error)).strip().splitlines()), type(error).__name__)
    return line if len(line) <= 120 else f"{line[:120]}..."
