"""A Tune searcher and a Tune scheduler on one ``Allocator``.

They know nothing of what is tuned: ``to_config`` turns a suggestion into a trial's configuration, and ``read`` says
what a report means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from nls_tune.allocation.allocator import Allocator, Config, Outcome, Suggestion
from nls_tune.tune.lost import LostTrials

Key = TypeVar("Key", bound=Hashable)
#: A report as Tune hands it over.
Result = dict[str, Any]


class Reading(NamedTuple):
    """The meaning of a trial's report for an allocator.

    Rungs count in ``clock``. The objective ``value``, larger is better, is not judged before it ``counts``. ``seconds``
    are device seconds so far; ``outcome`` says how the trial ended, if this is its last report.
    """

    clock: int
    value: float
    counts: bool
    seconds: float
    outcome: Outcome


class NotPickled:
    """Is pickled without its state: Tune pickles its parts when it starts, and never needs these copies here."""

    def __getstate__(self) -> dict[str, object]:
        """Return nothing."""
        return {}


class TrialSearcher(NotPickled, Searcher):
    """A searcher of which Tune keeps nothing: a run is resumed from its results.

    ``metric`` is the key of the objective in the reports. ``may_start`` is asked before every trial: False starts no
    further trial, and lets running ones go on to their end. A trial that lost its process (``lost``) starts again,
    under another name: Tune itself starts none again.
    """

    def __init__(self, metric: str, may_start: Callable[[], bool], lost: LostTrials | None = None) -> None:
        super().__init__(metric=metric, mode="max")
        self._may_start = may_start
        self._running: dict[str, Config] = {}
        self._waiting: dict[str, Config] = {}
        self.lost = lost or LostTrials()

    def set_search_properties(self, metric: str | None, mode: str | None, config: Config, **spec: object) -> bool:
        """Accept the metric of TuneConfig; ``param_space`` stays empty."""
        return metric in (None, self.metric) and mode in (None, "max")

    def suggest(self, trial_id: str) -> Config | None:
        """Return the next trial's configuration, None if there is none now, or FINISHED."""
        goes_on = self._may_start() and not self.lost.is_hopeless
        if goes_on and self.lost.at_once is not None and len(self._running) >= self.lost.at_once:
            return None
        before = next((name for name in self._waiting if self.lost.is_ready(name)), None) if goes_on else None
        if before is not None:
            config: Config | None = self._waiting.pop(before)
            self._renamed(before, trial_id)
        else:
            config = self._next(trial_id) if goes_on else None
        if config is not None:
            self._running[trial_id] = config
            self.lost.started(trial_id, before)
        elif not goes_on or not (self._running or self._waiting):
            # Not before: a running trial may lose its process. Ray's own annotation leaves the marker out.
            return cast("Config", Searcher.FINISHED)
        return config

    def _renamed(self, before: str, now: str) -> None:
        """A trial starts again under another name."""

    def _next(self, trial_id: str) -> Config | None:
        raise NotImplementedError

    def judge(self, trial_id: str, text: str) -> None:
        """Take the error of a trial: one whose process was lost starts again, unless that has happened too often."""
        config = self._running.get(trial_id)
        if config is None or self.lost.judge(trial_id, text, len(self._running)) is None:
            return
        if not self.lost.is_set_aside(trial_id):
            self._waiting[trial_id] = config

    def on_trial_complete(self, trial_id: str, result: Result | None = None, error: bool = False) -> None:
        """Note the end of a trial, or of its process."""
        self._running.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""


