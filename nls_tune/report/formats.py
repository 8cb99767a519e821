"""What runs say, for programs: JSON of everything, CSV and Markdown of the levels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from nls_tune.analysis.analysis import Analysis, RunAnalysis
from nls_tune.analysis.choices import Choice
from nls_tune.analysis.confirmation import ConfirmedConfiguration, PairedComparison
from nls_tune.analysis.level_summaries import ArmSummary, LevelSummary
from nls_tune.analysis.statistics import SampleMean
from nls_tune.analysis.verdicts import Verdict
from nls_tune.report.run_tables import Columns, arm_columns, has_averages
from nls_tune.report.table import Column, csv_text, markdown_text, table_of
from nls_tune.report.text import interval, mean_text, other_settings
from nls_tune.report.words import FINDINGS, use_text
from nls_tune.runs import Run

FORMAT_VERSION = 2


def plain(value: Any) -> Any:
    """Return a value as JSON has it: dataclasses as objects; NaN, infinities and what is missing as null."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Run):
        return _run(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def analysis_json(analysis: Analysis) -> str:
    """Return an analysis as one JSON object: the dataclasses of ``analysis/``, by their field names.

    Instead of its rows, ``run`` holds name, path, status, levels, problems, and what run.json says of identity,
    sessions and a user's own data with its annotators. Accuracies are fractions, times seconds, dates ISO 8601.
    """
    return json.dumps({"format_version": FORMAT_VERSION, **plain(analysis)}, allow_nan=False)


def _run(run: Run) -> dict[str, Any]:
    kept = run.content.model_dump(
        mode="json", include={"run_id", "created_at", "ended_by", "identity", "sessions", "data"}
    )
    return plain(  # type: ignore[no-any-return] # of a mapping it makes one
        {
            "name": run.name,
            "path": Path(run.path) if run.url is None else run.url,
            "status": run.status,
            "levels": run.levels,
            "problems": run.problems,
            "num_trials": len(run.trials),
            **kept,
        }
    )


# One row per run, level and arm


@dataclass(frozen=True)
class _Entry:
    """The selected trial of an arm, and what is known of its configuration; None where it is not."""

    found: RunAnalysis
    level: LevelSummary
    arm: ArmSummary
    verdict: Verdict | None = None
    fresh: ConfirmedConfiguration | None = None
    comparison: PairedComparison | None = None

    @property
    def is_used(self) -> bool:
        """Whether the verdict says to use the arm's selected trial."""
        return self.arm.arm == self.level.used

    @property
    def used(self) -> Choice | None:
        """What to use at the level: it may be a CE that the search has not selected."""
        return self.verdict.use if self.verdict else None

    @property
    def test(self) -> SampleMean | None:
        """Test accuracy over fresh seeds."""
        return self.fresh.test_at_best if self.fresh else None

    @property
    def gap(self) -> SampleMean | None:
        """Test accuracy minus that of the strongest CE."""
        return self.comparison.difference if self.comparison else None


def _entries(analysis: Analysis) -> Iterator[_Entry]:
    for found in analysis.runs:
        verdicts = {one.noise_level: one for one in found.verdicts}
        confirmed = {one.noise_level: one for one in found.confirmations}
        for level in found.summaries:
            for arm in level.arms.values():
                entry = _Entry(found, level, arm, verdicts.get(level.noise_level))
                if one := confirmed.get(level.noise_level):
                    for fresh, comparison in zip(one.configurations, one.comparisons, strict=True):
                        if fresh.arm == arm.arm and fresh.config == arm.config:
                            entry = replace(entry, fresh=fresh, comparison=comparison)
                yield entry


def _arm(entry: _Entry) -> tuple[LevelSummary, ArmSummary]:
    return entry.level, entry.arm


def _others(entry: _Entry) -> str | None:
    others = other_settings(entry.arm.config)
    return json.dumps(plain(others), sort_keys=True) if others else None


_CSV: dict[str, Callable[[_Entry], object]] = {
    "run": lambda entry: entry.found.run.name,
    "status": lambda entry: entry.found.run.status,
    "noise_level": lambda entry: entry.level.noise_level,
    "noise_rate": lambda entry: entry.level.noise_rate,
    "estimated_noise_rate": lambda entry: entry.level.estimated_noise_rate,
    "noise_cancelling_rate": lambda entry: entry.level.noise_cancelling_rate,
    "arm": lambda entry: entry.arm.arm,
    "use": lambda entry: entry.is_used,
    "verdict": lambda entry: entry.verdict and entry.verdict.finding,
    "use_smooth_rate": lambda entry: entry.used and entry.used.config["smooth_rate"],
    "use_warmup_epochs": lambda entry: entry.used and entry.used.config["warmup_epochs"],
    "use_lr": lambda entry: entry.used and entry.used.config["lr"],
    "use_readout": lambda entry: entry.used and entry.used.readout,
    "smooth_rate": lambda entry: entry.arm.config["smooth_rate"],
    "warmup_epochs": lambda entry: entry.arm.config["warmup_epochs"],
    "lr": lambda entry: entry.arm.config["lr"],
    "other_settings": _others,
    "trial_id": lambda entry: entry.arm.trial_id,
    "num_trials": lambda entry: entry.arm.num_trials,
    "num_completed": lambda entry: entry.arm.num_completed,
    "best_epoch": lambda entry: entry.arm.best_epoch,
    "epochs": lambda entry: entry.arm.epochs,
    "val_accuracy": lambda entry: entry.arm.val_accuracy,
    "test_accuracy_at_best": lambda entry: entry.arm.test_accuracy_at_best,
    "last_val_accuracy": lambda entry: entry.arm.last_val_accuracy,
    "last_test_accuracy": lambda entry: entry.arm.last_test_accuracy,
    "confirm_seeds": lambda entry: len(entry.fresh.seeds) if entry.fresh else 0,
    "confirm_val_mean": lambda entry: entry.fresh and entry.fresh.validation.mean,
    "confirm_test_mean": lambda entry: entry.test and entry.test.mean,
    "confirm_test_sd": lambda entry: entry.test and entry.test.standard_deviation,
    "against_ce": lambda entry: entry.gap and entry.gap.mean,
    "against_ce_low": lambda entry: entry.gap and entry.gap.low,
    "against_ce_high": lambda entry: entry.gap and entry.gap.high,
    "sign_flip_p": lambda entry: entry.comparison and entry.comparison.sign_flip_p,
    "holm_p": lambda entry: entry.comparison and entry.comparison.holm_p,
    "detectable": lambda entry: entry.comparison and entry.comparison.detectable,
    "metric": lambda entry: entry.level.metric,
}


def levels_csv(analysis: Analysis) -> str:
    """Return one row per run, noise level and arm: what the search selected and what fresh seeds say of it.

    Accuracies are fractions, values of the run's ``metric``. Settings besides rate, warm-up and learning rate stand in
    ``other_settings``. A cell is empty where a value is unknown or not finite.
    """
    return csv_text(tuple(_CSV), ([plain(cell(entry)) for cell in _CSV.values()] for entry in _entries(analysis)))


def levels_markdown(analysis: Analysis) -> str:
    """Return one row per run, noise level and arm, as people write such tables."""
    columns: Columns[_Entry] = [
        (Column("run", "text"), lambda entry: entry.found.run.name),
        *arm_columns(_arm, averages=has_averages(entry.arm.readout for entry in _entries(analysis))),
        (Column("fresh seeds"), lambda entry: str(len(entry.fresh.seeds) if entry.fresh else 0)),
        (Column("fresh test %"), lambda entry: mean_text(entry.test)),
        (Column("against CE, points"), lambda entry: interval(entry.gap)),
        (Column("use at the level", "text"), lambda entry: use_text(entry.used)),
        (Column("verdict", "text"), lambda entry: FINDINGS[entry.verdict.finding] if entry.verdict else "–"),
    ]
    return markdown_text(table_of(_entries(analysis), columns))
