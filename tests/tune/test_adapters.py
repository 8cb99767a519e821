"""The searcher and the scheduler that Tune calls, on an allocator, without starting Ray."""

import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from nls_tune.allocation.allocator import Suggestion
from nls_tune.tune.adapters import AllocationScheduler, AllocationSearcher, ListSearcher, Reading, WorkerSavingScheduler

METRIC = "accuracy"


@dataclass
class FakeAllocator:
    """Gives out what it is told to, and notes what it is told."""

    suggestions: list[Suggestion] = field(default_factory=list)
    goes_on: bool = True
    told: list[tuple] = field(default_factory=list)
    reported: list[tuple] = field(default_factory=list)
    unpicklable: Any = field(default_factory=lambda: lambda: None)

    def ask(self) -> Suggestion | None:
        return self.suggestions.pop(0) if self.suggestions else None

    def tell(self, *what) -> None:
        self.told.append(what)

    def report(self, *what) -> bool:
        self.reported.append(what)
        return self.goes_on


def read(result: Mapping[str, Any]) -> Reading:
    outcome = "completed" if result.get("finished") else "stopped"
    return Reading(result["epoch"], result[METRIC], result.get("counts", True), result["seconds"], outcome)


@pytest.fixture
def allocator() -> FakeAllocator:
    return FakeAllocator([Suggestion(7, "a/ce", {"lr": 0.1}), Suggestion(8, "a/negative", {"lr": 0.2})])


@pytest.fixture
def searcher(allocator) -> AllocationSearcher:
    return AllocationSearcher(allocator, lambda s: {"group": s.group, **s.config}, read, metric=METRIC)


def report(accuracy: float, **more: Any) -> dict[str, Any]:
    return {METRIC: accuracy, "seconds": 3.0, "epoch": 2, **more}


class TestSearcher:
    def test_suggestions_become_configurations_until_there_are_none(self, searcher):
        assert searcher.suggest("t1") == {"group": "a/ce", "lr": 0.1}
        assert searcher.suggest("t2") == {"group": "a/negative", "lr": 0.2}
        assert searcher.suggest("t3") is None  # as long as one runs: it may lose its process
        assert searcher.numbers == {"t1": 7, "t2": 8}
        for name in ("t1", "t2"):
            searcher.on_trial_complete(name, report(0.75))
        assert searcher.suggest("t3") == Searcher.FINISHED

    @pytest.mark.parametrize(
        ("result", "error", "told"),
        [
            (report(0.75, finished=True), False, (8, "completed", 0.75, 3.0)),
            (report(0.5), False, (8, "stopped", 0.5, 3.0)),
            (report(math.inf, finished=True), False, (8, "diverged", math.inf, 3.0)),
            (report(math.nan, finished=True), False, (8, "diverged", pytest.approx(math.nan, nan_ok=True), 3.0)),
            (report(0.75, finished=True), True, (8, "failed", None)),
            (None, False, (8, "failed", None)),
            ({}, False, (8, "failed", None)),
            ({"epoch": 1}, False, (8, "failed", None)),
        ],
    )
    def test_how_a_trial_ended_is_told(self, searcher, allocator, result, error, told):
        searcher.suggest("t1")
        searcher.suggest("t2")
        searcher.on_trial_complete("t2", result, error=error)
        assert allocator.told == [told]

    def test_a_trial_of_somebody_else_is_left_alone(self, searcher, allocator):
        searcher.on_trial_complete("unknown", report(0.75))
        assert allocator.told == []

    def test_when_it_is_over_no_trial_begins(self, searcher, allocator):
        searcher.suggest("t1")
        searcher.is_over = lambda: True
        assert searcher.suggest("t2") is None
        searcher.on_trial_complete("t1", report(0.75))
        assert searcher.suggest("t2") == Searcher.FINISHED
        assert len(allocator.suggestions) == 1

    @pytest.mark.parametrize(
        ("metric", "mode", "accepted"),
        [(METRIC, "max", True), (None, None, True), ("loss", "max", False), (METRIC, "min", False)],
    )
    def test_only_its_own_metric_is_accepted(self, searcher, metric, mode, accepted):
        assert searcher.set_search_properties(metric, mode, {}) is accepted