class AllocationSearcher(TrialSearcher, Generic[Key]):
    """Asks the allocator for trials and tells it how they ended.

    Tune asks for a ``metric``; ``read`` decides what a report means. ``is_over`` is asked before every trial and at
    every report: True ends the experiment. No further trial starts, and the scheduler stops running ones at their next
    report.
    """

    def __init__(
        self,
        allocator: Allocator[Key],
        to_config: Callable[[Suggestion[Key]], Config],
        read: Callable[[Mapping[str, Any]], Reading],
        *,
        metric: str,
        is_over: Callable[[], bool] = lambda: False,
        may_start: Callable[[], bool] = lambda: True,
        lost: LostTrials | None = None,
    ) -> None:
        super().__init__(metric, may_start, lost)
        self.allocator, self.read, self.is_over = allocator, read, is_over
        self.numbers: dict[str, int] = {}
        self._to_config = to_config

    def _next(self, trial_id: str) -> Config | None:
        suggestion = None if self.is_over() else self.allocator.ask()
        if suggestion is None:
            return None
        self.numbers[trial_id] = suggestion.number
        return self._to_config(suggestion)

    def _renamed(self, before: str, now: str) -> None:
        self.numbers[now] = self.numbers[before]

    def on_trial_complete(self, trial_id: str, result: Result | None = None, error: bool = False) -> None:
        """Tell the allocator; a trial that failed or never reported is told as failed, a lost one goes on."""
        super().on_trial_complete(trial_id, result, error)
        number = self.numbers.get(trial_id)
        if number is None or trial_id in self._waiting:
            return
        if error or not result or self.metric not in result:
            self.allocator.tell(number, "failed", None)
            return
        found = self.read(result)
        outcome = found.outcome if math.isfinite(found.value) else "diverged"
        self.allocator.tell(number, outcome, found.value, found.seconds)


class ListSearcher(TrialSearcher):
    """Runs a fixed list of trials, given by their configurations, in its order."""

    def __init__(
        self,
        configs: Sequence[Config],
        *,
        metric: str,
        may_start: Callable[[], bool] = lambda: True,
        lost: LostTrials | None = None,
    ) -> None:
        super().__init__(metric, may_start, lost)
        self._configs = list(configs)

    def _next(self, trial_id: str) -> Config | None:
        return self._configs.pop(0) if self._configs else None


class WorkerSavingScheduler(NotPickled, FIFOScheduler):
    """Lets every trial run to its end, and uses every worker that is started.

    When a trial ends, Tune gives its worker to the trial that the scheduler names next. Tune's own scheduler names the
    oldest waiting trial. That trial often has a worker of its own already, which is still importing torch. Tune then
    throws this worker away, and the slot stays empty until another one has started. This scheduler names the oldest
    waiting trial that it has not named before: no worker has been started for that one.

    The ``searcher`` is told of errors: of all parts of Tune, a scheduler is the first that hears of one.
    """

    def __init__(self, searcher: TrialSearcher | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Ray's
        self._named: set[Trial] = set()
        self._asked = searcher

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        """Let the searcher judge whether the training failed or its process was lost."""
        if self._asked is not None:
            self._asked.judge(trial.trial_id, error_text(trial))

    def on_trial_result(self, tune_controller: object, trial: Trial, result: Result) -> str:
        """Return CONTINUE."""
        if self._asked is not None:
            self._asked.lost.reported()
        return str(TrialScheduler.CONTINUE)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the next trial to run; None if every waiting trial has a worker that is starting."""
        waiting = {trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING}
        self._named &= waiting  # one that failed and waits again may be named again
        if waiting == self._named:
            return None  # as in most steps: the list of all trials need not be searched
        found = next(trial for trial in tune_controller.get_trials() if trial in waiting - self._named)
        self._named.add(found)
        return cast("Trial", found)


class AllocationScheduler(WorkerSavingScheduler):
    """Lets the allocator of a searcher, which knows each trial's suggestion, judge every report of a trial."""

    def __init__(self, searcher: AllocationSearcher[Any]) -> None:
        super().__init__(searcher)
        self._searcher = searcher

    def on_trial_result(self, tune_controller: object, trial: Trial, result: Result) -> str:
        """Return CONTINUE or STOP."""
        searcher = self._searcher
        searcher.lost.reported()
        found = searcher.read(result)
        if found.counts and not math.isfinite(found.value):
            return str(TrialScheduler.STOP)
        number, value = searcher.numbers[trial.trial_id], found.value if found.counts else None
        goes_on = searcher.allocator.report(number, found.clock, value, found.seconds)
        # Judged in any case: what a rung has seen counts for the trials that a later session runs.
        return str(TrialScheduler.CONTINUE if goes_on and not searcher.is_over() else TrialScheduler.STOP)


def error_text(trial: Trial) -> str:
    """Return what Tune has written of the error of a trial; empty if it has written nothing."""
    try:
        # It is here and nowhere else yet: get_error() looks in the storage, which is synced later.
        return Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):
        return ""
