"""Where a search stands: counts and the best so far of each level, what runs now, and the time that is left.

The session that runs a search keeps such an object up to date; ``nls-tune watch`` makes one from a run directory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from nls_tune.metrics import Metric
from nls_tune.runs.schemas import Stage, Status
from nls_tune.runs.time_budget import TimeBudget
from nls_tune.spaces.settings import Arm


@dataclass(frozen=True)
class BestCurve:
    """The completed trial with the highest objective so far; ``accuracies`` as in RunningTrial, empty where unknown."""

    arm: Arm
    smooth_rate: float
    value: float
    accuracies: tuple[float, ...]


@dataclass
class RunningTrial:
    """A trial that runs now.

    It has ``epochs`` if nothing stops it; ``epoch`` is the last that is known, 0 before the first. ``accuracies`` are
    the noisy validation accuracies after each epoch, as fractions. The ``slot``, from 0, is kept until the trial ends,
    so that it keeps its line on the screen.
    """

    trial_id: str
    noise_level: str
    arm: Arm
    smooth_rate: float
    epochs: int
    epoch: int = 0
    accuracies: Sequence[float] = ()
    slot: int = 0


@dataclass
class LevelProgress:
    """Counts of one level's trials: planned, ended by status, running; ``best`` is the highest objective by arm."""

    total: int
    ended: Counter[Status] = field(default_factory=Counter)
    running: int = 0
    best: dict[Arm, float] = field(default_factory=dict)
    curve: BestCurve | None = None

    @property
    def num_ended(self) -> int:
        """Trials that have ended, in whatever way."""
        return self.ended.total()


@dataclass
class SearchProgress:
    """Counts of a whole search, what runs now, and what its trials have cost so far.

    ``levels`` are in the order of the command; ``slots`` trials can run at once, each of ``epochs`` if nothing stops
    it. ``epochs_after`` are those of the stages that follow, at most. ``is_ending``: the search was interrupted, and
    what runs is being saved. Accuracies are values of the ``metric`` by which the search selects.
    """

    levels: dict[str, LevelProgress]
    slots: int
    epochs: int
    stage: Stage = "search"
    budget: TimeBudget = field(default_factory=TimeBudget)
    running: dict[str, RunningTrial] = field(default_factory=dict)
    epochs_after: int = 0
    is_ending: bool = False
    metric: Metric = "accuracy"
    _ended_epochs: int = 0
    _ended_trials: int = 0
    _seconds: dict[str, float] = field(default_factory=dict)
    _epochs: dict[str, int] = field(default_factory=dict)

    def started(self, trial: RunningTrial, slot: int | None = None) -> None:
        """Count a trial that starts, in the first slot that is free unless its slot is known."""
        taken = {other.slot for other in self.running.values()}
        trial.slot = next(i for i in range(len(taken) + 1) if i not in taken) if slot is None else slot
        self.running[trial.trial_id] = trial
        self.levels[trial.noise_level].running += 1

    def reported(self, trial_id: str, epochs: int, seconds: float, accuracies: Sequence[float] = ()) -> None:
        """Take all epochs, training seconds and validation accuracies of a running trial so far."""
        trial = self.running[trial_id]
        trial.epoch, trial.accuracies = epochs, accuracies
        self._epochs[trial_id], self._seconds[trial_id] = epochs, seconds

    def ended(
        self,
        level: str,
        arm: Arm,
        trial_id: str,
        status: Status,
        value: float | None,
        *,
        adopted: bool,
        smooth_rate: float = 0.0,
        accuracies: Sequence[float] = (),
    ) -> None:
        """Count a trial that ended, with its objective ``value``, None if no epoch counts.

        An ``adopted`` one ended in an earlier session: it costs nothing now, and is not running. Of such a trial
        ``smooth_rate`` and ``accuracies`` must be given; those of a running one are known.
        """
        progress = self.levels[level]
        trial = None if adopted else self.running.pop(trial_id)
        if trial is not None:
            progress.running -= 1
            smooth_rate, accuracies = trial.smooth_rate, trial.accuracies
            if trial.epoch:  # a trial that failed at once says nothing of how long the others take
                self._ended_epochs += trial.epoch
                self._ended_trials += 1
        progress.ended[status] += 1
        if status == "completed" and value is not None:
            progress.best[arm] = max(value, progress.best.get(arm, 0.0))
            if progress.curve is None or value > progress.curve.value:
                progress.curve = BestCurve(arm, smooth_rate, value, tuple(accuracies))

    def measured(self, trial_id: str, epochs: int, seconds: float) -> None:
        """Take what an adopted trial cost, where that says how long the others take."""
        self._epochs[trial_id], self._seconds[trial_id] = epochs, seconds
        self._ended_epochs += epochs
        self._ended_trials += 1

    def runs_again(self, level: str, trial_id: str) -> None:
        """Note that a running trial has left its slot and is still to end."""
        self.levels[level].running -= 1
        self.running.pop(trial_id)

    @property
    def is_interrupted(self) -> bool:
        """Whether the stage was interrupted; a signal that comes while the last trials end leaves no row to tell."""
        return self.is_ending or any(level.ended["interrupted"] for level in self.levels.values())

    @property
    def num_ended(self) -> int:
        """Trials that have ended, of all levels."""
        return sum(level.num_ended for level in self.levels.values())

    @property
    def num_total(self) -> int:
        """Trials planned, of all levels."""
        return sum(level.total for level in self.levels.values())

    def num_left(self) -> int:
        """Trials that are still to end, interrupted ones included."""
        interrupted = sum(level.ended["interrupted"] for level in self.levels.values())
        return self.num_total - self.num_ended + interrupted

    def seconds_left(self) -> float | None:
        """Estimate the seconds left of the run: epochs to go, at the measured seconds per epoch, over the slots.

        Trials without a report yet are taken as long as those that ended were on average, stopped ones included. This
        stage takes at most what is left of the time budget. None before an epoch has been measured.
        """
        # Copies: a screen asks in a thread of its own while trials report.
        measured, running = sum(list(self._epochs.values())), list(self.running.values())
        if not measured:
            return None
        mean_length = self._ended_epochs / self._ended_trials if self._ended_trials else float(self.epochs)
        waiting = max(0, self.num_total - self.num_ended - len(running))
        in_flight = sum(max(0.0, mean_length - trial.epoch) for trial in running)
        seconds_per_epoch = sum(list(self._seconds.values())) / measured
        speed = seconds_per_epoch / max(1, self.slots)
        estimate, budget_left = (waiting * mean_length + in_flight) * speed, self.budget.left()
        return (estimate if budget_left is None else min(estimate, budget_left)) + self.epochs_after * speed