class TestScheduler:
    @pytest.fixture
    def scheduler(self, searcher) -> AllocationScheduler:
        searcher.suggest("t1")
        return AllocationScheduler(searcher)

    @pytest.mark.parametrize("counts", [True, False])
    @pytest.mark.parametrize("over", [True, False])
    @pytest.mark.parametrize("goes_on", [True, False])
    def test_the_allocator_decides_unless_it_is_over_and_is_told_what_counts(
        self, scheduler, searcher, allocator, goes_on, over, counts
    ):
        allocator.goes_on, searcher.is_over = goes_on, lambda: over
        decision = scheduler.on_trial_result(None, SimpleNamespace(trial_id="t1"), report(0.75, counts=counts))
        assert decision == (TrialScheduler.CONTINUE if goes_on and not over else TrialScheduler.STOP)
        assert allocator.reported == [(7, 2, 0.75 if counts else None, 3.0)]

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_value_that_is_not_finite_stops_the_trial_unjudged(self, scheduler, allocator, value):
        decision = scheduler.on_trial_result(None, SimpleNamespace(trial_id="t1"), report(value))
        assert (decision, allocator.reported) == (TrialScheduler.STOP, [])


@dataclass(eq=False)
class FakeTrial:
    number: int
    status: str


class FakeController:
    """The part of Tune's controller that a scheduler asks."""

    def __init__(self, *statuses: str) -> None:
        self._trials = [FakeTrial(number, status) for number, status in enumerate(statuses)]

    def get_trials(self):
        return self._trials

    def get_live_trials(self):
        return {trial for trial in self._trials if trial.status not in ("TERMINATED", "ERROR")}


@pytest.mark.parametrize(
    ("statuses", "numbers"),
    [
        (["TERMINATED", "PENDING", "RUNNING", "PENDING", "RUNNING"], [1, 3, None, None]),
        (["PENDING", "TERMINATED"], [0, None]),
        (["RUNNING", "TERMINATED", "ERROR"], [None]),
        ([], [None]),
    ],
)
def test_a_trial_that_waits_is_named_once(statuses, numbers):
    """Named again, it would take the worker of another one, and its own would be thrown away."""
    scheduler, controller = WorkerSavingScheduler(), FakeController(*statuses)
    found = [scheduler.choose_trial_to_run(controller) for _ in numbers]
    assert [None if trial is None else trial.number for trial in found] == numbers


def test_a_trial_that_ran_and_failed_is_named_again():
    scheduler, controller = WorkerSavingScheduler(), FakeController("PENDING")
    (trial,) = controller.get_trials()
    for status, expected in (("PENDING", trial), ("PENDING", None), ("RUNNING", None), ("PENDING", trial)):
        trial.status = status
        assert scheduler.choose_trial_to_run(controller) is expected


def test_tune_can_pickle_both_whatever_they_hold(searcher):
    """Tune pickles them when it starts; nothing of it is ever read."""
    scheduler = AllocationScheduler(searcher)
    scheduler.choose_trial_to_run(FakeController("PENDING"))
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(searcher.allocator.unpicklable)
    for adapter in (searcher, scheduler):
        assert len(pickle.dumps(adapter)) < 500


def test_a_list_is_run_in_its_order_as_long_as_trials_may_start():
    may_start = [True, True, False, True]
    searcher = ListSearcher([{"n": 1}, {"n": 2}, {"n": 3}], metric=METRIC, may_start=lambda: may_start.pop(0))
    assert [searcher.suggest(f"{i}") for i in range(4)] == [{"n": 1}, {"n": 2}, Searcher.FINISHED, {"n": 3}]
    assert ListSearcher([], metric=METRIC).suggest("t") == Searcher.FINISHED


def test_nothing_is_saved(searcher, tmp_path):
    searcher.save(str(tmp_path / "state"))
    assert list(tmp_path.iterdir()) == []
