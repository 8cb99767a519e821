"""Search spaces: YAML files that say what is searched, what is fixed, and what it may cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from nls_tune.allocation.allocator import Config
from nls_tune.errors import InputError, unknown_name
from nls_tune.spaces.parameters import (
    ChoiceParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    coerce,
    coerce_parameter,
    contains,
    extremes,
    map_parameter,
)
from nls_tune.spaces.settings import Arm as Arm
from nls_tune.spaces.settings import TrainingSettings, arm_of, check_training_settings, unknown_setting

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Preset = Literal["gpu", "cpu"]
Params = dict[str, Any]
"""Values of an arm's Optuna distributions by name."""
ARMS: tuple[Arm, ...] = ("ce", "positive", "negative")

#: Sampled rates keep this distance from 0: nearer ones are cross-entropy for every practical purpose.
SMALLEST_RATE = 1e-3
#: Sampled floats are rounded to this many significant digits, so that what is printed is what was run.
_DIGITS = 4


class Budget(BaseModel):
    """What a search may cost.

    Attributes:
        trials: Trials per noise level, start points and all arms included.
        epochs: Epochs per trial, warm-up included.
        grace_epochs: Epochs of its GLS phase before which no trial is stopped.
        reduction_factor: ASHA keeps one trial in this many at every rung.
        train_size: Training samples to use; None for all.
        confirm_seeds: Fresh seeds with which the selected configurations and CE are trained again; 0 for none.
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

    Attributes:
        name: The file's name.
        space: Searched training settings by name; smooth_rate is always among them.
        arms: Shares of a level's trials by arm.
        fixed: Training settings that every trial shares.
        start: Configurations that are always run; settings that they do not name take their defaults.
        budget: The cost of the search.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    space: dict[str, Parameter]
    arms: dict[Arm, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {
        "ce": 0.25, "positive": 0.25, "negative": 0.5,
    }  # fmt: skip
    fixed: Config = {}
    start: tuple[Config, ...] = ()
    budget: Budget = Budget()

    @field_validator("fixed", "start", mode="before")
    @classmethod
    def _empty(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return () if info.field_name == "start" else {}
        return value

    @field_validator("space")
    @classmethod
    def _coerce_space(cls, space: dict[str, Parameter]) -> dict[str, Parameter]:
        return {name: coerce_parameter(name, parameter) for name, parameter in space.items()}

    @field_validator("start")
    @classmethod
    def _coerce_start(cls, start: tuple[Config, ...]) -> tuple[Config, ...]:
        return tuple({name: coerce(name, value) for name, value in point.items()} for point in start)

    @field_validator("fixed")
    @classmethod
    def _coerce_fixed(cls, fixed: Config) -> Config:
        return {name: coerce(name, value) for name, value in fixed.items()}

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
        return min(max(_round(rate), parameter.low), parameter.high)

    def settings(self, config: Config, seed: int) -> TrainingSettings:
        """Return the training settings of a configuration."""
        return check_training_settings({**self.fixed, **config, "epochs": self.budget.epochs, "seed": seed}, self.name)

    def corner_settings(self) -> Iterator[TrainingSettings]:
        """Yield the settings of the defaults with one parameter after another at its ends."""
        for name, parameter in self.space.items():
            for value in extremes(parameter):
                yield self.settings(self.default(**{name: value}), 0)

    def check_settings(self) -> None:
        """Check the ends of the space, the defaults and the start points as training settings.

        Raises:
            InputError: For the first combination that no training accepts.
        """
        for _ in self.corner_settings():
            pass  # building them is the check
        for point in self.start:
            where = f"{self.name}: start {point}"
            check_training_settings({**self.fixed, **self.default(**point), "epochs": self.budget.epochs}, where)
            for name, value in point.items():
                if not contains(self.space[name], value):
                    raise InputError(f"{where}: {name} must lie in the space, got {value}; widen the space")

    def warmup_lengths(self) -> list[int]:
        """Return the values above 0 that warmup_epochs can take, increasing."""
        parameter = self.space.get("warmup_epochs")
        values = parameter.values() if isinstance(parameter, IntParameter) else setting_values(self, "warmup_epochs")
        return sorted(value for value in values if value > 0)

    def shares_warmups(self) -> bool:
        """Whether two configurations can have the same CE warm-up: never where a real number that shapes it varies."""
        shaping = self.settings(self.default(), 0).warmup_settings()
        varies = (isinstance(p, FloatParameter) and p.low < p.high for name, p in self.space.items() if name in shaping)
        return bool(self.warmup_lengths()) and not any(varies)

    def with_epochs(self, epochs: int) -> SearchSpace:
        """Return the space for trials of another length; this one if nothing changes.

        warmup_epochs (range, choices, start points, or its fixed value), the milestones and grace_epochs are
        scaled by the ratio; warm-ups leave at least one GLS epoch.

        Raises:
            InputError: If ``epochs`` is below 1.
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
            space["warmup_epochs"] = map_parameter(space["warmup_epochs"], warmup, ratio)
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

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the Optuna distributions of what this arm samples; CE has no rate to sample."""
        found = ((name, self._distribution(name, p)) for name, p in self._space.space.items())
        return {name: distribution for name, distribution in found if distribution is not None}

    def _distribution(self, name: str, parameter: Parameter) -> BaseDistribution | None:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if name == "smooth_rate":
            if self._arm == "ce":
                return None
            if isinstance(parameter, FloatParameter):
                low, high = self._rate_range(parameter)
                if parameter.scale == "log1m":
                    return FloatDistribution(math.log1p(-high), math.log1p(-low))
                return FloatDistribution(low, high, log=parameter.scale == "log")
        if isinstance(parameter, ChoiceParameter):
            # Indices, not values: a value may be a list, which Optuna does not take.
            return CategoricalDistribution(range(len(self._choices(name, parameter))))
        if isinstance(parameter, IntParameter):
            return IntDistribution(parameter.low, parameter.high, parameter.scale == "log", parameter.step)
        return FloatDistribution(parameter.low, parameter.high, log=parameter.scale == "log")

    def _rate_range(self, parameter: FloatParameter) -> tuple[float, float]:
        if self._arm == "negative":
            return parameter.low, min(parameter.high, max(-SMALLEST_RATE, parameter.low))
        return max(parameter.low, min(SMALLEST_RATE, parameter.high)), parameter.high

    def _choices(self, name: str, parameter: ChoiceParameter) -> list[Any]:
        return [v for v in parameter.values if name != "smooth_rate" or arm_of(v) == self._arm]

    def decode(self, params: Mapping[str, Any]) -> Config:
        """Return the configuration of sampled parameters, floats rounded to four significant digits."""
        config: Config = {}
        for name, parameter in self._space.space.items():
            if name == "smooth_rate" and self._arm == "ce":
                config[name] = 0.0
            elif isinstance(parameter, ChoiceParameter):
                config[name] = self._choices(name, parameter)[params[name]]
            elif isinstance(parameter, IntParameter):
                config[name] = int(params[name])
            else:
                log1m = parameter.scale == "log1m"
                value = _round(-math.expm1(params[name]) if log1m else params[name])
                low, high = self._rate_range(parameter) if name == "smooth_rate" else (parameter.low, parameter.high)
                config[name] = min(max(value, low), high)
        return config

    def encode(self, config: Config) -> Params:
        """Return the parameters of a configuration, moved into their distributions."""
        params: Params = {}
        for name, distribution in self.distributions().items():
            parameter, value = self._space.space[name], config[name]
            if isinstance(parameter, ChoiceParameter):
                params[name] = self._choices(name, parameter).index(value)
                continue
            if isinstance(parameter, IntParameter):
                params[name] = parameter.nearest(value)
                continue
            if parameter.scale == "log1m":
                value = math.log1p(-value)
            low, high = distribution.low, distribution.high  # type: ignore[attr-defined] # int or float
            params[name] = min(max(value, low), high)
        return params

    def points(self) -> list[Params] | None:
        """Return every combination of parameters, or None where a parameter is real."""
        axes: dict[str, Sequence[Any]] = {}
        for name, d in self.distributions().items():
            parameter = self._space.space[name]
            if isinstance(parameter, ChoiceParameter):
                axes[name] = d.choices  # type: ignore[attr-defined]
            elif isinstance(parameter, IntParameter):
                axes[name] = parameter.values()
            elif d.low == d.high:  # type: ignore[attr-defined]
                axes[name] = [d.low]  # type: ignore[attr-defined]
            else:
                return None
        return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]

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


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


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
