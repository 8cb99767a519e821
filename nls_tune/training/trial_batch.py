"""Several trials of a small network that one process trains as one batched model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nls_tune.training.trial import CHECKPOINT_SECONDS, REPORT_SECONDS, TrialTraining, Workplace

if TYPE_CHECKING:
    from nls_tune.datasets import NoisyDataset
    from nls_tune.training.data import DeviceData


class BatchTrial:
    """Trials that are trained together; each has its own checkpoint, reports and end.

    They train their own CE warm-ups and share none.

    Args:
        configs: Of the trials, see ``TrainingTrainable``; on the same data, with settings that can be batched.
        dataset: Their data.
        data: The same on the device.
        workplace: Of the process.
    """

    def __init__(
        self, configs: Sequence[Mapping[str, Any]], dataset: NoisyDataset, data: DeviceData, workplace: Workplace
    ) -> None:
        from nls_tune.training.compiling import Compiler
        from nls_tune.training.vectorized import VectorizedTraining

        # The steps of a batch are its own: those of its trainings, which would be compiled, are not taken.
        workplace = replace(workplace, compiler=Compiler("off"))
        self.trials = [TrialTraining(config, dataset, data, workplace) for config in configs]
        stop_at = [trial.stop_at for trial in self.trials]
        self._batch = VectorizedTraining([trial.training for trial in self.trials], stop_at)
        self._has_ended = [False] * len(self.trials)
        self._saved_at = time.monotonic()

    def train(self) -> dict[str, Any]:
        """Train until a report is due.

        Returns:
            ``reports``: one a trial, None of one whose last report has gone out before. Tune itself looks at
            ``best_val_accuracy``, the highest of them, and at ``done``.
        """
        begin = time.monotonic()
        for trial in self.trials:
            trial.describe()
        while not self._batch.finished:
            self._advance()
            # Whoever has ended is told of at once: its row is written then.
            ended = any(t.finished and not told for t, told in zip(self.trials, self._has_ended, strict=True))
            if ended or time.monotonic() - begin >= REPORT_SECONDS:
                break
        if time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS:
            self.keep()
        reports = [
            None if told else trial.report(min(trial.training.epoch, trial.stop_at))
            for trial, told in zip(self.trials, self._has_ended, strict=True)
        ]
        self._has_ended = [trial.finished for trial in self.trials]
        return batch_report(reports)

    def _advance(self) -> None:
        try:
            self._batch.run_epoch()
        except BaseException:
            for trial in self.trials:
                trial.spoil()
            raise

    def keep(self) -> None:
        """Save what was trained of each."""
        if any(trial.is_worth_saving for trial in self.trials):
            self._batch.write_back()
            for trial in self.trials:
                if trial.is_worth_saving:
                    trial.save()
            self._saved_at = time.monotonic()

    def close(self) -> None:
        """Nothing is held that others wait for."""


def batch_report(reports: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """Return the report of a batch from those of its trials, None for those that ended before."""
    told = [report for report in reports if report is not None]
    return {
        "reports": list(reports),
        "best_val_accuracy": max((report["best_val_accuracy"] for report in told), default=0.0),
        "done": all(report["done"] for report in told),
    }
