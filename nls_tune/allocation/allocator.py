"""Which trial runs next and which one stops: one study and one ASHA per group, ask and tell, no Ray.

A group is a set of trials whose objective values may be compared with each other. The allocator keeps an
in-memory Optuna study and a ladder of rungs for each group, and gives the next slot to the group that has had
the least device time for its share. It knows nothing of what is being tuned.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from nls_tune.allocation.asha import Rungs
from nls_tune.allocation.samplers import SamplerName, make_sampler

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

#: What is tuned, by name, and what a study samples for it.
Config = dict[str, Any]
Params = dict[str, Any]
Outcome = Literal["completed", "stopped", "diverged", "failed"]
#: A group's key: any object that can be hashed; its text seeds the group's sampler.
Key = TypeVar("Key", bound=Hashable)

#: How often a group's sampler may draw what is known already, before a configuration is drawn at random.
_MAX_REDRAWS = 8
#: How often the random draws may do so, before the group counts as exhausted.
_MAX_RANDOM_DRAWS = 1000


class ConfigSpace(Protocol):
    """What the allocator must know about a search space."""

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the Optuna distributions of the sampled parameters by name."""

    def decode(self, params: Mapping[str, Any]) -> Config:
        """Return the configuration that sampled parameters stand for."""

    def encode(self, config: Config) -> Params:
        """Return the parameters of a configuration, inside their distributions."""

    def points(self) -> list[Params] | None:
        """Return every combination of parameters, or None where there are infinitely many."""


@dataclass(frozen=True)
class Group(Generic[Key]):
    """A set of comparable trials and its part of the budget.

    The ``key`` is unique among the groups. Of its ``num_trials``, those of ``start`` run first. ``share`` is the device
    time that it deserves, relative to the other groups. ``worst`` is the objective told to the sampler for a trial that
    diverged, so that it learns to keep away: the lowest finite value that the objective can have, 0 for accuracies.
    """

    key: Key
    space: ConfigSpace
    num_trials: int
    start: tuple[Config, ...] = ()
    share: float = 1.0
    worst: float = 0.0


@dataclass(frozen=True)
class Suggestion(Generic[Key]):
    """A trial to run: its number in the run, its group and its configuration."""

    number: int
    group: Key
    config: Config


