"""Searches replayed on a table: the package's own allocator, and what else a Tune user could write.

A replay is a simulation by events: a trial holds a slot for as long as its epochs took when they were tabulated.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Protocol

from clocks import CLOCKS
from table import Curve, Level, Point, Table

from nls_tune.allocation.allocator import Allocator, Group, Outcome
from nls_tune.allocation.asha import Rungs
from nls_tune.noise import noise_cancelling_rate
from nls_tune.noise.levels import parse_noise_level
from nls_tune.plan.level import GroupKey
from nls_tune.plan.plan import USUAL_RATE
from nls_tune.spaces.reading import load_space
from nls_tune.spaces.settings import RATE_ARMS
from nls_tune.spaces.space import SearchSpace

#: Trials per level, enough for the longest budget that is looked at.
TRIALS = 48
#: Keeps the rungs of different warm-up lengths apart, where these are not compared.
_APART = 1000


@dataclass(frozen=True)
class Variant:
    """A way to search. The defaults are what ``python -m nls_tune.search`` does; every other value is an ablation.

    Attributes:
        prior: Whether the noise-cancelling rate is a start point.
        scale: Of smooth_rate.
        arms: Whether CE, positive and negative rates have trials of their own.
        shares: Their shares of the trials, in this order; None as shipped.
        warm_store: Whether a warm-up epoch is trained once.
        clock: What rungs count, a name of ``CLOCKS``.
        grace: First rung, as a share of the epochs; None as shipped.
        reduction_factor: Of ASHA; None as shipped.
        objective: Best or last epoch.
        sampler: Of the studies.
        decoupled: Whether the learning rate is searched as ``lr * (1 - r)``.
        seeds: How many seeds of warm-up and training the trials of a search draw from.
        quarter: Whether to choose by a quarter of the validation samples.
    """

    prior: bool = True
    scale: str = "log1m"
    arms: bool = True
    shares: tuple[float, float, float] | None = None
    warm_store: bool = True
    clock: str = "GLS epochs"
    grace: float | None = None
    reduction_factor: float | None = None
    objective: Any = "best"
    sampler: Any = "tpe"
    scheduler: bool = True
    decoupled: bool = False
    seeds: int = 1
    quarter: bool = False


@dataclass(frozen=True)
class Ended:
    """A trial that has ended, and what all trials of the replay had trained by then."""

    epochs_trained: float
    level: str
    point: Point
    seed: int
    value: float | None
    completed: bool
    order: int


@dataclass
class _Running:
    trial: Any
    level: Level
    point: Point
    seed: int
    curve: Curve
    stops: list[int]
    epochs: int = 0
    reused: int = 0


class Method(Protocol):
    """Gives trials and takes their results."""

    def ask(self) -> tuple[Any, Level, Point, int] | None:
        """Return a trial, its level, point and seed; None at the end."""

    def stops(self, point: Point) -> list[int]:
        """Return the epochs at which a trial of this point reports."""

    def report(self, trial: Any, epoch: int, value: float | None, seconds: float) -> bool:
        """Take a report and say whether the trial goes on."""

    def tell(self, trial: Any, value: float | None, seconds: float, *, completed: bool, diverged: bool) -> None:
        """Take the end of a trial."""


def replay(
    method: Method,
    table: Table,
    *,
    slots: int = 2,
    warm_store: bool = True,
    objective: Any = "best",
    quarter: bool = False,
) -> list[Ended]:
    """Run a method to its end.

    Args:
        method: What to replay.
        table: Where trials come from.
        slots: Trials at a time.
        warm_store: Whether a warm-up epoch of a level and seed is trained once.
        objective: What a trial is worth.
        quarter: Whether validation is a quarter as large.

    Returns:
        The trials in the order in which they ended.
    """
    done: list[Ended] = []
    warm: dict[tuple[str, int], int] = {}
    trained, counter = 0.0, itertools.count()
    events: list[tuple[float, int, _Running]] = []

    def push(running: _Running, now: float) -> None:
        until = running.stops[0]
        new = until - max(running.epochs, running.reused)
        heapq.heappush(events, (now + max(0, new) * running.level.epoch_seconds, next(counter), running))

    def start(now: float) -> bool:
        if (asked := method.ask()) is None:
            return False
        trial, level, point, seed = asked
        curve = level.curves[seed][point]
        length = len(curve.val) + 1 if curve.diverged else table.epochs
        stops = [*(s for s in method.stops(point) if s < length), length]
        running = _Running(trial, level, point, seed, curve, stops)
        if warm_store:
            key = (level.name, seed)
            warmup = table.warmups[point[1]]
            running.reused = min(warm.get(key, 0), warmup)
            warm[key] = max(warm.get(key, 0), warmup)
        push(running, now)
        return True

    for _ in range(slots):
        start(0.0)
    while events:
        now, _, running = heapq.heappop(events)
        epoch = running.stops.pop(0)
        trained += max(0, epoch - max(running.epochs, running.reused))
        running.epochs = epoch
        best = running.curve.objective(epoch, objective, quarter=quarter)
        value = None if best is None else best[1]
        seconds = max(0, epoch - running.reused) * running.level.epoch_seconds
        if running.stops and method.report(running.trial, epoch, value, seconds):
            push(running, now)
            continue
        completed = not running.stops and not running.curve.diverged
        diverged = running.curve.diverged and not running.stops
        method.tell(running.trial, value, seconds, completed=completed, diverged=diverged)
        done.append(Ended(trained, running.level.name, running.point, running.seed, value, completed, len(done)))
        start(now)
    return done


def cancelling(level: Level) -> float | None:
    """Return the noise-cancelling rate of a level's nominal noise rate."""
    noise = parse_noise_level(level.name)
    rate = {"human": 0.4021}.get(noise.kind, noise.rate)
    return noise_cancelling_rate(rate or 0.0, level.table.num_classes)


