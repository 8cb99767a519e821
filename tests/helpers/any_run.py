"""Runs in any state, drawn at random: few or many fresh seeds, arms that are missing, diverged or at chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
from trial_rows import trial_row, trials_frame

from nls_tune.runs import Run
from nls_tune.runs.run_json import RunJson
from nls_tune.runs.schemas import epoch_schema
from nls_tune.spaces.settings import RATE_ARMS

STATES = (
    "finished",
    "search only",
    "crashed",
    "all diverged",
    "one arm missing",
    "two seeds",
    "one seed",
    "no test set",
)
SPACE = {
    "smooth_rate": {"type": "float", "default": -1.0, "low": -8.0, "high": 0.8, "scale": "log1m"},
    "warmup_epochs": {"type": "int", "default": 2, "low": 0, "high": 4, "step": 1, "scale": "linear"},
    "lr": {"type": "float", "default": 0.01, "low": 1e-4, "high": 0.1, "scale": "log"},
}
#: The rate of each arm in ``searched``.
RATES = {"ce": 0.0, "positive": 0.3, "negative": -2.0}
_NUM_VAL, _NUM_TEST = 1000, 400
_LEVELS = ("symmetric:0.4", "human:worst", "a[b]/c.csv", "clean")


def searched(
    values: Mapping[str, float], level: str = "symmetric:0.2", per_arm: int = 8, num_val: int = 1000, **changes: Any
) -> list[dict[str, Any]]:
    """Completed search trials of each arm; the selected one has the value on validation and on test."""
    val, test, rows = np.arange(num_val), np.arange(1000), []
    for arm, value in values.items():
        for i in range(per_arm):
            rows.append(
                trial_row(
                    {"smooth_rate": RATES[arm], "lr": 0.01 * 1.2**i},
                    val_correct=val < num_val * value - i,
                    test_correct=test < 1000 * value,
                    noise_level=level, minute=len(rows), **{"noise_cancelling_rate": -0.67, **changes},
                )
            )  # fmt: skip
    return rows


def any_rows(random: Random, state: str | None = None) -> list[dict[str, Any]]:
    """Rows of ``trials/`` of one or two noise levels, in a state or in any."""
    levels = random.sample(_LEVELS, random.choice((1, 1, 2)))
    return [row for level in levels for row in _level(random, level, state or random.choice(STATES))]


def _level(random: Random, level: str, state: str) -> list[dict[str, Any]]:
    arms = random.sample(RATE_ARMS, 2) if state == "one arm missing" else RATE_ARMS
    ce = random.choice((0.5, 0.6, 0.6, 0.8))
    found = {arm: ce if arm == "ce" else ce + random.choice((-0.05, 0.0, 0.02, 0.1)) for arm in arms}
    rates = {"ce": 0.0, "positive": random.choice((0.3, 0.8)), "negative": random.choice((-8.0, -2.0, -1 / 3))}
    lrs = {arm: random.choice((0.01, 0.0031, 2.5e-5)) for arm in arms}
    num_test = 0 if state == "no test set" else _NUM_TEST
    rows = []
    for arm in arms:
        for i in range(random.choice((1, 3, 8))):
            status = "diverged" if state == "all diverged" else "completed" if i == 0 else random.choice(_STATUSES)
            val = found[arm] - random.choice((0.001, 0.01)) * i
            settings = {"smooth_rate": rates[arm], "warmup_epochs": 2, "lr": lrs[arm] * 1.3**i}
            rows.append(_row(level, settings, status, val, val + random.uniform(0.06, 0.14), num_test, len(rows)))
    seeds = {"one seed": 1, "two seeds": 2, "crashed": random.randint(0, 5)}.get(state, random.choice((3, 6)))
    if state in ("search only", "all diverged"):
        return rows
    trained = [(arm, {"smooth_rate": rates[arm], "warmup_epochs": 2, "lr": lrs[arm]}) for arm in arms]
    if "ce" in arms and lrs["ce"] != 0.01:
        trained.append(("ce", {"smooth_rate": 0.0, "warmup_epochs": 2, "lr": 0.01}))
    gains = {arm: 0.0 if arm == "ce" else random.choice((-0.03, 0.0, 0.002, 0.03)) for arm in arms}
    luck = [random.uniform(-0.04, 0.04) for _ in range(seeds)]
    for i, (arm, settings) in enumerate(trained):
        for seed in range(1, seeds + 1):
            if state == "crashed" and i == len(trained) - 1 and seed == seeds:
                break
            val = found[arm] + random.uniform(-0.02, 0.02)
            test = 0.8 + luck[seed - 1] + gains[arm] + random.uniform(-0.012, 0.012)
            row = _row(level, {**settings, "seed": seed}, "completed", val, test, num_test, 900 + i)
            rows.append({**row, "stage": "confirm"})
    return rows


_STATUSES = ("completed", "completed", "stopped", "diverged", "failed")


def _row(
    level: str, settings: Mapping[str, Any], status: str, val: float, test: float, num_test: int, minute: int
) -> dict[str, Any]:
    failed = (
        {"best_val_accuracy": None, "best_epoch": None, "test_accuracy_at_best": None} if status == "failed" else {}
    )
    return trial_row(
        settings,
        val_correct=np.arange(_NUM_VAL) < round(_NUM_VAL * val),
        test_correct=np.arange(num_test) < round(num_test * min(test, 1)) if num_test else None,
        noise_level=level,
        noise_cancelling_rate=-4.0 if level == "symmetric:0.4" else None,
        noise_rate=0.4 if level == "symmetric:0.4" else None,
        status=status,
        minute=minute,
        **failed,
    )


def run_of(rows: Sequence[Mapping[str, Any]], name: str = "any", rising: bool = False) -> Run:
    """Return a run with these rows, and with epochs in which accuracy rises to the end or not."""
    trials = trials_frame(rows)
    constant = [c for c in trials if c.startswith("config_") and c != "config_warmup_lr"]
    trials = trials.drop(columns=constant)  # fewer columns are quicker
    planned = trials[trials["stage"] == "search"].groupby(["noise_level", "arm"]).size()
    levels = tuple(dict.fromkeys(trials["noise_level"]))
    content = RunJson.model_validate(
        {
            "schema_version": 1,
            "status": "finished",
            "run_id": "any-1",
            "identity": {
                "settings": {"dataset": "twonorm", "noise": list(levels)},
                "space": {"name": "twonorm", "space": SPACE},
            },
            "plan": [{"noise_level": level, "trials": planned[level].to_dict()} for level in levels],
        }
    )
    return Run(Path("/runs") / name, name, "finished", content, levels, trials, epochs_of(rows, rising), ())


def epochs_of(rows: Sequence[Mapping[str, Any]], rising: bool = False) -> pd.DataFrame:
    """Return the rows of ``epochs/`` of some trials."""
    found = []
    for row in rows:
        end = row["best_val_accuracy"] or 0.5
        for epoch in range(1, 9):
            accuracy = 0.5 + (end - 0.5) * (epoch / 8 if rising else min(1.0, epoch / 4))
            found.append(
                {
                    "trial_id": row["trial_id"], "noise_level": row["noise_level"], "epoch": epoch, "lr": 0.01,
                    "val_accuracy": accuracy, "diverged": False, "arm": row["arm"], "phase": "gls",
                    "smooth_rate": row["smooth_rate"], "train_accuracy": accuracy, "test_accuracy": None,
                }
            )  # fmt: skip
    return pd.DataFrame(found, columns=epoch_schema().names)
