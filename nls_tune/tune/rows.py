"""A trial that has started, and the rows of ``trials/`` and ``epochs/`` that it gets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from nls_tune.datasets import NoisyDataset
from nls_tune.metrics import METRICS, EpochMetrics, ReadoutScore, Scores
from nls_tune.noise.confident_learning import NoiseEstimate
from nls_tune.plan.level import cancelling_rate
from nls_tune.runs.schemas import ON_ALL_LABELS, Row, Status, config_columns
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.training.report import TrialReport
from nls_tune.tune.tracker import TrackedTrial


@dataclass(kw_only=True)
class TrialState:
    """The state of a trial that has started and has no row yet.

    ``estimate`` is None where the noise of its level is not estimated, ``report`` (its last one) before the first.
    """

    run_id: str
    spec: TrialSpec
    dataset: NoisyDataset
    estimate: NoiseEstimate | None
    tracked: TrackedTrial
    slot: int = 0
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    epochs: dict[int, EpochMetrics] = field(default_factory=dict)
    report: TrialReport | None = None
    written_at: float = 0.0
    has_ended: bool = False

    def metrics(self) -> list[Row]:
        """Return the epochs, in their order, without what names the trial."""
        return [asdict(self.epochs[epoch]) for epoch in sorted(self.epochs)]

    def epoch_rows(self) -> list[Row]:
        """Return the rows of ``epochs/``; none before the first report."""
        if self.report is None:
            return []
        shared = {
            "run_id": self.run_id,
            "trial_id": self.spec.trial_id,
            "noise_level": self.spec.noise_level,
            "arm": self.spec.settings.arm,
            "smooth_rate": self.spec.settings.smooth_rate,
            "node": self.report.node,
            "device": self.report.device,
        }
        return [{**shared, **row} for row in self.metrics()]

    def trial_row(self, status: Status, error: str | None) -> Row:
        """Return the row of ``trials/`` of the trial, which ends now; ``error`` says why it failed."""
        report = self.report or TrialReport(device="unknown", node="unknown")
        last = self.epochs[max(self.epochs)] if self.epochs else None
        dataset, spec, finished_at = self.dataset, self.spec, datetime.now(UTC)
        validates = spec.stage != ON_ALL_LABELS
        return {
            "run_id": self.run_id,
            "trial_id": spec.trial_id,
            "stage": spec.stage,
            "arm": spec.settings.arm,
            "dataset": dataset.name,
            "num_classes": dataset.num_classes,
            "noise_level": dataset.noise_level,
            "noise_seed": dataset.noise_seed,
            "noise_rate": dataset.noise_rate,
            "estimated_noise_rate": self.estimate.noise_rate if self.estimate and not self.estimate.is_weak else None,
            "noise_cancelling_rate": cancelling_rate(dataset),
            **config_columns(spec.settings),
            "status": status,
            "error": error,
            "epochs": len(self.epochs),
            "epochs_reused": report.epochs_reused,
            "best_epoch": report.best_epoch,
            **_score_columns("", report.best),
            **_last_columns("val", last.val if last and validates else None),
            **_last_columns("test", last.test if last else None),
            "readout": report.readout,
            "plain_best_epoch": report.plain and report.plain.epoch,
            **_score_columns("plain_", report.plain),
            "average_best_epoch": report.average and report.average.epoch,
            **_score_columns("average_", report.average),
            "mirrored_test_accuracy": report.mirrored_test_accuracy,
            "slot": self.slot,
            "num_val": dataset.num_val if validates else 0,
            "num_test": 0 if dataset.test_labels is None else len(dataset.test_labels),
            "val_correct_at_best": report.val_correct_at_best,
            "test_correct_at_best": report.test_correct_at_best,
            "val_counts_at_best": report.val_counts_at_best,
            "test_counts_at_best": report.test_counts_at_best,
            "train_seconds": report.train_seconds,
            "wall_seconds": (finished_at - self.started_at).total_seconds(),
            "device": report.device,
            "node": report.node,
            "started_at": self.started_at,
            "finished_at": finished_at,
        }


def _score_columns(prefix: str, score: ReadoutScore | None) -> Row:
    """The metrics of a readout at its best epoch; nulls where it was not judged."""
    val, test = (score.val, score.test) if score else (None, None)
    known = None if val is None or math.isnan(val.accuracy) else val  # on all labels nothing validates
    row = {f"{prefix}best_val_{metric}": known and getattr(known, metric) for metric in METRICS}
    return row | {f"{prefix}test_{metric}_at_best": test and getattr(test, metric) for metric in METRICS}


def _last_columns(split: str, scores: Scores | None) -> Row:
    """The metrics of the last epoch; nulls where there are none."""
    return {f"last_{split}_{metric}": scores and getattr(scores, metric) for metric in METRICS}