def load_table_space(table: Table) -> SearchSpace:
    """Return the shipped space that a table was made for."""
    from train_grid import GRIDS

    grid = GRIDS[table.name]
    return load_space(grid.dataset or table.name, preset="cpu", overrides=grid.overrides)


class _Decoupled:
    """An arm whose learning rate is sampled as ``lr * (1 - r)``."""

    def __init__(self, space: Any, low: float) -> None:
        self._space, self._low = space, low

    def __getattr__(self, name: str) -> Any:
        return getattr(self._space, name)

    def decode(self, params: Any) -> dict[str, Any]:
        config = self._space.decode(params)
        return {**config, "lr": max(self._low, config["lr"] / (1 - config["smooth_rate"]))}

    def encode(self, config: dict[str, Any]) -> dict[str, Any]:
        return self._space.encode({**config, "lr": config["lr"] * (1 - config["smooth_rate"])})


class OurSearch:
    """The package's search on the levels of a table."""

    def __init__(self, table: Table, seed: int, variant: Variant = Variant(), trials: int | None = None) -> None:
        self.table, self.variant = table, variant
        space = load_table_space(table)
        if variant.scale != "log1m":
            rate = space.space["smooth_rate"].model_copy(update={"scale": variant.scale})
            space = space.model_copy(update={"space": {**space.space, "smooth_rate": rate}})
        if variant.shares is not None:
            space = space.model_copy(update={"arms": dict(zip(RATE_ARMS, variant.shares, strict=True))})
        budget = space.budget
        grace = budget.grace_epochs if variant.grace is None else round(variant.grace * budget.epochs)
        rungs = Rungs.geometric(grace, table.epochs, variant.reduction_factor or budget.reduction_factor)
        self.rungs, self.clock = rungs.levels if variant.scheduler else (), CLOCKS[variant.clock]
        apart = [_APART * i for i in range(len(table.warmups) if self.clock.by_length else 1)]
        rungs = Rungs(tuple(rung + more for more in apart for rung in self.rungs), rungs.reduction_factor)
        self.levels = {level.name: level for level in table.levels}
        self.rng = random.Random(seed)
        self.table_seed = seed % len(table.levels[0].seeds)
        self.allocator = Allocator(self._groups(space, trials or TRIALS), rungs, seed=seed, sampler=variant.sampler)

    def _groups(self, space: SearchSpace, trials: int) -> list[Group[GroupKey]]:
        quotas = space.quotas(trials) if self.variant.arms else {"all": trials}
        rates = {name: cancelling(level) for name, level in self.levels.items()}
        groups = []
        for name, (arm, quota) in itertools.product(self.levels, quotas.items()):
            mine = _WholeRange(space) if arm == "all" else space.arm(arm)
            start = [0.0, USUAL_RATE]
            if self.variant.prior and rates[name] is not None:
                start.append(rates[name])
            wrapped = _Decoupled(mine, space.space["lr"].low) if self.variant.decoupled else mine
            groups.append(Group(GroupKey(name, arm), wrapped, quota, mine.start(start)[:quota], quota))
        return groups

    def ask(self) -> tuple[Any, Level, Point, int] | None:
        """See ``Method``."""
        suggestion = self.allocator.ask()
        if suggestion is None:
            return None
        level = self.levels[suggestion.group.noise_level]
        point = self.table.nearest(suggestion.config)
        seed = self.table_seed if self.variant.seeds == 1 else self.rng.randrange(self.variant.seeds)
        return (suggestion.number, self._judged(point), level.curves[seed][point]), level, point, seed

    def _judged(self, point: Point) -> dict[int, int]:
        """Return the rung at every epoch that is judged; where two fall on one epoch, the higher."""
        warmup, ce = self.table.warmups[point[1]], self.table.rates[point[0]] == 0
        apart = _APART * point[1] if self.clock.by_length else 0
        return {self.clock.epoch(rung, warmup, ce, self.table.epochs): rung + apart for rung in self.rungs}

    def stops(self, point: Point) -> list[int]:
        """See ``Method``."""
        return sorted(self._judged(point))

    def report(self, trial: Any, epoch: int, value: float | None, seconds: float) -> bool:
        """See ``Method``."""
        number, judged, curve = trial
        if self.clock.by_ce:
            value = self.clock.value(curve, epoch)
        return self.allocator.report(number, judged[epoch], value, seconds)

    def tell(self, trial: Any, value: float | None, seconds: float, *, completed: bool, diverged: bool) -> None:
        """See ``Method``."""
        outcome: Outcome = "diverged" if diverged else "completed" if completed else "stopped"
        self.allocator.tell(trial[0], outcome, value, seconds)


