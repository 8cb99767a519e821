"""Which trial runs next and which one stops: one study and one ASHA a group, ask and tell, no Ray.

A group is a set of trials whose objective values may be compared with each other. The allocator keeps an
in-memory Optuna study and a ladder of rungs for each group, and gives the next slot to the group that has had
the least device time for its share. It knows nothing of what is being tuned.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from nls_tune.allocation.asha import Rungs
from nls_tune.allocation.samplers import SamplerName, make_sampler, startup_trials

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

Config = dict[str, Any]
Outcome = Literal["completed", "stopped", "diverged", "failed"]

#: Value told for a trial that diverged: the worst accuracy there is, finite, so that no sampler chokes on it.
DIVERGED_VALUE = 0.0
_MAX_REDRAWS = 8
#: A group learns from another one that has completed this many trials,
_MIN_COMPLETED_TO_TEACH = 3
#: and takes over this many configurations at most.
_MAX_TAKEN_OVER = 2


class ConfigSpace(Protocol):
    """What the allocator must know of a search space."""

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the Optuna distributions of the sampled parameters by name."""

    def decode(self, params: Mapping[str, Any]) -> Config:
        """Return the configuration that sampled parameters stand for."""

    def encode(self, config: Config) -> dict[str, Any]:
        """Return the parameters of a configuration, inside their distributions."""

    def points(self) -> list[dict[str, Any]] | None:
        """Return every combination of parameters, or None where there are infinitely many."""


@dataclass(frozen=True)
class Group:
    """A set of comparable trials and its part of the budget.

    Attributes:
        key: Name of the group.
        space: Where its configurations come from.
        num_trials: How many trials it runs, start points included.
        start: Configurations that run first.
        share: Device time that it deserves, relative to the other groups.
        siblings: Groups to learn from, by key: what a good configuration of theirs would be here. Before its own
            trials can guide the sampler, a group tries what is best in them so far.
    """

    key: str
    space: ConfigSpace
    num_trials: int
    start: tuple[Config, ...] = ()
    share: float = 1.0
    siblings: Mapping[str, Callable[[Config], Config]] = field(default_factory=dict)


@dataclass(frozen=True)
class Suggestion:
    """A trial to run: its number in the run, its group and its configuration."""

    number: int
    group: str
    config: Config


@dataclass
class _Live:
    """A running trial: the Optuna side of it and the device seconds that it has reported."""

    trial: optuna.Trial
    config: Config
    seconds: float = 0.0
    clock: int = 0
    #: Verdicts of the rungs so far: a trial that starts again after a lost worker reports some of them twice.
    verdicts: dict[int, bool] = field(default_factory=dict)


@dataclass
class _GroupState:
    """The mutable side of a group."""

    group: Group
    study: optuna.Study
    rungs: Rungs
    rng: random.Random
    queue: list[Config]
    seconds: float = 0.0
    asked: int = 0
    live: dict[int, _Live] = field(default_factory=dict)
    #: Every configuration ever given out with its outcome and value; "failed" and None while it runs.
    known: dict[str, tuple[Outcome, float | None]] = field(default_factory=dict)
    #: Rungs that a trial passed in an earlier session, by configuration.
    passed: dict[str, dict[int, bool]] = field(default_factory=dict)
    exhausted: bool = False
    completed: int = 0
    best: tuple[float, Config] | None = None
    #: Groups that this one has taken a configuration from.
    teachers: set[str] = field(default_factory=set)

    def wants_more(self) -> bool:
        return self.asked < self.group.num_trials and not self.exhausted

    def spent(self, expected_seconds: float) -> float:
        """Device seconds for the share, a running trial counted with at least what trials use to take."""
        running = sum(max(live.seconds, expected_seconds) for live in self.live.values())
        return (self.seconds + running) / self.group.share


