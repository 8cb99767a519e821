"""Where a running search stands: counts and the best so far of each level, and the time that is left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from nls_tune.budgets import TimeBudget


@dataclass
class LevelProgress:
    """Counts of one level's trials.

    Attributes:
        total: Trials planned.
        ended: Trials by status.
        running: Trials that run now.
        best: Highest objective of a completed trial so far, by arm.
    """

    total: int
    ended: Counter[str] = field(default_factory=Counter)
    running: int = 0
    best: dict[str, float] = field(default_factory=dict)

    @property
    def num_ended(self) -> int:
        """Trials that have ended, in whatever way."""
        return self.ended.total()


@dataclass
class SearchProgress:
    """Counts of a whole search and what its trials have cost so far.

    Attributes:
        levels: By noise level, in the order of the command.
        slots: Trials that can run at once.
        epochs: Epochs a full trial.
        budget: Of wall time; without a limit where none was given.
    """

    levels: dict[str, LevelProgress]
    slots: int
    epochs: int
    budget: TimeBudget = field(default_factory=TimeBudget)
    _ended_epochs: int = 0
    _ended_trials: int = 0
    _running_epochs: dict[str, int] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)
    _epochs: dict[str, int] = field(default_factory=dict)

    def started(self, level: str) -> None:
        """Count a trial that starts."""
        self.levels[level].running += 1

    def reported(self, trial_id: str, epochs: int, seconds: float) -> None:
        """Take the epochs and the training seconds of a running trial."""
        self._running_epochs[trial_id] = epochs
        self._epochs[trial_id], self._seconds[trial_id] = epochs, seconds

    def ended(self, level: str, arm: str, trial_id: str, status: str, value: float | None, adopted: bool) -> None:
        """Count a trial that ended; ``adopted`` ones ended in an earlier run and cost nothing now."""
        progress = self.levels[level]
        progress.ended[status] += 1
        if status == "completed" and value is not None:
            progress.best[arm] = max(value, progress.best.get(arm, 0.0))
        if not adopted:
            progress.running -= 1
            epochs = self._running_epochs.pop(trial_id, 0)
            if epochs:  # a trial that failed at once says nothing of how long the others take
                self._ended_epochs += epochs
                self._ended_trials += 1

    def runs_again(self, level: str, trial_id: str) -> None:
        """Note that a running trial has left its slot and is still to end."""
        self.levels[level].running -= 1
        self._running_epochs.pop(trial_id, None)

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
        """Estimate the seconds left: epochs to go, at the measured seconds an epoch, over the slots.

        Trials without a report yet are taken as long as those that ended were on average, stopped ones included.

        Returns:
            The estimate, at most what is left of the time budget, or None before an epoch has been measured.
        """
        measured = sum(self._epochs.values())
        if not measured:
            return None
        mean_length = self._ended_epochs / self._ended_trials if self._ended_trials else float(self.epochs)
        waiting = self.num_total - self.num_ended - len(self._running_epochs)
        in_flight = sum(max(0.0, mean_length - done) for done in self._running_epochs.values())
        seconds_an_epoch = sum(self._seconds.values()) / measured
        estimate = (waiting * mean_length + in_flight) * seconds_an_epoch / max(1, self.slots)
        budget_left = self.budget.left()
        return estimate if budget_left is None else min(estimate, budget_left)
