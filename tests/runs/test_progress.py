import pytest

from nls_tune.runs.progress import BestCurve, LevelProgress, RunningTrial, SearchProgress
from nls_tune.runs.time_budget import TimeBudget


def make(slots: int = 1, **totals: int) -> SearchProgress:
    return SearchProgress({name: LevelProgress(total) for name, total in totals.items()}, slots, epochs=10)


def running(level: str, name: str) -> RunningTrial:
    return RunningTrial(name, level, "ce", 0.0, epochs=10)


def run_trial(progress: SearchProgress, level: str, name: str, *, epochs: int, status: str = "completed") -> None:
    progress.started(running(level, name))
    progress.reported(name, epochs, 2.0 * epochs)
    progress.ended(level, "ce", name, status, 0.5, adopted=False)


def test_counts_of_a_level():
    progress = make(a=3, b=2)
    run_trial(progress, "a", "1", epochs=10)
    run_trial(progress, "a", "2", epochs=4, status="stopped")
    progress.started(running("b", "3"))
    assert (progress.num_total, progress.num_ended) == (5, 2)
    level = progress.levels["a"]
    assert (level.num_ended, level.running, dict(level.ended)) == (2, 0, {"completed": 1, "stopped": 1})
    assert progress.levels["b"].running == 1


def test_the_best_is_that_of_completed_trials_by_arm():
    progress = make(a=9)
    for i, (status, value) in enumerate([("completed", 0.6), ("completed", 0.5), ("stopped", 0.9)]):
        progress.ended("a", "ce", str(i), status, value, adopted=True)
    progress.ended("a", "negative", "3", "completed", None, adopted=True)
    assert progress.levels["a"].best == {"ce": 0.6}


def test_there_is_no_estimate_before_an_epoch_was_measured():
    progress = make(a=4)
    progress.started(running("a", "9"))
    progress.ended("a", "ce", "1", "completed", 0.5, adopted=True)  # it was not running, and cost nothing now
    assert (progress.levels["a"].running, progress.num_ended, progress.seconds_left()) == (1, 1, None)


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_the_estimate_is_epochs_to_go_over_the_slots(slots):
    progress = make(slots, a=6)
    progress.started(running("a", "1"))
    progress.reported("1", 4, 8.0)
    # Six epochs of this trial and five trials of ten, two seconds each.
    assert progress.seconds_left() == pytest.approx((6 + 50) * 2 / slots)


def test_trials_to_come_are_as_long_as_those_that_ended():
    progress = make(a=6)
    run_trial(progress, "a", "1", epochs=10)
    run_trial(progress, "a", "2", epochs=2, status="stopped")
    assert progress.seconds_left() == pytest.approx(4 * 6 * 2)
    progress.epochs_after = 10
    assert progress.seconds_left() == pytest.approx((4 * 6 + 10) * 2)
    progress.epochs_after = 0
    for name in "3456":
        run_trial(progress, "a", name, epochs=10)
    assert progress.seconds_left() == 0


def test_a_trial_that_failed_at_once_does_not_make_the_rest_free():
    progress = make(a=10)
    progress.started(running("a", "1"))
    progress.ended("a", "ce", "1", "failed", None, adopted=False)
    progress.started(running("a", "2"))
    progress.reported("2", 1, 2.0)
    assert progress.seconds_left() > 0


def test_the_estimate_is_at_most_what_is_left_of_the_time_budget():
    progress = make(a=10)
    run_trial(progress, "a", "1", epochs=10)
    assert progress.seconds_left() == 9 * 20
    progress.started(running("a", "9"))  # it has not reported yet: all of it is still to be trained
    assert progress.seconds_left() == 9 * 20
    progress.budget = TimeBudget(100.0, 40.0)
    assert progress.seconds_left() == 60
    progress.budget = TimeBudget(1000.0)
    assert progress.seconds_left() == 9 * 20


def test_the_curve_is_that_of_the_best_completed_trial_adopted_or_not():
    progress = make(a=9)
    progress.ended("a", "negative", "1", "completed", 0.7, adopted=True, smooth_rate=-4.0, accuracies=[0.5, 0.7])
    for name, value, status in (("2", 0.9, "stopped"), ("3", 0.6, "completed")):
        progress.started(running("a", name))
        progress.reported(name, 2, 1.0, [0.1, value])
        progress.ended("a", "ce", name, status, value, adopted=False)
    assert progress.levels["a"].curve == BestCurve("negative", -4.0, 0.7, (0.5, 0.7))
    progress.started(running("a", "4"))
    progress.reported("4", 3, 1.0, [0.1, 0.2, 0.8])
    progress.ended("a", "ce", "4", "completed", 0.8, adopted=False)
    assert progress.levels["a"].curve == BestCurve("ce", 0.0, 0.8, (0.1, 0.2, 0.8))


def test_a_running_trial_keeps_its_slot_and_a_new_one_takes_the_first_that_is_free():
    progress = make(slots=3, a=9)
    for name in "123":
        progress.started(running("a", name))
    progress.ended("a", "ce", "2", "stopped", None, adopted=False)
    progress.started(running("a", "4"))
    assert {name: trial.slot for name, trial in progress.running.items()} == {"1": 0, "3": 2, "4": 1}
