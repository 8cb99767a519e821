"""What a running search says, trial by trial, where there is no terminal."""

from __future__ import annotations

import io

from rich.console import Console

from nls_tune.budgets import TimeBudget
from nls_tune.progress import LevelProgress, RunningTrial, SearchProgress
from nls_tune.report.live import ProgressView


def line_of(budget: TimeBudget) -> str:
    progress = SearchProgress({"a": LevelProgress(3)}, slots=1, epochs=10, budget=budget)
    progress.started(RunningTrial("t", "a", "ce", 0.0, epochs=10))
    progress.reported("t", 10, 100.0)
    progress.ended("a", "ce", "t", "completed", 0.5, adopted=False)
    text = io.StringIO()
    ProgressView(progress, Console(file=text, width=100)).trial_ended("a trial ended")
    return text.getvalue()


def test_the_time_left_is_estimated():
    assert line_of(TimeBudget()) == "[1/3] a trial ended; about 3 min 20 s left\n"


def test_the_time_budget_is_shown_and_bounds_the_estimate():
    assert line_of(TimeBudget(100.0, 10.0)).endswith("; about 1 min 30 s left, 1 min 30 s of the time budget left\n")
    assert line_of(TimeBudget(1000.0)).endswith("; about 3 min 20 s left, 16 min 40 s of the time budget left\n")
