"""Ray's own callbacks for MLflow and Weights & Biases as trackers.

Left to Tune they would see its reports: many epochs in a list, which they drop, and the whole configuration again, as
metrics. They are told one result an epoch instead, and one with the outcome at the end.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

# Here, because two threads that import Ray Tune at once find half of it. Neither needs its tool yet.
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.air.integrations.wandb import WandbLoggerCallback

from nls_tune.export.tensorboard import METRICS, TAGS

if TYPE_CHECKING:
    from nls_tune.tune.tracker import TrackedTrial

#: Statuses whose trials have no result that counts.
_FAILED = ("failed", "out_of_memory", "interrupted")


class RayTracker:
    """Tells one of Ray's logger callbacks.

    Args:
        callback: A ``ray.tune.logger.LoggerCallback``, not set up yet.
    """

    def __init__(self, callback: Any) -> None:
        callback.setup()
        self._callback = callback

    def started(self, trial: TrackedTrial) -> None:
        """Begin its run."""
        self._callback.log_trial_start(trial)

    def reported(self, trial: TrackedTrial, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Log its epochs."""
        for epoch in epochs:
            self._log(trial, epoch["epoch"], {name: epoch[name] for name in TAGS})

    def ended(self, trial: TrackedTrial, row: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> None:
        """Log how it ended, and end its run."""
        outcome = {name: row[name] for name in (*METRICS, "epochs", "train_seconds")}
        self._log(trial, row["epochs"], outcome, **self._more(row))
        self._callback.log_trial_end(trial, failed=row["status"] in _FAILED)

    def _more(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the last result holds besides numbers."""
        return {}

    def _log(self, trial: TrackedTrial, epoch: int, values: Mapping[str, Any], **more: Any) -> None:
        known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        # The callbacks take this for the step.
        self._callback.log_trial_result(epoch, trial, {**known, **more, "training_iteration": epoch})

    def close(self) -> None:
        """Wait for what is on its way."""
        self._callback.on_experiment_end([])


class MlflowTracker(RayTracker):
    """Logs every trial as an MLflow run, which goes on when the search is resumed.

    Ray's callback sends every value alone and asks each time whether the run exists. Here the values of an epoch are
    one request.

    Args:
        uri: MLflow's tracking URI.
        experiment: Name of the experiment; it is made if there is none.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        from mlflow.tracking import MlflowClient

        callback: Any = MLflowLoggerCallback(uri, experiment_name=experiment)
        callback.mlflow_util.log_params = self._log_params
        callback.mlflow_util.log_metrics = self._log_metrics
        super().__init__(callback)
        self._client = MlflowClient(uri)

    def started(self, trial: TrackedTrial) -> None:
        """Begin the run of a trial, or go on with the one that an interrupted session left."""
        experiment, name = self._callback.mlflow_util.experiment_id, trial.config["trial_id"]
        earlier = self._client.search_runs([experiment], f"params.trial_id = '{name}'", max_results=1)
        if earlier:
            run_id = earlier[0].info.run_id
            self._callback._trial_runs[trial] = run_id  # the callback begins no other
            self._client.update_run(run_id, status="RUNNING")
        super().started(trial)

    def ended(self, trial: TrackedTrial, row: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> None:
        """End the run; its tag ``status`` tells stopped and diverged from completed."""
        self._client.set_tag(self._callback._trial_runs[trial], "status", row["status"])
        super().ended(trial, row, epochs)

    def _log_params(self, params_to_log: Mapping[str, Any], run_id: str) -> None:
        from mlflow.entities import Param

        self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params_to_log.items()])

    def _log_metrics(self, step: int, metrics_to_log: Mapping[str, float], run_id: str) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(run_id, [Metric(name, float(v), now, step) for name, v in metrics_to_log.items()])


class WandbTracker(RayTracker):
    """Logs every trial as a run at Weights & Biases.

    Args:
        project: Its project.
        group: Its group.
        patience: Seconds to wait at the end for what is on its way.
    """

    def __init__(self, project: str, group: str, patience: float) -> None:
        options: dict[str, Any] = {"upload_timeout": 1, "resume": "allow"}
        self._patience = patience
        if mode := os.environ.get("WANDB_MODE"):
            options["mode"] = mode  # on a cluster the processes that log have another environment
        super().__init__(WandbLoggerCallback(project, group, **options))

    def _more(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"config": {"status": row["status"]}}  # it joins the run's configuration

    def close(self) -> None:
        """Wait for what is on its way.

        Raises:
            TimeoutError: If that takes too long; the callback would drop the rest and say nothing.
        """
        import ray

        sending = list(self._callback._trial_logging_futures.values())
        if not sending:
            return
        _, late = ray.wait(sending, num_returns=len(sending), timeout=self._patience)
        super().close()
        if late:
            raise TimeoutError(f"{len(late)} trials were not sent within {self._patience:g} s")
