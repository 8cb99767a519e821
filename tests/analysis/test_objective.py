"""What another metric than accuracy selects: a constant prediction of imbalanced classes wins by accuracy alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.confirmation import confirmations
from nls_tune.analysis.importances import importances
from nls_tune.analysis.interactions import interactions
from nls_tune.analysis.learned import effective_samples, is_rising
from nls_tune.analysis.learning_curves import learning_curves
from nls_tune.analysis.level_summaries import level_summaries
from nls_tune.analysis.per_class import per_class
from nls_tune.analysis.rate_curves import rate_curves
from nls_tune.analysis.selection import select
from nls_tune.analysis.verdicts import findings
from nls_tune.metrics import METRICS, Metric
from nls_tune.runs.schemas import epoch_schema, objective_columns

LEVEL = "given"
#: 90 samples of one class and 10 of the other: what is predicted, and how many of each class are right.
CONSTANT = ((90, 10), (100, 0), (90, 0))
LEARNED = ((90, 10), (82, 18), (80, 8))
CONSTANT_SCORES = {"accuracy": 0.9, "balanced_accuracy": 0.5, "macro_f1": 0.9 / 1.9}
LEARNED_SCORES = {"accuracy": 0.88, "balanced_accuracy": (80 / 90 + 0.8) / 2, "macro_f1": (160 / 172 + 16 / 28) / 2}


def row(settings: dict[str, Any], scores: dict[str, float], counts: Any, **changes: Any) -> dict[str, Any]:
    """A trial with the same metrics on validation and test."""
    of_metrics: dict[str, Any] = {}
    for metric, value in scores.items():
        columns = objective_columns(metric)
        names = (columns.best_val, columns.test_at_best, columns.last_val, columns.last_test)
        of_metrics |= dict.fromkeys(names, value)
    flat = [n for part in counts for n in part]
    kept = {"noise_level": LEVEL, "noise_rate": None, "val_counts_at_best": flat, "test_counts_at_best": flat}
    right = np.arange(100) < sum(counts[2])
    return trial_row(settings, val_correct=right, test_correct=right, **{**kept, **of_metrics, **changes})


def constant(**changes: Any) -> dict[str, Any]:
    return row({"smooth_rate": 0.0, "lr": 0.1}, CONSTANT_SCORES, CONSTANT, **changes)


def learned(rate: float = 0.0, **changes: Any) -> dict[str, Any]:
    return row({"smooth_rate": rate, "lr": 0.01}, LEARNED_SCORES, LEARNED, minute=1, **changes)


@pytest.mark.parametrize("metric", METRICS)
def test_a_constant_prediction_is_selected_by_accuracy_alone(metric):
    trials = trials_frame([constant(), learned()])
    found = select(trials, metric)
    assert found["lr"] == (0.1 if metric == "accuracy" else 0.01)
    scores = CONSTANT_SCORES if metric == "accuracy" else LEARNED_SCORES
    (level,) = level_summaries(trials, metric=metric)
    ce = level.arms["ce"]
    assert (ce.val_accuracy, ce.test_accuracy_at_best, ce.last_test_accuracy) == (scores[metric],) * 3
    (verdict,) = findings(trials, metric=metric).verdicts
    assert verdict.metric == metric
    if metric == "accuracy":
        assert (verdict.finding, verdict.use.config["lr"]) == ("not_confirmed", 0.1)
    else:
        assert (verdict.use.config["lr"], verdict.use.val_accuracy) == (0.01, scores[metric])
        assert "noisy_metric" in verdict.doubts
        assert "asymmetric_noise" not in verdict.doubts


def test_a_constant_prediction_alone_is_within_the_error_of_guessing():
    alone = trials_frame([constant()])
    (verdict,) = findings(alone, metric="balanced_accuracy").verdicts
    assert (verdict.finding, verdict.reason) == ("not_trained_enough", "ce_at_chance")
    # Ten samples of a class: an accuracy of its recall that says little.
    unsure = trials_frame(
        [constant(best_val_balanced_accuracy=0.5 + 2.9 * math.sqrt(0.25 / effective_samples([90, 10])))]
    )
    assert findings(unsure, metric="balanced_accuracy").verdicts[0].reason == "ce_at_chance"


def test_as_many_samples_of_each_class_are_as_many_samples():
    assert effective_samples([50, 50]) == pytest.approx(100)
    rng = np.random.default_rng(0)
    recalls = (rng.binomial(90, 0.5, 20_000) / 90 + rng.binomial(10, 0.5, 20_000) / 10) / 2
    assert recalls.std() == pytest.approx(math.sqrt(0.25 / effective_samples([90, 10, 0])), rel=0.03)


@pytest.mark.parametrize("metric", METRICS)
def test_a_confirmation_compares_the_metric_seed_by_seed(metric):
    columns, rows = objective_columns(metric), []
    gaps = [0.02, 0.03, 0.025, 0.015, 0.02]
    for seed, gap in enumerate(gaps, start=1):
        other = {columns.test_at_best: LEARNED_SCORES[metric] + gap, columns.best_val: 0.95}
        rows += [learned(stage="confirm", seed=seed), learned(-1.0, stage="confirm", seed=seed, **other)]
    (found,) = confirmations(
        trials_frame([{**one, "trial_id": f"{i:016x}"} for i, one in enumerate(rows)]), metric=metric
    )
    comparison = found.comparisons[found.best]
    assert comparison.difference.mean == pytest.approx(np.mean(gaps))
    assert (comparison.test_error is None) == (metric != "accuracy")
    assert found.configurations[found.best].validation.mean == 0.95
    assert found.metric == metric


def test_every_question_looks_at_the_metric():
    rows = []
    for i in range(12):
        value = 0.5 + 0.03 * i
        config = {"smooth_rate": -0.5 * i, "lr": 0.01 * 1.3**i, "warmup_epochs": i % 3}
        scores = {"accuracy": 1 - value, "balanced_accuracy": value, "macro_f1": value / 2}
        rows.append(row(config, scores, LEARNED, minute=i))
    trials = trials_frame(rows)
    metric: Metric = "balanced_accuracy"
    (curve,) = rate_curves(trials, metric=metric)
    assert [point.val_accuracy for point in curve.points] == sorted(trials["best_val_balanced_accuracy"], reverse=True)
    assert {
        one.metric for one in (curve, *interactions(trials, metric=metric), *importances(trials, metric=metric))
    } == {metric}
    assert max(p.val_accuracy for p in interactions(trials, metric=metric)[0].points) == pytest.approx(0.83)
    epochs = pd.DataFrame(
        {"trial_id": name, "epoch": e, "phase": "gls", "lr": 0.1, "arm": "ce", "smooth_rate": 0.0, "diverged": False,
         "noise_level": LEVEL, "train_accuracy": 0.5, "val_accuracy": 0.9, "test_accuracy": 0.9,
         "val_balanced_accuracy": 0.5 + 0.04 * e, "test_balanced_accuracy": 0.6}
        for name in trials["trial_id"] for e in range(1, 9)
    )  # fmt: skip
    (level,) = learning_curves(trials, epochs, metric=metric)
    assert level.curves[0].val_accuracy == pytest.approx([0.5 + 0.04 * e for e in range(1, 9)])
    assert level.curves[0].test_accuracy == (0.6,) * 8
    assert not is_rising(epochs, 2, 1000)
    assert is_rising(epochs, 2, 1000, metric=metric)
    assert {f"val_{metric}", f"test_{metric}"} <= set(epoch_schema().names)


# The classes


@pytest.mark.parametrize("has_test", [True, False])
def test_each_class_is_told_with_the_counts_of_what_to_use(has_test):
    lacking = {} if has_test else {"test_counts_at_best": None}
    trials = trials_frame([constant(**lacking), learned(**lacking)])
    verdicts = findings(trials, metric="macro_f1").verdicts
    (level,) = per_class(trials, verdicts, ["healthy", "ill"])
    assert (level.split, level.num_seeds) == ("test" if has_test else "val", 0)
    healthy, ill = level.classes
    assert (healthy.name, healthy.num_samples, healthy.recall) == ("healthy", 90, 80 / 90)
    assert (ill.num_samples, ill.recall, ill.precision, ill.f1) == (10, 0.8, 8 / 18, 16 / 28)
    (told,) = per_class(trials, findings(trials).verdicts)
    assert [one.name for one in told.classes] == ["0", "1"]
    assert (told.classes[1].recall, told.classes[1].precision, told.classes[1].f1) == (0.0, None, 0.0)


def test_fresh_seeds_are_taken_together():
    fresh = [learned(stage="confirm", seed=seed, trial_id=f"{seed:016x}") for seed in (1, 2)]
    fresh[1]["test_counts_at_best"] = [90, 10, 80, 20, 80, 10]
    trials = trials_frame([learned(), *fresh])
    (level,) = per_class(trials, findings(trials, metric="macro_f1").verdicts)
    assert (level.num_seeds, level.classes[1].num_samples) == (2, 10)
    assert (level.classes[1].recall, level.classes[1].precision) == (18 / 20, 18 / 38)


def test_rows_of_early_versions_have_no_classes():
    trials = trials_frame([learned(test_counts_at_best=None, val_counts_at_best=None)])
    assert per_class(trials, findings(trials).verdicts) == ()
