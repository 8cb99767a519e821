"""Trackers of a search in other tools: TensorBoard's files, MLflow, Weights & Biases.

The recorder tells trackers what it writes to Parquet: the epochs of a running trial as they come, and its row.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nls_tune.errors import InputError
from nls_tune.export.tensorboard import METRICS, TAGS, write_trial_events
from nls_tune.machine.provenance import without_password
from nls_tune.plan.settings import SearchSettings
from nls_tune.runs.directory import RunDirectory
from nls_tune.tune.tracker import BackgroundTracker, TrackedTrial, Tracker, first_line

if TYPE_CHECKING:
    from nls_tune.plan.plan import SearchPlan

#: Weights & Biases sends everything at the end, which takes its time.
_WANDB_PATIENCE = 150.0
#: Statuses whose trials have no result that counts.
_FAILED = ("failed", "out_of_memory", "interrupted")
#: Columns of ``trials/`` that are logged when a trial ends.
_OUTCOME = (*METRICS, "epochs", "train_seconds")


class TensorboardTracker(Tracker):
    """Writes a trial's event file when it ends; ``searched`` names the settings that the search varies."""

    def __init__(self, folder: Path, searched: Sequence[str]) -> None:
        self._folder, self._searched = folder, searched

    def ended(self, trial: TrackedTrial, row: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> None:
        """Write the file."""
        write_trial_events(self._folder, row, epochs, self._searched)


class MlflowTracker(Tracker):
    """Logs every trial as a run of an MLflow experiment, made if need be; a run goes on when the search is resumed."""

    def __init__(self, uri: str, experiment: str) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(uri)
        known = self._client.get_experiment_by_name(experiment)
        self._experiment = self._client.create_experiment(experiment) if known is None else known.experiment_id
        self._runs: dict[str, str] = {}

    def started(self, trial: TrackedTrial) -> None:
        """Begin the run of a trial, or go on with the one that an interrupted session left."""
        from mlflow.entities import Param

        name = trial.config["trial_id"]
        earlier = self._client.search_runs([self._experiment], f"params.trial_id = '{name}'", max_results=1)
        run = earlier[0] if earlier else self._client.create_run(self._experiment, run_name=str(trial))
        self._runs[trial.name] = run.info.run_id
        if earlier:
            self._client.update_run(run.info.run_id, status="RUNNING")
        self._client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in trial.config.items()])

    def reported(self, trial: TrackedTrial, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Log the epochs, each in one request."""
        for epoch in epochs:
            self._log(trial, epoch["epoch"], _known(epoch, TAGS))

    def ended(self, trial: TrackedTrial, row: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> None:
        """Log how the trial ended and end its run; the tag ``status`` tells stopped and diverged from completed."""
        run_id = self._runs[trial.name]
        self._log(trial, row["epochs"], _known(row, _OUTCOME))
        self._client.set_tag(run_id, "status", row["status"])
        self._client.set_terminated(run_id, "FAILED" if row["status"] in _FAILED else "FINISHED")

    def _log(self, trial: TrackedTrial, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._runs[trial.name], metrics)


class WandbTracker(Tracker):
    """Logs every trial as a run at Weights & Biases, which goes on when the search is resumed."""

    def __init__(self, project: str, group: str) -> None:
        self._wandb: Any = importlib.import_module("wandb")
        self._project, self._group = project, group
        self._runs: dict[str, Any] = {}
        self._finishing: list[threading.Thread] = []
        self._errors: list[Exception] = []

    def started(self, trial: TrackedTrial) -> None:
        """Begin the run of a trial, or go on with the one of that id."""
        if trial.name in self._runs:
            return
        self._runs[trial.name] = self._wandb.init(
            project=self._project,
            group=self._group,
            id=trial.name,
            name=str(trial),
            config=trial.config,
            dir=str(trial.folder),
            resume="allow",
            reinit="create_new",  # trials run side by side
            settings=self._wandb.Settings(silent=True, console="off"),  # the terminal is the search's
        )

    def reported(self, trial: TrackedTrial, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Log the epochs; those that the run has already are dropped there."""
        for epoch in epochs:
            self._runs[trial.name].log(_known(epoch, TAGS), step=epoch["epoch"])

    def ended(self, trial: TrackedTrial, row: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> None:
        """Log how the trial ended and end its run, which sends what waits, beside those that follow."""
        run = self._runs.pop(trial.name)
        run.log(_known(row, _OUTCOME), step=row["epochs"])
        run.config.update({"status": row["status"]}, allow_val_change=True)
        thread = threading.Thread(target=self._finish, args=(run, int(row["status"] in _FAILED)), daemon=True)
        thread.start()
        self._finishing.append(thread)

    def close(self) -> None:
        """Wait until everything is sent."""
        for thread in self._finishing:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _finish(self, run: Any, exit_code: int) -> None:
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:
            self._errors.append(error)


def _known(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """Return the values of some names, without those that are missing or not finite."""
    found = {name: values.get(name) for name in names}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def check_trackers(settings: SearchSettings) -> None:
    """Check that the trackers that the settings name are installed and answer.

    Raises:
        InputError: If one does not; Ray is not started yet.
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
            f"--mlflow must be a tracking URI that answers, {without_password(uri)} does not ({first_line(error)}); "
            "start its server, or give sqlite:///mlflow.db"
        ) from None
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check_wandb(project: str) -> None:
    if not project.strip() or len(project) > 128 or set(project) & set("/\\#?%:"):
        raise InputError(
            f"--wandb must be the name of a project, at most 128 characters without / \\ # ? % :, got {project!r}"
        )
    if os.environ.get("WANDB_MODE") in ("offline", "disabled") or os.environ.get("WANDB_API_KEY"):
        return
    wandb: Any = importlib.import_module("wandb")
    if not wandb.api.api_key:  # asking in any other way would prompt for one
        raise InputError(
            "--wandb must know who you are, no key is found; run wandb login, set WANDB_API_KEY, or set "
            "WANDB_MODE=offline to keep everything here"
        )


@contextmanager
def open_trackers(plan: SearchPlan, run: RunDirectory, run_id: str) -> Iterator[list[BackgroundTracker]]:
    """Open the trackers that the settings of a search name; at the end wait for what has not been taken.

    ``run_id`` names MLflow's experiment and the group at Weights & Biases.
    """
    settings, trackers = plan.settings, []
    if settings.tensorboard:
        folder, searched = run.tensorboard, list(plan.space.space)
        trackers.append(BackgroundTracker("TensorBoard", lambda: TensorboardTracker(folder, searched)))
    if (uri := settings.mlflow) is not None:
        trackers.append(BackgroundTracker("MLflow", lambda: MlflowTracker(uri, run_id)))
    if (project := settings.wandb) is not None:
        trackers.append(BackgroundTracker("Weights & Biases", lambda: WandbTracker(project, run_id), _WANDB_PATIENCE))
    try:
        yield trackers
    except KeyboardInterrupt:
        trackers = []  # after a second Ctrl-C nothing waits for a server
        raise
    finally:
        for tracker in trackers:
            tracker.close()
