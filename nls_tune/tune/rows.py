"""The row of ``trials/`` of a trial that has ended."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from nls_tune.datasets import NoisyDataset
from nls_tune.metrics import EpochMetrics
from nls_tune.noise.confident_learning import NoiseEstimate
from nls_tune.plan.level import cancelling_rate
from nls_tune.runs.schemas import ON_ALL_LABELS, Row, Status, config_columns
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.training.report import TrialReport


def trial_row(
    spec: TrialSpec,
    dataset: NoisyDataset,
    estimate: NoiseEstimate | None,
    report: TrialReport | None,
    epochs: Mapping[int, EpochMetrics],
    status: Status,
    error: str | None,
    *,
    run_id: str,
    slot: int,
    started_at: datetime,
) -> Row:
    """Return the row of a trial that ends now, with the columns of ``schemas.trial_schema``.

    Args:
        spec: What the trial is.
        dataset: Its data.
        estimate: The estimated noise of its level; None where that was not made.
        report: Its last report; None if it sent none.
        epochs: The metrics of its epochs, by epoch.
        status: How it ended.
        error: Why, where it failed.
        run_id: The run's id.
        slot: Which of the run's slots it ran in.
        started_at: When it started.
    """
    report = report or TrialReport(device="unknown", node="unknown")
    best, last = report.best_epoch, epochs[max(epochs)] if epochs else None
    validates = spec.stage != ON_ALL_LABELS
    finished_at = datetime.now(UTC)
    return {
        "run_id": run_id,
        "trial_id": spec.trial_id,
        "stage": spec.stage,
        "arm": spec.settings.arm,
        **_data_columns(dataset, estimate),
        **config_columns(spec.settings),
        "status": status,
        "error": error,
        "epochs": len(epochs),
        "epochs_reused": report.epochs_reused,
        "best_epoch": best,
        "best_val_accuracy": report.objective,
        "test_accuracy_at_best": None if best is None else epochs[best].test_accuracy,
        "last_val_accuracy": last.val_accuracy if last and validates else None,
        "last_test_accuracy": last.test_accuracy if last else None,
        "slot": slot,
        "num_val": dataset.num_val if validates else 0,
        "num_test": 0 if dataset.test_labels is None else len(dataset.test_labels),
        "val_correct_at_best": report.val_correct_at_best,
        "test_correct_at_best": report.test_correct_at_best,
        "train_seconds": report.train_seconds,
        "wall_seconds": (finished_at - started_at).total_seconds(),
        "device": report.device,
        "node": report.node,
        "started_at": started_at,
        "finished_at": finished_at,
    }


def _data_columns(dataset: NoisyDataset, estimate: NoiseEstimate | None) -> Row:
    return {
        "dataset": dataset.name,
        "num_classes": dataset.num_classes,
        "noise_level": dataset.noise_level,
        "noise_seed": dataset.noise_seed,
        "noise_rate": dataset.noise_rate,
        "estimated_noise_rate": None if estimate is None else estimate.noise_rate,
        "noise_cancelling_rate": cancelling_rate(dataset),
    }
