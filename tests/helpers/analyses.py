"""Analyses for tests of what draws them, written by hand: every number is known, and any text can be hostile."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.allocation import Allocation, GroupCost, TrialSpan
from nls_tune.analysis.analysis import Analysis, RunAnalysis
from nls_tune.analysis.choices import Choice
from nls_tune.analysis.comparison import Comparison, LevelComparison, RunAtLevel
from nls_tune.analysis.confirmation import ConfirmedConfiguration, LevelConfirmation, PairedComparison
from nls_tune.analysis.importances import Importance, LevelImportances
from nls_tune.analysis.interactions import Interaction, InteractionPoint
from nls_tune.analysis.learning_curves import LearningCurve, LevelCurves
from nls_tune.analysis.level_summaries import ArmSummary, LevelSummary, PairedDifference
from nls_tune.analysis.rate_against_noise import BestRate, RateAgainstNoise
from nls_tune.analysis.rate_curves import RateCurve, RatePoint, SmoothedCurve
from nls_tune.analysis.statistics import SampleMean, sample_mean
from nls_tune.analysis.verdicts import Verdict
from nls_tune.runs import Run
from nls_tune.runs.run_json import RunJson
from nls_tune.spaces.settings import arm_of

RATES = (-4.0, -1.5, -0.5, 0.0, 0.0, 0.1, 0.6)
_LRS = (0.0003, 0.001, 0.003, 0.003, 0.01, 0.003, 0.03)
_WARMUPS = (6, 4, 4, 4, 2, 4, 0)
EPOCHS = 8
HOSTILE = "<script>alert(1)</script>"


def make_analysis(levels: tuple[str, ...] = ("symmetric:0.2", "symmetric:0.4"), **changes: Any) -> Analysis:
    """An analysis of one run; ``changes`` as in ``make_run``."""
    return Analysis((make_run(levels, **changes),), None)


def make_run(
    levels: tuple[str, ...],
    *,
    name: str = "fake",
    text: str = "plain",
    status: Any = "finished",
    problems: tuple[str, ...] = (),
    has_test: bool = True,
    confirmed: bool = True,
) -> RunAnalysis:
    """One run; ``text`` stands wherever a file may hold any text."""
    rows = [
        trial_row(
            {"smooth_rate": r, "warmup_epochs": _WARMUPS[i], "lr": _LRS[i], "epochs": EPOCHS, "seed": i},
            noise_level=level,
            dataset=text,
            node=text,
            device=text,
            minute=i,
            status="completed" if i < 5 else "diverged",
            error=text if i == 6 else None,
            best_val_accuracy=accuracy(k, i, "val"),
            test_accuracy_at_best=accuracy(k, i, "test") if has_test else None,
            num_test=1000 if has_test else 0,
        )
        for k, level in enumerate(levels)
        for i, r in enumerate(RATES)
    ]
    trials = trials_frame(rows)
    every = range(len(levels))
    content = _content(text, levels, status)
    best_rates = tuple(
        BestRate(level, 0.1 + 0.1 * k, None, -1.0 - k, "negative", -1.5) for k, level in enumerate(levels)
    )
    shares = (Importance("smooth_rate", 0.7, 0.55), Importance(text, 0.3, 0.45))
    return RunAnalysis(
        run=Run(Path("/runs") / name, name, status, content, levels, trials, pd.DataFrame(), problems),
        verdicts=tuple(_verdict(k, levels[k], has_test, confirmed) for k in every),
        summaries=tuple(_summary(k, levels[k], has_test) for k in every),
        confirmations=tuple(_confirmation(k, levels[k], has_test) for k in every) if confirmed else (),
        rate_curves=tuple(_curve(k, levels[k], has_test, text) for k in every),
        rate_against_noise=RateAgainstNoise(2, best_rates, (0.0, 0.2, 0.4), (0.0, -2 / 3, -4.0)),
        learning_curves=tuple(_learning(k, levels[k], has_test, text) for k in every),
        interactions=tuple(
            _interaction(k, levels[k], setting, text) for k in every for setting in ("lr", "warmup_epochs")
        ),
        importances=(
            LevelImportances(levels[0], 5, shares, None),
            *(LevelImportances(level, 5, (), f"Too few trials at {text}.") for level in levels[1:]),
        ),
        allocation=_allocation(levels, text),
    )


def accuracy(level: int, trial: int, split: str) -> float:
    """The accuracy of a trial of a level, all different."""
    return (0.55 if split == "val" else 0.9) + 0.01 * trial + 0.001 * level + 0.0001


def _content(text: str, levels: tuple[str, ...], status: str) -> RunJson:
    content = {
        "schema_version": 1,
        "status": "running" if status == "crashed" else status,
        "run_id": f"{text}-1",
        "created_at": "2026-11-21T19:30:43.390350+00:00",
        "sessions": [
            {
                "versions": {"python": "3.11.7", "nls-tune": text},
                "git_commit": "f" * 40,
                "hardware": {"node": text, "cpu": text, "cpus": 2, "gpus": []},
                "command": f"search.py --out {text}",
                "started_at": "2026-11-21T19:30:48.430465+00:00",
                "slots": {"count": 2},
                "search_seconds": 38.7,
            }
        ],
        "identity": {
            "settings": {"dataset": text, "noise": list(levels)},
            "space": {"name": text},
            "fingerprints": dict.fromkeys(levels, "a" * 64),
        },
    }
    return RunJson.model_validate(content)


def _config(trial: int) -> dict[str, Any]:
    return {"smooth_rate": RATES[trial], "warmup_epochs": _WARMUPS[trial], "lr": _LRS[trial]}


def _choice(level: int, trial: int, has_test: bool, confirmed: bool) -> Choice:
    test = accuracy(level, trial, "test")
    mean = sample_mean([test - 0.004, test, test + 0.003]) if confirmed else sample_mean([test])
    return Choice(
        arm=arm_of(RATES[trial]),
        config=_config(trial),
        best_epoch=5,
        trial_id=f"t{trial}",
        warmup_lr=0.01,
        num_seeds=3 if confirmed else 0,
        val_accuracy=accuracy(level, trial, "val"),
        test=mean if has_test else None,
    )


def _gap() -> SampleMean:
    return sample_mean([0.004, 0.006, 0.011])


def _verdict(level: int, name: str, has_test: bool, confirmed: bool) -> Verdict:
    known = confirmed and has_test
    ce = _choice(level, 3, has_test, confirmed)
    return Verdict(
        noise_level=name,
        noise_rate=0.1 + 0.1 * level,
        estimated_noise_rate=None,
        finding="no_proven_difference" if known else "not_confirmed",
        reason=None if known else "no_fresh_seeds" if has_test else "no_test_set",
        use=ce,
        ce=ce,
        rate=_choice(level, 1, has_test, confirmed),
        difference=_gap() if known else None,
        detectable=0.009 if known else None,
        sign_flip_p=0.5 if known else None,
        search_difference=PairedDifference(0.012, 0.004, 400),
        doubts=("few_seeds", "at_the_edge"),
    )


def _arm(level: int, trial: int, has_test: bool) -> ArmSummary:
    val, test = accuracy(level, trial, "val"), accuracy(level, trial, "test") if has_test else None
    return ArmSummary(
        arm=arm_of(RATES[trial]),
        num_trials=10,
        num_completed=5,
        trial_id=f"t{trial}",
        config=_config(trial),
        best_epoch=5,
        epochs=EPOCHS,
        val_accuracy=val,
        test_accuracy_at_best=test,
        last_val_accuracy=val - 0.01,
        last_test_accuracy=None if test is None else test - 0.02,
    )


def _summary(level: int, name: str, has_test: bool) -> LevelSummary:
    return LevelSummary(
        noise_level=name,
        num_classes=2,
        noise_rate=0.1 + 0.1 * level,
        noise_cancelling_rate=-1.0 - level,
        statuses={"completed": 5, "diverged": 2},
        arms={arm: _arm(level, trial, has_test) for arm, trial in (("ce", 3), ("positive", 5), ("negative", 1))},
        used="ce",
    )


def _confirmation(level: int, name: str, has_test: bool) -> LevelConfirmation:
    def configuration(trial: int) -> ConfirmedConfiguration:
        test = [accuracy(level, trial, "test") + shift for shift in (-0.004, 0.0, 0.003)]
        return ConfirmedConfiguration(
            arm=arm_of(RATES[trial]),
            config=_config(trial),
            seeds=(1, 2, 3),
            num_diverged=0,
            validation=sample_mean([accuracy(level, trial, "val") + shift for shift in (-0.002, 0.0, 0.002)]),
            test_at_best=sample_mean(test) if has_test else None,
            test_at_last=sample_mean([v - 0.01 for v in test]) if has_test else None,
        )

    comparison = None
    if has_test:
        comparison = PairedComparison(
            _gap(), 0.25, 0.25, t_p=0.06, holm_p=0.5, holm_t_p=0.12, proven=False,
            detectable=0.009,
        )  # fmt: skip
    return LevelConfirmation(
        name, (configuration(3), configuration(5), configuration(1)), 0, 2, (None, comparison, comparison), used=0
    )


def _curve(level: int, name: str, has_test: bool, text: str) -> RateCurve:
    points = [
        RatePoint(
            trial_id=f"{text} {i}",
            arm=arm_of(r),
            smooth_rate=r,
            warmup_epochs=_WARMUPS[i],
            lr=_LRS[i],
            val_accuracy=accuracy(level, i, "val"),
            test_accuracy=accuracy(level, i, "test") if has_test else None,
        )
        for i, r in enumerate(RATES)
    ]
    rates = tuple(np.linspace(-4.0, 0.6, 20).tolist())

    def smooth(base: float) -> SmoothedCurve:
        mean = tuple(base + 0.005 * math.cos(r) for r in rates)
        return SmoothedCurve(rates, mean, tuple(v - 0.004 for v in mean), tuple(v + 0.004 for v in mean))

    return RateCurve(name, -1.0 - level, tuple(points), 3, smooth(0.58), smooth(0.93) if has_test else None)


def _learning(level: int, name: str, has_test: bool, text: str) -> LevelCurves:
    epochs = tuple(range(1, EPOCHS + 1))

    def curve(trial: int, role: Any) -> LearningCurve:
        rise = [0.6 + 0.04 * e - 0.004 * max(0, e - 5) ** 2 + 0.003 * trial for e in epochs]
        return LearningCurve(
            trial_id=f"{text} {trial}",
            role=role,
            arm=arm_of(RATES[trial]),
            smooth_rate=RATES[trial],
            warmup_epochs=_WARMUPS[trial],
            lr=_LRS[trial],
            status="completed",
            best_epoch=5,
            epochs=epochs,
            train_accuracy=tuple(0.5 + 0.03 * e + 0.002 * trial for e in epochs),
            val_accuracy=tuple(v - 0.15 for v in rise),
            test_accuracy=tuple(rise) if has_test else (None,) * EPOCHS,
        )

    roles = ((3, "selected"), (5, "selected"), (1, "selected"), (4, "default_ce"), (0, "other"), (2, "other"))
    return LevelCurves(name, tuple(curve(trial, role) for trial, role in roles), 20)


def _interaction(level: int, name: str, setting: Any, text: str) -> Interaction:
    values = _LRS if setting == "lr" else _WARMUPS
    statuses = ("completed",) * 5 + ("diverged",) * 2
    points = tuple(
        InteractionPoint(f"{text} {i}", r, float(values[i]), accuracy(level, i, "val"), statuses[i])
        for i, r in enumerate(RATES)
    )
    edges = (0.0001, 0.001, 0.01, 0.1) if setting == "lr" else (-0.5, 2.5, 4.5, 6.5)
    best = ((None, 0.55, 0.56), (0.57, None, 0.58), (0.59, 0.6, None))
    return Interaction(name, setting, points, (-8.0, -1.0, 0.0, 0.8), edges, best, ((0, 1, 2), (1, 0, 1), (1, 1, 0)))


def _allocation(levels: tuple[str, ...], text: str) -> Allocation:
    spans = tuple(
        TrialSpan(
            trial_id=f"{text} {k} {i}",
            stage="search" if i < 5 else "confirm",
            noise_level=level,
            arm=arm_of(r),
            smooth_rate=r,
            status="completed",
            node=text,
            device=text,
            slot=i % 2,
            start_seconds=10.0 * (len(RATES) * k + i // 2 * 2),
            seconds=18.0 - i,
            epochs=EPOCHS,
            epochs_reused=2,
        )
        for k, level in enumerate(levels)
        for i, r in enumerate(RATES)
    )
    groups = tuple(GroupCost("search", level, "ce", 2, 60, 20, 12, 33.3) for level in levels)
    return Allocation(datetime(2026, 1, 1, tzinfo=UTC), 150.0, 2, 0.83, spans, groups)


def make_comparison(names: tuple[str, ...], levels: tuple[str, ...], text: str = "plain") -> Analysis:
    """Several runs and how they compare."""

    def at(index: int, level: int) -> RunAtLevel:
        return RunAtLevel(
            run=names[index],
            num_trials=20,
            train_seconds=12.5,
            verdict=_verdict(level, levels[level], has_test=True, confirmed=index == 0),
            val_accuracy=accuracy(level, index, "val"),
            test_accuracy_at_best=accuracy(level, index, "test"),
            against_first=None if index == 0 else PairedDifference(0.01, 0.004, 800),
        )

    comparison = Comparison(
        names,
        (("seed", tuple(range(len(names)))), (text, (text,) * len(names))),
        tuple(LevelComparison(level, tuple(at(i, k) for i in range(len(names)))) for k, level in enumerate(levels)),
    )
    return Analysis(tuple(make_run(levels, name=name, text=text) for name in names), comparison)
