"""Hung trials and missing slots, with a clock of the test's and without Ray."""

from types import SimpleNamespace
from typing import Any

import pytest

from nls_tune.tune import attendant as module
from nls_tune.tune.attendant import Attendant
from nls_tune.tune.cluster import Slots
from nls_tune.tune.lost import LostTrials


class Attended:
    def __init__(self, monkeypatch, slots: Slots = Slots(2, 1, 0.0), **more: Any) -> None:  # noqa: B008 - frozen
        self.now, self.said, self.ended, self.lost = 100.0, [], [], LostTrials()
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        end = lambda trial: self.ended.append(trial.trial_id)  # noqa: E731
        self.attendant = Attendant(self.lost, slots, more.pop("timeout", None), self.said.append, end=end, **more)
        self.trials: list[SimpleNamespace] = []

    def trial(self, name: str, status: str = "RUNNING") -> SimpleNamespace:
        trial = SimpleNamespace(trial_id=name, status=status)
        self.trials.append(trial)
        if status == "RUNNING":
            self.attendant.on_trial_start(1, self.trials, trial)
        return trial

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.attendant.on_step_end(1, self.trials)


def test_a_trial_without_reports_is_ended_and_counts_as_lost(monkeypatch):
    attended = Attended(monkeypatch, timeout=120.0)
    attended.trial("hangs")
    works = attended.trial("works")
    for _ in range(2):
        attended.wait(61)
        attended.attendant.on_trial_result(1, attended.trials, works, {})
    assert attended.ended == ["hangs"]
    loss = attended.lost.judge("hangs", "whatever", 2)
    assert loss is not None
    assert loss.reason == "it has reported nothing for 2 min 0 s"
    attended.wait(121)
    assert attended.ended == ["hangs", "works", "hangs"] or attended.ended == ["hangs", "hangs", "works"]


def test_by_default_trials_may_take_any_time(monkeypatch):
    attended = Attended(monkeypatch)
    attended.trial("slow")
    attended.wait(100_000)
    assert (attended.ended, attended.said) == ([], [])


@pytest.mark.parametrize(
    ("slots", "free", "everything", "words"),
    [
        (
            Slots(2, 2, 0.5),
            {"GPU": 0.25},
            {"CPU": 8, "GPU": 2},
            ("2 CPUs and 0.5 GPUs", "0 CPUs and 0.25 GPUs of 8 CPUs and 2 GPUs"),
        ),
        (Slots(2, 1, 0.0), {"CPU": 0.0}, {"CPU": 4}, ("a trial asks for 1 CPU,", "are 0 CPUs of 4 CPUs")),
    ],
)
def test_a_busy_cluster_is_said_after_a_minute_and_not_every_minute(monkeypatch, slots, free, everything, words):
    attended = Attended(monkeypatch, slots, free=lambda: (free, everything))
    waiting = attended.trial("waits", "PENDING")
    attended.wait(59)
    assert attended.said == []
    attended.wait(300)
    (line,) = attended.said
    assert "no slot has been free for 1 min 0 s" in line
    for part in words:
        assert part in line
    attended.wait(600)
    assert len(attended.said) == 2
    waiting.status = "RUNNING"
    attended.wait(1000)
    waiting.status = "PENDING"
    attended.wait(59)
    assert len(attended.said) == 2
