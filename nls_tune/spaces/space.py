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
from nls_tune.losses.registry import LOSS_SETTINGS, LOSSES, check_loss, loss_info
from nls_tune.spaces.parameters import ChoiceParameter, FloatParameter, IntParameter, Parameter, coerce, rounded
from nls_tune.spaces.settings import (
    RATE_ARMS,
    TrainingSettings,
    arm_of,
    check_training_settings,
    method_of,
    ordered_arms,
    unknown_setting,
)
from nls_tune.spaces.settings import Arm as Arm

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Params = dict[str, Any]
"""Values of an arm's Optuna distributions by name."""

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
    trial shares. ``arms`` are the shares of a level's trials; the settings of another loss among them are searched in
    the ranges of its registry where the file says nothing of them. ``start`` are configurations that are always run;
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

    @model_validator(mode="before")
    @classmethod
    def _add_loss_settings(cls, content: Any) -> Any:
        """Search the settings of other losses in their usual ranges, unless the file searches or fixes them."""
        arms, space, fixed = (content.get(name) or {} for name in ("arms", "space", "fixed"))
        if not all(isinstance(section, Mapping) for section in (arms, space, fixed)):
            return content  # refused later
        losses = [LOSSES[arm] for arm, share in arms.items() if arm in LOSSES and arm not in RATE_ARMS and share]
        added = {n: p for loss in losses for n, p in loss.settings.items() if n not in {*space, *fixed, "smooth_rate"}}
        return {**content, "space": {**space, **added}} if added else content

    @field_validator("space")
    @classmethod
    def _coerce_space(cls, space: dict[str, Parameter]) -> dict[str, Parameter]:
        return {name: parameter.coerced(name) for name, parameter in space.items()}

    @model_validator(mode="after")
    def _check(self) -> SearchSpace:
        searched, fixed = set(self.space), set(self.fixed)
        ways = {"seed": "--seed", "epochs": "budget.epochs or --epochs", "loss": "arms or --methods"}
        for reserved, way in ways.items():
            if reserved in searched | fixed:
                raise ValueError(f"{reserved} cannot stand in space or fixed; use {way}")
        for name in sorted(searched | fixed):
            if name not in TrainingSettings.model_fields:
                raise unknown_setting(name)
        if both := sorted(searched & fixed):
            raise ValueError(f"{both[0]} stands in both space and fixed; keep it in one")
        if "transition" in searched:
            raise ValueError("transition cannot be searched; fix it")
        if "smooth_rate" not in searched:
            raise ValueError("space must hold smooth_rate: it is what is searched")
        for name, parameter in self.space.items():
            if isinstance(parameter, FloatParameter) and parameter.scale == "log1m" and name != "smooth_rate":
                raise ValueError(f"scale log1m is for smooth_rate alone, got it for {name}; use log")
        for arm in self.arms:
            if arm == "gls":
                raise ValueError("arms: gls is two arms, positive and negative; give them shares")
            if ":" in arm:
                check_loss(arm)
            elif arm not in (*RATE_ARMS, *LOSSES):
                others = [name for name in LOSSES if name not in ("ce", "gls")]
                raise ValueError(f"arms: {unknown_name('arm', arm, (*RATE_ARMS, *others))}")
        if not self.used_arms():
            raise ValueError("no arm has both a share above 0 and a part of smooth_rate; widen one of them")
        for name in itertools.chain(*self.start):
            if name not in self.parameters("ce"):
                raise unknown_name("start key", name, self.parameters("ce"))
        return self

    @property
    def rate(self) -> FloatParameter | ChoiceParameter:
        """The parameter of the smooth rate."""
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

    def used_arms(self) -> list[Arm]:
        """Return the arms that have a share above 0 and configurations."""
        return [arm for arm in ordered_arms(self.arms) if self.arms[arm] and self.has_arm(arm)]

    def has_arm(self, arm: Arm) -> bool:
        """Whether an arm has configurations: one of the rate only where smooth_rate reaches into it."""
        rate = self.rate
        if arm not in RATE_ARMS:
            return True
        if isinstance(rate, ChoiceParameter):
            return any(arm_of(v) == arm for v in rate.values)
        reaches = {"ce": rate.low <= 0 <= rate.high, "positive": rate.high > 0, "negative": rate.low < 0}
        return reaches[arm]

    def quotas(self, num_trials: int) -> dict[Arm, int]:
        """Split a level's trials over its arms.

        Shares are rounded by largest remainder, and where there are enough trials each arm has one; fewer than 4 trials
        go to CE, then negative, then positive. Where other
        losses are compared with equal shares, trials that do not go round are left out: all methods get as many. A
        finite arm gets no more trials than it has configurations, and an arm without trials is left out.
        """
        arms, num_trials = self.used_arms(), self.dealt(num_trials)
        if num_trials < 4 and set(arms) <= set(RATE_ARMS):
            order = [a for a in ("ce", "negative", "positive") if a in arms]
            parts = {a: sum(1 for i in range(num_trials) if order[i % len(order)] == a) for a in arms}
        else:
            counts = largest_remainder(num_trials, [self.arms[a] for a in arms])
            parts = dict(zip(arms, counts, strict=True))
            for arm in arms if num_trials >= len(arms) else ():
                if not parts[arm]:  # what had a trial of fewer keeps it: one of its method's, or else of the largest's
                    parts[max(arms, key=lambda a: (parts[a] > 1 and method_of(a) == method_of(arm), parts[a]))] -= 1
                    parts[arm] = 1
        return {a: n if (size := self.arm(a).size()) is None else min(n, size) for a, n in parts.items() if n}

    def dealt(self, num_trials: int) -> int:
        """Return how many of a level's trials are run: with other losses and equal shares, all methods get as many."""
        shares = self.method_shares()
        equal = len(set(shares.values())) == 1 and not set(shares) <= {"ce", "gls"}
        return num_trials - num_trials % len(shares) if equal else num_trials

    def method_shares(self) -> dict[str, float]:
        """Return the shares of the trials by method: GLS has those of both signs of its rate."""
        shares: dict[str, float] = {}
        for arm in self.used_arms():
            shares[method_of(arm)] = shares.get(method_of(arm), 0) + self.arms[arm]
        return shares

    def needs_matrix(self) -> bool:
        """Whether an arm's loss needs a transition matrix."""
        return any(loss_info(arm).needs == "matrix" for arm in self.used_arms() if arm not in RATE_ARMS)

    def with_methods(self, methods: Sequence[str]) -> SearchSpace:
        """Return the space for a comparison of methods with equal shares; GLS divides its own as this space does."""
        positive, negative = (self.arms.get(arm, 0) if self.has_arm(arm) else 0 for arm in ("positive", "negative"))
        if not positive + negative:
            positive, negative = 1, 1
        arms = {method: positive + negative for method in methods if method != "gls"}
        if "gls" in methods:
            arms |= {"positive": positive, "negative": negative}
        return SearchSpace.model_validate({**self.model_dump(), "arms": arms})

    def arm(self, arm: Arm) -> ArmSpace:
        """Return the part of the space that belongs to an arm."""
        return ArmSpace(self, arm)

    def parameters(self, arm: Arm) -> dict[str, Parameter]:
        """Return the parameters of an arm: those of all arms, and those of its own loss."""
        return {name: parameter for name, parameter in self.space.items() if LOSS_SETTINGS.get(name, arm) == arm}

    def default(self, **given: Any) -> Config:
        """Return the configuration with every parameter at its default, but for those given, perhaps a ``loss``."""
        loss = given.get("loss")
        if loss is None:
            return {name: given.get(name, p.default) for name, p in self.parameters("ce").items()}
        given = {**given, "smooth_rate": 0.0}
        return {"loss": loss, **{name: given.get(name, p.default) for name, p in self.parameters(loss).items()}}

    def config_of(self, settings: TrainingSettings) -> Config:
        """Return the configuration that a training has in this space."""
        loss = {} if settings.arm in RATE_ARMS else {"loss": settings.loss}
        return {**loss, **{name: getattr(settings, name) for name in self.parameters(settings.arm)}}

    def clip_rate(self, rate: float) -> float:
        """Move a rate into the space: to the nearest end of a range, the nearest value of a choice."""
        parameter = self.rate
        if isinstance(parameter, ChoiceParameter):
            return float(min(parameter.values, key=lambda v: abs(v - rate)))
        return min(max(rounded(rate), parameter.low), parameter.high)

    def settings(self, config: Config, seed: int) -> TrainingSettings:
        """Return the training settings of a configuration."""
        loss = config.get("loss", "gls")
        # What another loss has fixed is no part of this training, nor of its name.
        fixed = {name: value for name, value in self.fixed.items() if LOSS_SETTINGS.get(name, loss) == loss}
        return check_training_settings({**fixed, **config, "epochs": self.budget.epochs, "seed": seed}, self.name)

    def corner_settings(self) -> Iterator[TrainingSettings]:
        """Yield the settings of the defaults with one parameter after another at its ends."""
        for name, parameter in self.space.items():
            loss = {"loss": LOSS_SETTINGS[name]} if name in LOSS_SETTINGS else {}
            for value in parameter.extremes():
                yield self.settings(self.default(**loss, **{name: value}), 0)

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
        self._loss = {} if arm in RATE_ARMS else {"loss": arm}
        has_rate = arm in ("positive", "negative")
        self._sampled = {n: p for n, p in space.parameters(arm).items() if n != "smooth_rate" or has_rate}
        if has_rate:
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
        return {**self._loss, **{name: sampled.get(name, 0.0) for name in self._space.parameters(self._arm)}}

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
        """Return the start points of this arm, each once: the defaults with each of ``rates``, then the space's own.

        An arm that has none begins with the space's default rate, if that is its own: no arm begins with luck alone.
        Another loss has the defaults, and the points of CE with its own settings at their defaults.
        """
        points = [self._space.default(smooth_rate=self._space.clip_rate(r)) for r in rates]
        points += [self._space.default(**point) for point in self._space.start]
        arm = "ce" if self._loss else self._arm
        default = self._space.default()
        mine = [point for point in points if arm_of(point["smooth_rate"]) == arm]
        mine = mine or [default] * (arm_of(default["smooth_rate"]) == arm)
        if self._loss:
            mine = [self._space.default(**point, **self._loss) for point in [self._space.default(), *mine]]
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