@dataclass
class _Live:
    """A running trial and what it has reported."""

    config: Config
    #: Its trial in the study, then those in which the sampler drew the same configuration again meanwhile.
    trials: list[optuna.Trial]
    seconds: float = 0.0
    clock: int = 0
    #: Verdicts of the rungs so far: a trial that starts again after a lost worker reports some of them twice.
    verdicts: dict[int, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class _Ended:
    """How a trial ended."""

    outcome: Outcome
    value: float | None
    clock: int


@dataclass
class _GroupState(Generic[Key]):
    """The mutable side of a group."""

    group: Group[Key]
    study: optuna.Study
    rungs: Rungs
    prunes: bool
    rng: random.Random
    random_sampler: optuna.samplers.BaseSampler
    queue: list[Config]
    seconds: float = 0.0
    asked: int = 0
    live: dict[int, _Live] = field(default_factory=dict)
    #: Every configuration ever given out.
    known: dict[str, _Live | _Ended] = field(default_factory=dict)
    #: Rungs that a trial passed in an earlier session, by configuration.
    passed: dict[str, dict[int, bool]] = field(default_factory=dict)
    exhausted: bool = False

    def wants_more(self) -> bool:
        """Whether the group has trials left to ask for."""
        return self.asked < self.group.num_trials and not self.exhausted

    def spent(self, expected_seconds: float) -> float:
        """Return the device seconds for the share, each running trial counted with at least ``expected_seconds``."""
        running = sum(max(live.seconds, expected_seconds) for live in self.live.values())
        return (self.seconds + running) / self.group.share

    def ask_for(self, params: Params) -> optuna.Trial:
        """Return a trial of the study with given parameters."""
        self.study.enqueue_trial(params)
        return self.study.ask(self.group.space.distributions())

    def tell(self, trial: optuna.Trial, ended: _Ended) -> None:
        """Tell the study how one of its trials ended."""
        from optuna.trial import TrialState

        if ended.outcome == "diverged":
            # TPE takes any complete trial for better than those that were stopped: this is the first that was.
            if self.prunes:
                trial.report(self.group.worst, 0)
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                self.study.tell(trial, self.group.worst)
        elif ended.outcome == "failed" or ended.value is None:
            self.study.tell(trial, state=TrialState.FAIL)
        elif ended.outcome == "stopped":
            trial.report(ended.value, ended.clock)
            self.study.tell(trial, state=TrialState.PRUNED)  # with the value just reported
        else:
            self.study.tell(trial, ended.value)


class Allocator(Generic[Key]):
    """Asks studies for configurations, gives slots to groups, judges trials at rungs.

    Ties are broken in the order of ``groups``. Every group gets its own copy of ``rungs``; without levels nothing is
    stopped. The sampler ``grid`` runs every point of its (finite) groups in order.

    Raises:
        ValueError: If two groups have the same key.
    """

    def __init__(self, groups: Sequence[Group[Key]], rungs: Rungs, seed: int = 0, sampler: SamplerName = "tpe") -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if len({g.key for g in groups}) != len(groups):
            raise ValueError(f"group keys must differ, got {[str(g.key) for g in groups]}")
        self._sampler: SamplerName = sampler
        self._groups: dict[Key, _GroupState[Key]] = {}
        self._numbers = itertools.count()
        self._where: dict[int, Key] = {}
        for group in groups:
            name = str(group.key)
            sampler_of_group = make_sampler(sampler, seed, name, group.num_trials)
            self._groups[group.key] = _GroupState(
                group=group,
                study=optuna.create_study(direction="maximize", sampler=sampler_of_group, study_name=name),
                rungs=Rungs(rungs.levels, rungs.reduction_factor),
                prunes=sampler == "tpe",
                rng=random.Random(f"{seed}/{name}"),  # noqa: S311 - no secrets here
                # With a stream of its own: the first draws of the group's sampler are random as well, and known by now.
                random_sampler=make_sampler("random", seed, f"{name}/random", group.num_trials),
                queue=list(group.start),
            )

    def reseed(self, seed: int) -> None:
        """Seed the samplers anew: after a resume they should not repeat the draws that they began with."""
        for state in self._groups.values():
            state.study.sampler = make_sampler(self._sampler, seed, str(state.group.key), state.group.num_trials)

    # Asking

    def ask(self) -> Suggestion[Key] | None:
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

    def requeue(self, key: Key, config: Config, rung_values: Mapping[int, float] | None = None) -> None:
        """Put a trial that an earlier session left half done at the head of its group.

        ``rung_values`` are its objectives at the rungs that it has passed; they count, and are not judged again.
        """
        state = self._groups[key]
        name = _canonical(config)
        if name in state.known or name in state.passed:
            return
        state.queue.insert(0, config)
        for clock, value in (rung_values or {}).items():
            state.rungs.passes(clock, value)
        state.passed[name] = dict.fromkeys(rung_values or {}, True)

    def _start(self, state: _GroupState[Key], trial: optuna.Trial, config: Config) -> Suggestion[Key]:
        number = next(self._numbers)
        state.asked += 1
        name = _canonical(config)
        live = _Live(config, [trial], verdicts=state.passed.pop(name, {}))
        state.live[number] = state.known[name] = live
        self._where[number] = state.group.key
        return Suggestion(number, state.group.key, config)

    def _draw(self, state: _GroupState[Key]) -> tuple[optuna.Trial, Config] | None:
        """Take the next queued configuration, else one from the sampler that has not been seen yet."""
        space = state.group.space
        while state.queue:
            config = state.queue.pop(0)
            if _canonical(config) not in state.known:
                return state.ask_for(space.encode(config)), config
        for _ in range(0 if self._sampler == "grid" else _MAX_REDRAWS):
            trial = state.study.ask(space.distributions())
            config = space.decode(trial.params)
            known = state.known.get(_canonical(config))
            if known is None:
                return trial, config
            # A study cannot forget a trial that it was asked for. So this one ends as the trial that it repeats, now
            # or when that one ends: the sampler learns again what it should have known, and nothing that is not true.
            if isinstance(known, _Live):
                known.trials.append(trial)
            else:
                state.tell(trial, known)
        for params in self._candidates(state):
            config = space.decode(params)
            if _canonical(config) not in state.known:
                return state.ask_for(params), config
        return None

    def _candidates(self, state: _GroupState[Key]) -> Iterator[Params]:
        """Yield parameters at random, scales of their distributions kept; of a finite space, each point once."""
        import optuna

        space = state.group.space
        points = space.points()
        if points is not None:
            yield from points if self._sampler == "grid" else state.rng.sample(points, len(points))
            return
        # In a study of their own, because draws that are known already must not stay in the group's.
        study = optuna.create_study(sampler=state.random_sampler)
        for _ in range(_MAX_RANDOM_DRAWS):
            yield study.ask(space.distributions()).params

    # Telling

    def report(self, number: int, clock: int, value: float | None, seconds: float) -> bool:
        """Take the state of a running trial, by its suggestion's number, and say whether it goes on.

        ``clock`` is the resource used so far, for example epochs, and ``value`` the objective so far; None while
        nothing counts yet: such a trial is not judged. ``seconds`` is the device time used so far.
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
        """Close a trial, by its suggestion's number. Telling one twice is allowed and changes nothing.

        ``value`` is the objective, None where nothing counted or the trial failed, and ``seconds`` the device time, by
        default what it reported last.
        """
        state = self._groups[self._where[number]]
        live = state.live.pop(number, None)
        if live is None:
            return
        state.seconds += live.seconds if seconds is None else seconds
        ended = state.known[_canonical(live.config)] = _Ended(outcome, value, live.clock)
        for trial in live.trials:
            state.tell(trial, ended)

    def adopt(
        self,
        key: Key,
        config: Config,
        outcome: Outcome,
        value: float | None,
        seconds: float,
        rung_values: Mapping[int, float],
    ) -> None:
        """Take over a trial that an earlier run finished: it is never run again.

        ``value`` is its objective, ``seconds`` its device time, and ``rung_values`` its objectives at the rungs that
        judged it.
        """
        state = self._groups[key]
        suggestion = self._start(state, state.ask_for(state.group.space.encode(config)), config)
        for clock, seen in sorted(rung_values.items()):
            self.report(suggestion.number, clock, seen, seconds)
        self.tell(suggestion.number, outcome, value, seconds)

    # Looking

    def study(self, key: Key) -> optuna.Study:
        """Return the Optuna study of a group."""
        return self._groups[key].study

    def num_dropped(self) -> int:
        """Return how many trials will never be asked for, because their group ran out of configurations."""
        return sum(s.group.num_trials - s.asked for s in self._groups.values() if s.exhausted)

    def num_left(self) -> int:
        """Return how many trials are still to be asked for."""
        return sum(s.group.num_trials - s.asked for s in self._groups.values() if s.wants_more())


def _canonical(config: Config) -> str:
    return repr(sorted(config.items()))
