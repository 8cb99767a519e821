from __future__ import annotations

import pytest

from nls_tune.errors import InputError
from nls_tune.noise import parse_noise_levels
from nls_tune.plan.settings import parse_duration
from nls_tune.plan.weights import parse_level_weights
from nls_tune.runs import time_budget as budgets
from nls_tune.runs.time_budget import TimeBudget

LEVELS = parse_noise_levels("symmetric:0.4,human:worst,clean")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400), ("45", 45), (" .5 M ", 30), ("2.s", 2)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "0", "0m", "-5", "-5m", "1d", "1h30m", "nan", "inf", "1e3", "1,5h", "٣m"])
def test_what_is_no_duration(text):
    with pytest.raises(InputError, match=r"above 0 and be written like 90s, 30m, 1\.5h") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


class TestTimeBudget:
    @pytest.fixture
    def clock(self, monkeypatch) -> list[float]:
        """The time that it is: the one entry of a list."""
        now = [100.0]
        monkeypatch.setattr(budgets.time, "monotonic", lambda: now[0])
        return now

    def test_it_counts_from_start_to_stop_on_top_of_earlier_sessions(self, clock):
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

    def test_it_is_used_up_and_never_below_0(self, clock):
        budget = TimeBudget(60.0, 20.0)
        budget.start()
        clock[0] += 40
        assert (budget.left(), budget.check()) == (0.0, True)
        clock[0] += 5
        assert (budget.left(), budget.used_up()) == (0.0, True)

    def test_the_time_is_saved_now_and_then_for_the_case_of_a_kill(self, clock):
        saved: list[float] = []
        budget = TimeBudget(save=saved.append)
        budget.start()
        for _ in range(30):
            clock[0] += 1
            assert not budget.check()
        assert saved == [10.0, 20.0, 30.0]

    def test_without_a_limit_it_only_counts(self, clock):
        budget = TimeBudget(None, 1e9)
        budget.start()
        assert (budget.left(), budget.used_up()) == (None, False)

    def test_a_search_that_never_began_saves_nothing(self, clock):
        saved: list[float] = []
        TimeBudget(1.0, 0.0, saved.append).stop()
        assert saved == []


@pytest.mark.parametrize(
    ("texts", "weights"),
    [
        ((), {}),
        (("symmetric:0.40=2",), {"symmetric:0.4": 2}),
        (("clean=0.5, Human:worse=3",), {"human:worst": 3, "clean": 0.5}),
        (("clean=1", "symmetric:0.4=1e2"), {"symmetric:0.4": 100, "clean": 1}),
    ],
)
def test_weights_of_levels_in_any_spelling(texts, weights):
    found = parse_level_weights(texts, LEVELS)
    assert found == weights
    assert list(found) == list(weights)  # in the order of the levels


def test_the_file_of_a_matrix_may_have_an_equals_sign():
    assert parse_level_weights(("matrix:a=b.csv=2",), parse_noise_levels("matrix:a=b.csv")) == {"matrix:a=b.csv": 2}