class Allocator:
    """Asks studies for configurations, gives slots to groups, judges trials at rungs.

    Args:
        groups: The groups, in the order in which ties are broken.
        rungs: Levels and reduction factor; every group gets its own copy. No levels: nothing is stopped.
        seed: Seeds the samplers.
        sampler: Where configurations come from; ``grid`` runs every point of its (finite) groups in order.

    Raises:
        ValueError: If two groups have the same key.
    """

    def __init__(self, groups: Sequence[Group], rungs: Rungs, seed: int = 0, sampler: SamplerName = "tpe") -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if len({g.key for g in groups}) != len(groups):
            raise ValueError(f"group keys must differ, got {[g.key for g in groups]}")
        self._sampler: SamplerName = sampler
        self._groups: dict[str, _GroupState] = {}
        self._numbers = itertools.count()
        self._where: dict[int, str] = {}
        for group in groups:
            sampler_of_group = make_sampler(sampler, seed, group.key, group.num_trials)
            self._groups[group.key] = _GroupState(
                group=group,
                study=optuna.create_study(direction="maximize", sampler=sampler_of_group, study_name=group.key),
                rungs=Rungs(rungs.levels, rungs.reduction_factor),
                rng=random.Random(f"{seed}/{group.key}"),  # noqa: S311 - no secrets here
                queue=list(group.start),
            )

    def reseed(self, seed: int) -> None:
        """Seed the samplers anew: after a resume they should not repeat the draws that they began with."""
        for state in self._groups.values():
            group = state.group
            state.study.sampler = make_sampler(self._sampler, seed, group.key, group.num_trials)

    # Asking

    def ask(self) -> Suggestion | None:
        """Return the next trial to run, or None when every group has had its trials."""
        while waiting := [s for s in self._groups.values() if s.wants_more()]:
            finished = sum(s.asked - len(s.live) for s in self._groups.values())
            seconds = sum(s.seconds for s in self._groups.values())
            expected = seconds / finished if finished else 1.0
            state = min(waiting, key=lambda s: (s.spent(expected), s.asked / s.group.share))
            if (drawn := self._draw(state)) is not None:
                return self._start(state, *drawn)
            state.exhausted = True
        return None

    def requeue(self, key: str, config: Config, rung_values: Mapping[int, float] | None = None) -> None:
        """Put a trial that an earlier session left half done at the head of its group.

        Args:
            key: Its group.
            config: Its configuration.
            rung_values: Its objective at the rungs that it has passed; they count, and are not judged again.
        """
        state = self._groups[key]
        name = _canonical(config)
        if name in state.known or name in state.passed:
            return
        state.queue.insert(0, config)
        for clock, value in (rung_values or {}).items():
            state.rungs.passes(clock, value)
        state.passed[name] = dict.fromkeys(rung_values or {}, True)

    def _start(self, state: _GroupState, trial: optuna.Trial, config: Config) -> Suggestion:
        number = next(self._numbers)
        state.asked += 1
        name = _canonical(config)
        state.live[number] = _Live(trial, config, verdicts=state.passed.pop(name, {}))
        state.known[name] = ("failed", None)
        self._where[number] = state.group.key
        return Suggestion(number, state.group.key, config)

    def _draw(self, state: _GroupState) -> tuple[optuna.Trial, Config] | None:
        """Take the next queued configuration, else one from the sampler that has not been seen yet."""
        while state.queue:
            config = state.queue.pop(0)
            if _canonical(config) not in state.known:
                return self._ask_for(state, state.group.space.encode(config)), config
        if (taken := self._taken_over(state)) is not None:
            return self._ask_for(state, state.group.space.encode(taken)), taken
        for _ in range(0 if self._sampler == "grid" else _MAX_REDRAWS):
            trial = state.study.ask(state.group.space.distributions())
            config = state.group.space.decode(trial.params)
            name = _canonical(config)
            if name not in state.known:
                return trial, config
            # The sampler learns again what it should have known, and another is drawn.
            outcome, value = state.known[name]
            if outcome == "stopped" and value is not None:
                trial.report(value, 0)
            _tell(state.study, trial, value, outcome)
        return self._draw_at_random(state)

    def _taken_over(self, state: _GroupState) -> Config | None:
        """What is best in another group, as a configuration of this one, while this one knows little itself."""
        if state.completed >= startup_trials(state.group.num_trials) or len(state.teachers) >= _MAX_TAKEN_OVER:
            return None
        for key, translate in state.group.siblings.items():
            sibling = self._groups[key]
            if key in state.teachers or sibling.best is None or sibling.completed < _MIN_COMPLETED_TO_TEACH:
                continue
            state.teachers.add(key)
            config = translate(sibling.best[1])
            if _canonical(config) not in state.known:
                return config
        return None

    def _draw_at_random(self, state: _GroupState) -> tuple[optuna.Trial, Config] | None:
        space = state.group.space
        for params in self._candidates(state):
            config = space.decode(params)
            if _canonical(config) not in state.known:
                return self._ask_for(state, params), config
        return None

    def _candidates(self, state: _GroupState) -> Iterator[dict[str, Any]]:
        points = state.group.space.points()
        if points is not None:
            yield from points if self._sampler == "grid" else state.rng.sample(points, len(points))
            return
        for _ in range(1000):
            yield {n: _uniform(d, state.rng) for n, d in state.group.space.distributions().items()}

    def _ask_for(self, state: _GroupState, params: dict[str, Any]) -> optuna.Trial:
        state.study.enqueue_trial(params)
        return state.study.ask(state.group.space.distributions())

    # Telling

    def report(self, number: int, clock: int, value: float | None, seconds: float) -> bool:
        """Take a running trial's state and say whether it goes on.

        Args:
            number: Of the suggestion.
            clock: Resource used so far, for example epochs.
            value: Objective so far; None while nothing counts yet: such a trial is not judged.
            seconds: Device time used so far.

        Returns:
            False if the trial should stop.
        """
        state = self._groups[self._where[number]]
        live = state.live[number]
        live.seconds, live.clock = seconds, clock
        if value is None:
            return True
        if clock not in live.verdicts:
            live.verdicts[clock] = state.rungs.passes(clock, value)
        return live.verdicts[clock]

    def tell(self, number: int, outcome: Outcome, value: float | None, seconds: float | None = None) -> None:
        """Close a trial. Telling one twice is allowed and changes nothing.

        Args:
            number: Of the suggestion.
            outcome: How it ended.
            value: Objective, None where nothing counted or the trial failed.
            seconds: Device time; by default what it reported last.
        """
        state = self._groups[self._where[number]]
        live = state.live.pop(number, None)
        if live is None:
            return
        state.seconds += live.seconds if seconds is None else seconds
        state.known[_canonical(live.config)] = (outcome, value)
        if outcome == "completed" and value is not None:
            state.completed += 1
            if state.best is None or value > state.best[0]:
                state.best = (value, live.config)
        if outcome == "stopped" and value is not None:
            live.trial.report(value, live.clock)
        _tell(state.study, live.trial, value, outcome)

    def adopt(
        self,
        key: str,
        config: Config,
        outcome: Outcome,
        value: float | None,
        seconds: float,
        rung_values: Mapping[int, float],
    ) -> None:
        """Take over a trial that an earlier run finished: it is never run again.

        Args:
            key: Its group.
            config: Its configuration.
            outcome: How it ended.
            value: Its objective.
            seconds: Its device time.
            rung_values: Its objective at the rungs that judged it.
        """
        state = self._groups[key]
        trial = self._ask_for(state, state.group.space.encode(config))
        suggestion = self._start(state, trial, config)
        for clock, seen in sorted(rung_values.items()):
            self.report(suggestion.number, clock, seen, seconds)
        self.tell(suggestion.number, outcome, value, seconds)

    # Looking

    def study(self, key: str) -> optuna.Study:
        """Return the Optuna study of a group."""
        return self._groups[key].study

    def num_dropped(self) -> int:
        """Return how many trials will never be asked for, because their group ran out of configurations."""
        return sum(s.group.num_trials - s.asked for s in self._groups.values() if s.exhausted)

    def num_left(self) -> int:
        """Return how many trials are still to be asked for."""
        return sum(s.group.num_trials - s.asked for s in self._groups.values() if s.wants_more())


def _tell(study: optuna.Study, trial: optuna.Trial, value: float | None, outcome: Outcome = "completed") -> None:
    from optuna.trial import TrialState

    if outcome == "diverged":
        study.tell(trial, DIVERGED_VALUE)
    elif outcome == "failed" or value is None:
        study.tell(trial, state=TrialState.FAIL)
    elif outcome == "stopped":
        study.tell(trial, state=TrialState.PRUNED)  # with the value reported last
    else:
        study.tell(trial, value)


def _uniform(distribution: BaseDistribution, rng: random.Random) -> Any:
    """Draw from a distribution without a study."""
    low, high = getattr(distribution, "low", None), getattr(distribution, "high", None)
    if low is None or high is None:
        return rng.choice(distribution.choices)  # type: ignore[attr-defined] # categorical
    step = distribution.step  # type: ignore[attr-defined] # int or float
    return rng.uniform(low, high) if step is None else low + step * rng.randint(0, round((high - low) / step))


def _canonical(config: Config) -> str:
    return repr(sorted(config.items()))
