"""The row of ``trials/`` of a trial that has ended, whoever has trained it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nls_tune.plan.level import cancelling_rate
from nls_tune.plan.plan import SearchPlan
from nls_tune.runs.schemas import ON_ALL_LABELS, config_columns
from nls_tune.spaces.settings import TrainingSettings


@dataclass(kw_only=True)
class TrainedTrial:
    """A trial and what is known of it so far.

    Attributes:
        trial_id: Its name.
        level: Its noise level.
        noise_seed: Where it is not the search's; else None.
        stage: ``search``, ``confirm`` or ``confirm_all``.
        settings: What it trains.
        started_at: When it started.
        epochs: The metrics of its epochs, by epoch.
        report: Its last one (``TrainingTrainable.step``); of a trial without one, empty.
    """

    trial_id: str
    level: str
    noise_seed: int | None
    stage: str
    settings: TrainingSettings
    started_at: datetime
    epochs: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)


def trial_row(plan: SearchPlan, run_id: str, trial: TrainedTrial, status: str, error: str | None) -> dict[str, Any]:
    """Return the row of a trial that ends now, with the columns of ``results.trial_schema``.

    Args:
        plan: That it belongs to.
        run_id: Of the run.
        trial: What was trained.
        status: How it ended.
        error: Why, where it failed.
    """
    dataset, report, epochs = plan.dataset(trial.level, trial.noise_seed), trial.report, trial.epochs
    estimate = plan.level_plan(trial.level).estimate
    best = report.get("best_epoch")
    last = epochs[max(epochs)] if epochs else {}
    validates = trial.stage != ON_ALL_LABELS
    finished_at = datetime.now(UTC)
    return {
        "run_id": run_id,
        "trial_id": trial.trial_id,
        "stage": trial.stage,
        "arm": trial.settings.arm,
        "dataset": dataset.name,
        "num_classes": dataset.num_classes,
        "noise_level": trial.level,
        "noise_rate": dataset.noise_rate,
        "estimated_noise_rate": None if estimate is None else estimate.noise_rate,
        "noise_cancelling_rate": cancelling_rate(dataset),
        **config_columns(trial.settings),
        "noise_seed": dataset.noise_seed,
        "status": status,
        "error": error,
        "epochs": len(epochs),
        "epochs_reused": report.get("epochs_reused", 0),
        "best_epoch": best,
        "best_val_accuracy": report["best_val_accuracy"] if best else None,
        "test_accuracy_at_best": epochs[best]["test_accuracy"] if best else None,
        "last_val_accuracy": last.get("val_accuracy") if validates else None,
        "last_test_accuracy": last.get("test_accuracy"),
        "num_val": dataset.num_val if validates else 0,
        "num_test": 0 if dataset.test_labels is None else len(dataset.test_labels),
        "val_correct_at_best": report.get("val_correct_at_best"),
        "test_correct_at_best": report.get("test_correct_at_best"),
        "train_seconds": report.get("train_seconds", 0.0),
        "wall_seconds": (finished_at - trial.started_at).total_seconds(),
        "device": report.get("device", "unknown"),
        "node": report.get("node", "unknown"),
        "started_at": trial.started_at,
        "finished_at": finished_at,
    }
