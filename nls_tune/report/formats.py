"""What runs say, for programs: JSON of everything, CSV and Markdown of the levels."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from nls_tune.analysis.analysis import Analysis, RunAnalysis
from nls_tune.analysis.confirmation import ConfirmedConfiguration, PairedComparison
from nls_tune.analysis.level_summaries import ArmSummary, LevelSummary
from nls_tune.report.text import ARM_NAMES, interval, mean_text, number, percent, rate
from nls_tune.runs import Run

FORMAT_VERSION = 1


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
    """Return an analysis as one JSON object: the dataclasses of ``analysis/`` by their field names.

    Instead of its rows, ``run`` holds name, path, status, levels, problems, and what run.json says of identity and
    sessions. Accuracies are fractions, times seconds, dates ISO 8601.
    """
    return json.dumps({"format_version": FORMAT_VERSION, **plain(analysis)}, allow_nan=False)


def _run(run: Run) -> dict[str, Any]:
    kept = run.content.model_dump(mode="json", include={"run_id", "created_at", "ended_by", "identity", "sessions"})
    return plain(  # type: ignore[no-any-return] # of a mapping it makes one
        {
            "name": run.name,
            "path": Path(run.path),
            "status": run.status,
            "levels": run.levels,
            "problems": run.problems,
            "num_trials": len(run.trials),
            **kept,
        }
    )


# One row a run, level and arm


def level_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """Return one row a run, noise level and arm: what the search selected and what fresh seeds say of it.

    Accuracies are fractions. Settings besides rate, warm-up and learning rate stand in ``other_settings``.
    """
    return [_row(found, level, arm) for found in analysis.runs for level in found.summaries for arm in _arms(level)]


def _arms(level: LevelSummary) -> Iterator[ArmSummary]:
    yield from level.arms.values()


def _row(found: RunAnalysis, level: LevelSummary, arm: ArmSummary) -> dict[str, Any]:
    recommendation = next((r for r in found.recommendations if r.noise_level == level.noise_level), None)
    fresh, comparison = _confirmed(found, level, arm)
    difference = None if comparison is None else comparison.difference
    named = ("smooth_rate", "warmup_epochs", "lr")
    others = {name: value for name, value in arm.config.items() if name not in named}
    return {
        "run": found.run.name,
        "status": found.run.status,
        "noise_level": level.noise_level,
        "noise_rate": level.noise_rate,
        "estimated_noise_rate": level.estimated_noise_rate,
        "noise_cancelling_rate": level.noise_cancelling_rate,
        "arm": arm.arm,
        "recommended": recommendation is not None and recommendation.config == arm.config,
        "verdict": None if recommendation is None else recommendation.verdict,
        **{name: arm.config[name] for name in named},
        "other_settings": json.dumps(plain(others), sort_keys=True) if others else None,
        "trial_id": arm.trial_id,
        "num_trials": arm.num_trials,
        "num_completed": arm.num_completed,
        "best_epoch": arm.best_epoch,
        "epochs": arm.epochs,
        "val_accuracy": arm.val_accuracy,
        "test_accuracy_at_best": arm.test_accuracy_at_best,
        "last_val_accuracy": arm.last_val_accuracy,
        "last_test_accuracy": arm.last_test_accuracy,
        "confirm_seeds": 0 if fresh is None else len(fresh.seeds),
        "confirm_val_mean": None if fresh is None else fresh.validation.mean,
        "confirm_test_mean": None if fresh is None or fresh.test_at_best is None else fresh.test_at_best.mean,
        "confirm_test_sd": None
        if fresh is None or fresh.test_at_best is None
        else fresh.test_at_best.standard_deviation,
        "against_ce": None if difference is None else difference.mean,
        "against_ce_low": None if difference is None else difference.low,
        "against_ce_high": None if difference is None else difference.high,
        "sign_flip_p": None if comparison is None else comparison.sign_flip_p,
        "holm_p": None if comparison is None else comparison.holm_p,
        "detectable": None if comparison is None else comparison.detectable,
    }


def _confirmed(
    found: RunAnalysis, level: LevelSummary, arm: ArmSummary
) -> tuple[ConfirmedConfiguration | None, PairedComparison | None]:
    for confirmation in found.confirmations:
        if confirmation.noise_level == level.noise_level:
            for fresh, comparison in zip(confirmation.configurations, confirmation.comparisons, strict=True):
                if fresh.arm == arm.arm and fresh.config == arm.config:
                    return fresh, comparison
    return None, None


#: The columns, also of a table without rows.
LEVEL_COLUMNS = (
    "run", "status", "noise_level", "noise_rate", "estimated_noise_rate", "noise_cancelling_rate", "arm", "recommended",
    "verdict", "smooth_rate", "warmup_epochs", "lr", "other_settings", "trial_id", "num_trials", "num_completed",
    "best_epoch", "epochs", "val_accuracy", "test_accuracy_at_best", "last_val_accuracy", "last_test_accuracy",
    "confirm_seeds", "confirm_val_mean", "confirm_test_mean", "confirm_test_sd", "against_ce",
    "against_ce_low", "against_ce_high", "sign_flip_p", "holm_p", "detectable",
)  # fmt: skip


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a header; what is missing or not finite is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = [plain(row[name]) for name in columns]
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def markdown_text(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in GitHub's Markdown; cells are text, in which nothing is taken as Markdown or HTML."""
    lines = [headers, ["---"] * len(headers), *([_escaped(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(cell: str) -> str:
    for character in "\\`*_[]|~#":
        cell = cell.replace(character, f"\\{character}")
    return " ".join(cell.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())


def levels_markdown(analysis: Analysis) -> str:
    """Return one line a run, noise level and arm, as people write such tables."""
    lines = []
    for found in analysis.runs:
        for level in found.summaries:
            for arm in _arms(level):
                row = _row(found, level, arm)
                fresh, comparison = _confirmed(found, level, arm)
                lines.append(
                    [
                        row["run"],
                        row["noise_level"],
                        ARM_NAMES[arm.arm] + (" (recommended)" if row["recommended"] else ""),
                        rate(row["smooth_rate"]),
                        str(row["warmup_epochs"]),
                        number(row["lr"]),
                        f"{arm.best_epoch}/{arm.epochs}",
                        percent(arm.val_accuracy),
                        percent(arm.test_accuracy_at_best),
                        percent(arm.last_test_accuracy),
                        f"{arm.num_completed}/{arm.num_trials}",
                        str(row["confirm_seeds"]),
                        mean_text(None if fresh is None else fresh.test_at_best),
                        interval(None if comparison is None else comparison.difference),
                    ]
                )
    headers = ("run", "noise level", "arm", "rate", "warm-up", "lr", "epoch", "val", "test", "at last", "trials")
    return markdown_text((*headers, "fresh seeds", "test, fresh seeds", "against the strongest CE"), lines)
