"""Search spaces: YAML files that say what is searched, what is fixed, and what it may cost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from nls_tune.allocation.allocator import Config
from nls_tune.allocation.distributions import combinations
from nls_tune.errors import InputError, unknown_name
from nls_tune.spaces.parameters import ChoiceParameter, FloatParameter, IntParameter, Parameter, coerce, rounded
from nls_tune.spaces.settings import Arm as Arm
from nls_tune.spaces.settings import TrainingSettings, arm_of, check_training_settings, unknown_setting

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Params = dict[str, Any]
"""Values of an arm's Optuna distributions by name."""
ARMS: tuple[Arm, ...] = ("ce", "positive", "negative")

#: Sampled rates keep this distance from 0: nearer ones are cross-entropy for every practical purpose.
SMALLEST_RATE = 1e-3


def _coerce_all(config: Config) -> Config:
    return {name: coerce(name, value) for name, value in config.items()}


_Config = Annotated[Config, AfterValidator(_coerce_all)]


class Budget(BaseModel):
    """What a search may cost.

    ``trials`` are those per noise level, start points and all arms included, and ``epochs`` those per trial, warm-up
    included. No trial is stopped before ``grace_epochs`` of its GLS phase; ASHA keeps one trial in ``reduction_factor``
    at every rung. Without a ``train_size`` all training samples are used. With ``confirm_seeds`` fresh seeds the
    selected configurations and CE are trained again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    trials: Annotated[int, Field(ge=1)] = 20
    epochs: Annotated[int, Field(ge=1)] = 100
    grace_epochs: Annotated[int, Field(ge=1)] = 10
    reduction_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    train_size: Annotated[int, Field(ge=1)] | None = None
    # At most 20, because the exact sign-flip test lists 2^n cases.
    confirm_seeds: Annotated[int, Field(ge=0, le=20)] = 5


class SearchSpace(BaseModel):
    """A checked search space, with its preset applied.

    ``space`` holds the searched training settings by name, smooth_rate always among them; ``fixed`` those that every
    trial shares. ``arms`` are the shares of a level's trials, and ``start`` configurations that are always run;
    settings that they do not name take their defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    space: dict[str, Parameter]
    arms: dict[Arm, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {
        "ce": 0.25, "positive": 0.25, "negative": 0.5,
    }  # fmt: skip
    # Empty sections of YAML are None.
    fixed: Annotated[_Config, BeforeValidator(lambda value: {} if value is None else value)] = {}
    start: Annotated[tuple[_Config, ...], BeforeValidator(lambda value: () if value is None else value)] = ()
    budget: Budget = Budget()

    @field_validator("space")
    @classmethod
    def _coerce_space(cls, space: dict[str, Parameter]) -> dict[str, Parameter]:
        return {name: parameter.coerced(name) for name, parameter in space.items()}

    @model_validator(mode="after")
    def _check(self) -> SearchSpace:
        searched, fixed = set(self.space), set(self.fixed)
        for reserved in ("seed", "epochs"):
            if reserved in searched | fixed:
                way = "budget.epochs or --epochs" if reserved == "epochs" else "--seed"
                raise ValueError(f"{reserved} cannot stand in space or fixed; use {way}")
        for name in sorted(searched | fixed):
            if name not in TrainingSettings.model_fields:
                raise unknown_setting(name)
        if both := sorted(searched & fixed):
            raise ValueError(f"{both[0]} stands in both space and fixed; keep it in one")
        if "smooth_rate" not in searched:
            raise ValueError("space must hold smooth_rate: it is what is searched")
        for name, parameter in self.space.items():
            if isinstance(parameter, FloatParameter) and parameter.scale == "log1m" and name != "smooth_rate":
                raise ValueError(f"scale log1m is for smooth_rate alone, got it for {name}; use log")
        if not any(self.arms.get(arm, 0) and self.has_arm(arm) for arm in ARMS):
            raise ValueError("no arm has both a share above 0 and a part of smooth_rate; widen one of them")
        for name in itertools.chain(*self.start):
            if name not in self.space:
                raise unknown_name("start key", name, self.space)
        return self

    @property
    def _rate(self) -> FloatParameter | ChoiceParameter:
        return cast("FloatParameter | ChoiceParameter", self.space["smooth_rate"])  # an int is refused above

    def with_values(self, name: str, values: Mapping[str, str]) -> SearchSpace:
        """Return the space with other texts for the values of a setting, a choice or fixed."""

        def changed(config: _Config) -> _Config:
            return {k: values.get(v, v) if k == name and isinstance(v, str) else v for k, v in config.items()}

        space = dict(self.space)
        if isinstance(choice := space.get(name), ChoiceParameter):
            update = {"values": tuple(values.get(v, v) for v in choice.values), "default": choice.default}
            space[name] = choice.model_copy(update=update | {"default": values.get(choice.default, choice.default)})
        start = tuple(changed(point) for point in self.start)
        return self.model_copy(update={"space": space, "fixed": changed(self.fixed), "start": start})

    # Arms

    def has_arm(self, arm: Arm) -> bool:
        """Whether smooth_rate reaches into an arm."""
        rate = self._rate
        if isinstance(rate, ChoiceParameter):
            return any(arm_of(v) == arm for v in rate.values)
        reaches = {"ce": rate.low <= 0 <= rate.high, "positive": rate.high > 0, "negative": rate.low < 0}
        return reaches[arm]

    def quotas(self, num_trials: int) -> dict[Arm, int]:
        """Split a level's trials over its arms.

        Shares are rounded by largest remainder; fewer than 4 trials go to CE, then negative, then positive. A finite
        arm gets no more trials than it has configurations, and an arm without trials is left out.
        """
        arms = [a for a in ARMS if self.arms.get(a, 0) and self.has_arm(a)]
        if num_trials < 4:
            order = [a for a in ("ce", "negative", "positive") if a in arms]
            parts = {a: sum(1 for i in range(num_trials) if order[i % len(order)] == a) for a in arms}
        else:
            counts = largest_remainder(num_trials, [self.arms[a] for a in arms])
            parts = dict(zip(arms, counts, strict=True))
        return {a: n if (size := self.arm(a).size()) is None else min(n, size) for a, n in parts.items() if n}

    def arm(self, arm: Arm) -> ArmSpace:
        """Return the part of the space that belongs to an arm."""
        return ArmSpace(self, arm)

    def default(self, **given: Any) -> Config:
        """Return the configuration with every parameter at its default, but for those given."""
        return {name: given.get(name, p.default) for name, p in self.space.items()}

    def clip_rate(self, rate: float) -> float:
        """Move a rate into the space: to the nearest end of a range, the nearest value of a choice."""
        parameter = self._rate
        if isinstance(parameter, ChoiceParameter):
            return float(min(parameter.values, key=lambda v: abs(v - rate)))
        return min(max(rounded(rate), parameter.low), parameter.high)

    def settings(self, config: Config, seed: int) -> TrainingSettings:
        """Return the training settings of a configuration."""
        return check_training_settings({**self.fixed, **config, "epochs": self.budget.epochs, "seed": seed}, self.name)

    def corner_settings(self) -> Iterator[TrainingSettings]:
        """Yield the settings of the defaults with one parameter after another at its ends."""
        for name, parameter in self.space.items():
            for value in parameter.extremes():
                yield self.settings(self.default(**{name: value}), 0)

    def check_settings(self) -> None:
        """Raise an InputError for the first end of the space, default or start point that no training accepts."""
        for _ in self.corner_settings():
            pass  # building them is the check
        for point in self.start:
            where = f"{self.name}: start {point}"
            check_training_settings({**self.fixed, **self.default(**point), "epochs": self.budget.epochs}, where)
            for name, value in point.items():
                if not self.space[name].contains(value):
                    raise InputError(f"{where}: {name} must lie in the space, got {value}; widen the space")

    def warmup_lengths(self) -> list[int]:
        """Return the values above 0 that warmup_epochs can take, increasing."""
        parameter = self.space.get("warmup_epochs")
        values = parameter.points() if isinstance(parameter, IntParameter) else setting_values(self, "warmup_epochs")
        return sorted(value for value in values if value > 0)

    def shares_warmups(self) -> bool:
        """Whether two configurations can have the same CE warm-up: never where a real number that shapes it varies."""
        shaping = self.settings(self.default(), 0).warmup_settings()
        varies = (isinstance(p, FloatParameter) and p.low < p.high for name, p in self.space.items() if name in shaping)
        return bool(self.warmup_lengths()) and not any(varies)

    def with_epochs(self, epochs: int) -> SearchSpace:
        """Return the space for trials of another length, at least 1; this one if nothing changes.

        warmup_epochs (range, choices, start points, or its fixed value), the milestones and grace_epochs are
        scaled by the ratio; warm-ups leave at least one GLS epoch.
        """
        if epochs < 1:
            raise InputError(f"--epochs must be at least 1, got {epochs}")
        if epochs == self.budget.epochs:
            return self
        ratio = epochs / self.budget.epochs

        def warmup(value: float) -> int:
            return min(round(value * ratio), epochs - 1)

        def at_least_one(value: float) -> int:
            return max(1, round(value * ratio))

        space, fixed = dict(self.space), dict(self.fixed)
        if "warmup_epochs" in space:
            lengths = cast("IntParameter | ChoiceParameter", space["warmup_epochs"])  # a float is refused above
            space["warmup_epochs"] = lengths.scaled(warmup, ratio)
        if "warmup_epochs" in fixed:
            fixed["warmup_epochs"] = warmup(fixed["warmup_epochs"])
        for name in ("milestones", "warmup_milestones"):
            if name in fixed:
                fixed[name] = sorted({at_least_one(m) for m in fixed[name]})

        def start_warmup(value: int) -> int:
            parameter = space["warmup_epochs"]
            return parameter.nearest(warmup(value)) if isinstance(parameter, IntParameter) else warmup(value)

        start = tuple(
            {**point, "warmup_epochs": start_warmup(point["warmup_epochs"])} if "warmup_epochs" in point else point
            for point in self.start
        )
        grace = min(at_least_one(self.budget.grace_epochs), epochs)
        budget = self.budget.model_copy(update={"epochs": epochs, "grace_epochs": grace})
        return self.model_copy(update={"space": space, "fixed": fixed, "start": start, "budget": budget})


class ArmSpace:
    """The part of a search space that belongs to one arm, in the form that the allocator samples."""

    def __init__(self, space: SearchSpace, arm: Arm) -> None:
        self._space, self._arm = space, arm
        self._sampled = {n: p for n, p in space.space.items() if n != "smooth_rate" or arm != "ce"}
        if arm != "ce":
            self._sampled["smooth_rate"] = self._rate(space.space["smooth_rate"])

    def _rate(self, rate: Parameter) -> Parameter:
        """Return the part of smooth_rate that lies in this arm."""
        if isinstance(rate, ChoiceParameter):
            return rate.model_copy(update={"values": tuple(v for v in rate.values if arm_of(v) == self._arm)})
        if self._arm == "negative":
            return rate.model_copy(update={"high": min(rate.high, max(-SMALLEST_RATE, rate.low))})
        return rate.model_copy(update={"low": max(rate.low, min(SMALLEST_RATE, rate.high))})

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the Optuna distributions of what this arm samples; CE has no rate to sample."""
        return {name: parameter.distribution() for name, parameter in self._sampled.items()}

    def decode(self, params: Mapping[str, Any]) -> Config:
        """Return the configuration of sampled parameters, floats rounded to four significant digits."""
        sampled = {name: parameter.decode(params[name]) for name, parameter in self._sampled.items()}
        return {name: sampled.get(name, 0.0) for name in self._space.space}

    def encode(self, config: Config) -> Params:
        """Return the parameters of a configuration, moved into their distributions."""
        return {name: parameter.encode(config[name]) for name, parameter in self._sampled.items()}

    def points(self) -> list[Params] | None:
        """Return every combination of parameters, or None where a parameter is real."""
        return combinations({name: parameter.points() for name, parameter in self._sampled.items()})

    def size(self) -> int | None:
        """Return how many configurations there are, or None where there are infinitely many."""
        points = self.points()
        return None if points is None else len(points)

    def start(self, rates: list[float]) -> tuple[Config, ...]:
        """Return the start points of this arm, each once: the defaults with each of ``rates``, then the space's own."""
        points = [self._space.default(smooth_rate=self._space.clip_rate(r)) for r in rates]
        points += [self._space.default(**point) for point in self._space.start]
        mine = [point for point in points if arm_of(point["smooth_rate"]) == self._arm]
        return tuple(point for i, point in enumerate(mine) if point not in mine[:i])


def largest_remainder(total: int, shares: Sequence[float]) -> list[int]:
    """Split a whole number by shares: floors first, the rest to the largest remainders, ties to the first."""
    # In fractions: rounding would break ties that are exact.
    whole = [Fraction(share) for share in shares]
    exact = [total * share / sum(whole) for share in whole]
    parts = [int(x) for x in exact]
    order = sorted(range(len(shares)), key=lambda i: (parts[i] - exact[i], i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return parts


def setting_values(space: SearchSpace, name: str) -> list[Any]:
    """Return the values that a setting, a choice or fixed, may have in trials."""
    values = getattr(space.space.get(name), "values", None)
    return list(values or [getattr(space.settings(space.default(), 0), name)])
