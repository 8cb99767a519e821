"""A Tune searcher and a Tune scheduler on one ``Allocator``.

They know nothing of what is tuned: ``to_config`` turns a suggestion into a trial's configuration, and reports
name their clock and their value by key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from nls_tune.allocation.allocator import Allocator, Outcome, Suggestion


class AllocationSearcher(Searcher):
    """Asks the allocator for trials and tells it how they ended.

    Args:
        allocator: Shared with the scheduler.
        to_config: Makes the configuration of a trial from a suggestion.
        metric: Key of the objective in the reports, larger is better.
        outcome_of: Says from the last report how a trial ended.
        seconds_key: Key of the device seconds in the reports.
        is_over: Asked before every trial and at every report: True ends the experiment, no trial starts any more
            and the scheduler stops running ones at their next report.
        is_draining: Asked before every trial: True starts none any more, and lets running ones go on to their end.
    """

    def __init__(
        self,
        allocator: Allocator[Any],
        to_config: Callable[[Suggestion[Any]], dict[str, Any]],
        *,
        metric: str,
        outcome_of: Callable[[dict[str, Any]], Outcome],
        seconds_key: str = "time_total_s",
        is_over: Callable[[], bool] = lambda: False,
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(metric=metric, mode="max")
        self.is_over = is_over
        self._is_draining = is_draining
        self.allocator = allocator
        self.numbers: dict[str, int] = {}
        self._to_config = to_config
        self._outcome_of = outcome_of
        self._seconds_key = seconds_key

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: object
    ) -> bool:
        """Accept the metric of TuneConfig; the space is the allocator's, ``param_space`` stays empty."""
        return metric in (None, self.metric) and mode in (None, "max")

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the next trial's configuration, or FINISHED."""
        suggestion = None if self.is_over() or self._is_draining() else self.allocator.ask()
        if suggestion is None:
            return cast("dict[str, Any]", Searcher.FINISHED)  # Ray's own annotation leaves the marker out
        self.numbers[trial_id] = suggestion.number
        return self._to_config(suggestion)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the allocator; a trial that failed or never reported is told as failed."""
        number = self.numbers.get(trial_id)
        if number is None:
            return
        if error or not result or self.metric not in result:
            self.allocator.tell(number, "failed", None)
            return
        value = float(result[self.metric])
        outcome: Outcome = self._outcome_of(result) if math.isfinite(value) else "diverged"
        self.allocator.tell(number, outcome, value, float(result[self._seconds_key]))

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: a run is resumed from its results, never from Tune's state."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing, see ``save``."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher when it starts, and never needs that copy here."""
        return {}


class ListSearcher(Searcher):
    """Runs a fixed list of trials in its order.

    Args:
        configs: One a trial.
        metric: Key of the objective in the reports; Tune asks for one.
        is_draining: Asked before every trial: True starts none any more.
    """

    def __init__(
        self, configs: Sequence[dict[str, Any]], *, metric: str, is_draining: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(metric=metric, mode="max")
        self._configs = list(configs)
        self._is_draining = is_draining

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the next trial's configuration, or FINISHED."""
        return (
            self._configs.pop(0)
            if self._configs and not self._is_draining()
            else cast("dict[str, Any]", Searcher.FINISHED)
        )

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing follows from how a trial ended."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing, see ``AllocationSearcher``."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing, see ``AllocationSearcher``."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, see ``AllocationSearcher``."""
        return {}


class WorkerSavingScheduler(FIFOScheduler):
    """Lets every trial run to its end, and no worker start in vain.

    The worker of a trial that ended goes to the trial that Tune is told to run next. By Tune's own order that is the
    oldest that waits: its own worker, that may be just importing torch, is then given up, and its slot is empty until
    that one has started and another one in its place. Here it is the oldest that was not named before: it has none.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Ray's
        self._named: set[Trial] = set()

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the next trial to run; None if all that wait have a worker that is starting, or none waits."""
        waiting = {trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING}
        self._named &= waiting  # one that failed and waits again may be named again
        if waiting == self._named:
            return None  # as in most steps: the list of all trials need not be searched
        found = next(trial for trial in tune_controller.get_trials() if trial in waiting - self._named)
        self._named.add(found)
        return cast("Trial", found)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its scheduler when it starts, and never needs that copy here."""
        return {}


class AllocationScheduler(WorkerSavingScheduler):
    """Lets the allocator judge every report of a trial.

    Args:
        searcher: Knows which suggestion a trial is.
        clock_key: Key of the clock that rungs count in.
        counts: Says whether a report has an objective yet; a trial without one is not judged.
        seconds_key: Key of the device seconds in the reports.
    """

    def __init__(
        self,
        searcher: AllocationSearcher,
        *,
        clock_key: str,
        counts: Callable[[dict[str, Any]], bool] = lambda result: True,
        seconds_key: str = "time_total_s",
    ) -> None:
        super().__init__()
        self._searcher = searcher
        self._clock_key = clock_key
        self._counts = counts
        self._seconds_key = seconds_key

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """Return CONTINUE or STOP."""
        value = float(result[self._searcher.metric]) if self._counts(result) else None
        if value is not None and not math.isfinite(value):
            return str(TrialScheduler.STOP)
        goes_on = self._searcher.allocator.report(
            self._searcher.numbers[trial.trial_id],
            int(result[self._clock_key]),
            value,
            float(result[self._seconds_key]),
        )
        # Judged in any case: what a rung has seen counts for the trials that a later session runs.
        over = self._searcher.is_over()
        return str(TrialScheduler.CONTINUE if goes_on and not over else TrialScheduler.STOP)