class _WholeRange:
    """A space whose rate runs through all arms: what a search without arms samples."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def distributions(self) -> dict[str, Any]:
        from optuna.distributions import FloatDistribution

        rate = self._space.space["smooth_rate"]
        found = self._space.arm("negative").distributions()
        return {**found, "smooth_rate": FloatDistribution(math.log1p(-rate.high), math.log1p(-rate.low))}

    def decode(self, params: Any) -> dict[str, Any]:
        config = self._space.arm("negative").decode({**params, "smooth_rate": 0.5})
        return {**config, "smooth_rate": round(-math.expm1(params["smooth_rate"]), 4)}

    def encode(self, config: dict[str, Any]) -> dict[str, Any]:
        params = self._space.arm("negative").encode({**config, "smooth_rate": -0.5})
        return {**params, "smooth_rate": math.log1p(-config["smooth_rate"])}

    def points(self) -> None:
        return None

    def start(self, rates: list[float]) -> tuple[dict[str, Any], ...]:
        arms = ("ce", "positive", "negative")
        return tuple(point for arm in arms for point in self._space.arm(arm).start(rates))


class GridSearch:
    """Every point of the grid once, in random order, none stopped."""

    def __init__(self, table: Table, seed: int) -> None:
        self.table_seed = seed % len(table.levels[0].seeds)
        points = [(level, point) for level in table.levels for point in level.curves[self.table_seed]]
        random.Random(seed).shuffle(points)
        self._points = iter(points)

    def ask(self) -> tuple[Any, Level, Point, int] | None:
        """See ``Method``."""
        found = next(self._points, None)
        return None if found is None else (None, *found, self.table_seed)

    def stops(self, point: Point) -> list[int]:
        """See ``Method``."""
        return []

    def report(self, trial: Any, epoch: int, value: float | None, seconds: float) -> bool:
        """See ``Method``."""
        return True

    def tell(self, trial: Any, value: float | None, seconds: float, *, completed: bool, diverged: bool) -> None:
        """See ``Method``."""


class RandomSearch(GridSearch):
    """Random configurations, uniform in rate, warm-up and log lr, levels in turn, none stopped."""

    def __init__(self, table: Table, seed: int, trials: int | None = None) -> None:
        super().__init__(table, seed)
        rng, space = random.Random(seed), load_table_space(table).space
        rate, warmup, lr = space["smooth_rate"], space["warmup_epochs"], space["lr"]

        def draw() -> Point:
            return table.nearest(
                {
                    "smooth_rate": rng.uniform(rate.low, rate.high),
                    "warmup_epochs": rng.randint(warmup.low, warmup.high),
                    "lr": math.exp(rng.uniform(math.log(lr.low), math.log(lr.high))),
                }
            )

        self._points = iter([(level, draw()) for _ in range(trials or TRIALS) for level in table.levels])


class RayOptuna:
    """Ray's own OptunaSearch and ASHA, one level after another: what a Tune user would write.

    Args:
        table: To search.
        seed: Of the searchers.
        informed: Whether it gets our start points.
        trials: A level.
    """

    def __init__(self, table: Table, seed: int, *, informed: bool = False, trials: int | None = None) -> None:
        logging.getLogger("ray").setLevel(logging.ERROR)
        self.table, self.seed, self.informed, self.trials = table, seed, informed, trials or TRIALS
        self.table_seed = seed % len(table.levels[0].seeds)
        self.space = load_table_space(table)
        self._names = itertools.count()
        self._asked = self._turn = 0
        self._live: dict[str, tuple[Any, Any]] = {}
        self._open_level()

    def _open_level(self) -> None:
        import optuna
        from optuna.distributions import FloatDistribution, IntDistribution
        from ray.tune.schedulers import AsyncHyperBandScheduler
        from ray.tune.search.optuna import OptunaSearch

        rate, warmup, lr = (self.space.space[k] for k in ("smooth_rate", "warmup_epochs", "lr"))
        points = None
        if self.informed:
            rates = [0.0, USUAL_RATE, cancelling(self.table.levels[self._turn])]
            points = [self.space.default(smooth_rate=self.space.clip_rate(r)) for r in rates if r is not None]
        self.searcher = OptunaSearch(
            space={
                "smooth_rate": FloatDistribution(rate.low, rate.high),
                "warmup_epochs": IntDistribution(warmup.low, warmup.high),
                "lr": FloatDistribution(lr.low, lr.high, log=True),
            },
            metric="value",
            mode="max",
            points_to_evaluate=points,
            seed=self.seed,
        )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        budget = self.space.budget
        self.scheduler = AsyncHyperBandScheduler(
            time_attr="training_iteration",
            metric="value",
            mode="max",
            max_t=self.table.epochs,
            grace_period=budget.grace_epochs,
            reduction_factor=budget.reduction_factor,
            stop_last_trials=False,
        )

    def ask(self) -> tuple[Any, Level, Point, int] | None:
        """See ``Method``."""
        if self._asked == self.trials:
            self._turn, self._asked = self._turn + 1, 0
            if self._turn < len(self.table.levels):
                self._open_level()
        if self._turn >= len(self.table.levels):
            return None
        self._asked += 1
        name = f"t{next(self._names)}"
        config = self.searcher.suggest(name)
        trial = SimpleNamespace(trial_id=name)
        self.scheduler.on_trial_add(None, trial)
        self._live[name] = (self.searcher, self.scheduler)
        return trial, self.table.levels[self._turn], self.table.nearest(config), self.table_seed

    def stops(self, point: Point) -> list[int]:
        """See ``Method``."""
        budget = self.space.budget
        return list(Rungs.geometric(budget.grace_epochs, self.table.epochs, budget.reduction_factor).levels)

    def report(self, trial: Any, epoch: int, value: float | None, seconds: float) -> bool:
        """See ``Method``. A Tune user reports the best validation accuracy so far, 0 before any counts."""
        searcher, scheduler = self._live[trial.trial_id]
        result = {"training_iteration": epoch, "value": value or 0.0}
        searcher.on_trial_result(trial.trial_id, result)
        return str(scheduler.on_trial_result(None, trial, result)) != "STOP"

    def tell(self, trial: Any, value: float | None, seconds: float, *, completed: bool, diverged: bool) -> None:
        """See ``Method``."""
        searcher, scheduler = self._live.pop(trial.trial_id)
        result = {"training_iteration": self.table.epochs, "value": value or 0.0}
        searcher.on_trial_complete(trial.trial_id, result)
        if completed:
            scheduler.on_trial_complete(None, trial, result)


def replay_variant(table: Table, seed: int, variant: Variant, trials: int | None = None) -> list[Ended]:
    """Replay the package's search."""
    method = OurSearch(table, seed, variant, trials)
    return replay(method, table, warm_store=variant.warm_store, objective=variant.objective, quarter=variant.quarter)


def variants() -> Iterator[tuple[str, Variant]]:
    """Yield the ablations: one feature changed at a time."""
    base = Variant()
    yield "as shipped", base
    yield "no noise-cancelling start point", replace(base, prior=False)
    yield "rate uniform, not in log(1 - r)", replace(base, scale="linear")
    yield "no arms", replace(base, arms=False)
    yield "warm-ups not shared", replace(base, warm_store=False)
    yield "ASHA counts all epochs", replace(base, clock="all epochs, warm-ups pass")
    yield "no ASHA", replace(base, scheduler=False)
    yield "grace 10 %", replace(base, grace=0.1)
    yield "grace 25 %", replace(base, grace=0.25)
    yield "reduction factor 3", replace(base, reduction_factor=3.0)
    yield "reduction factor 4", replace(base, reduction_factor=4.0)
    yield "random sampler", replace(base, sampler="random")
    yield "lr searched as lr (1 - r)", replace(base, decoupled=True)
    yield "last epoch", replace(base, objective="last")
