import pytest

from nls_tune.runs import time_budget as budgets
from nls_tune.runs.time_budget import TimeBudget


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time that it is: the one entry of a list."""
    now = [100.0]
    monkeypatch.setattr(budgets.time, "monotonic", lambda: now[0])
    return now


def test_it_counts_from_start_to_stop_on_top_of_earlier_sessions(clock):
    saved: list[float] = []
    budget = TimeBudget(60.0, 20.0, saved.append)
    clock[0] += 1000  # not started: planning and Ray's start are not the search
    assert (budget.left(), budget.used_up()) == (40.0, False)
    budget.start()
    clock[0] += 15
    assert budget.left() == 25.0
    budget.stop()
    clock[0] += 1000
    assert (budget.left(), saved) == (25.0, [15.0])


def test_it_is_used_up_and_never_below_0(clock):
    budget = TimeBudget(60.0, 20.0)
    budget.start()
    clock[0] += 40
    assert (budget.left(), budget.check()) == (0.0, True)
    clock[0] += 5
    assert (budget.left(), budget.used_up()) == (0.0, True)


def test_the_time_is_saved_now_and_then_for_the_case_of_a_kill(clock):
    saved: list[float] = []
    budget = TimeBudget(save=saved.append)
    budget.start()
    for _ in range(30):
        clock[0] += 1
        assert not budget.check()
    assert saved == [10.0, 20.0, 30.0]


def test_without_a_limit_it_only_counts_and_a_search_that_never_began_saves_nothing(clock):
    saved: list[float] = []
    budget = TimeBudget(None, 1e9, saved.append)
    budget.stop()
    budget.start()
    assert (budget.left(), budget.used_up(), saved) == (None, False, [])
