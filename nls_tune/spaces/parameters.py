"""The kinds of parameter that a search space may hold, and how Optuna samples each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from nls_tune.spaces.settings import TrainingSettings

if TYPE_CHECKING:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

#: Sampled floats are rounded to this many significant digits, so that what is printed is what was run.
_DIGITS = 4

_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Range(BaseModel):
    """The numbers between ``low`` and ``high``, both included."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: str
    low: _Finite
    high: _Finite
    default: _Finite

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low must be at most high, got {self.low} and {self.high}")
        if not self.low <= self.default <= self.high:
            raise ValueError(f"default must lie between low {self.low} and high {self.high}, got {self.default}")
        return self

    def extremes(self) -> list[Any]:
        """Return the ends."""
        return [self.low, self.high]

    def coerced(self, name: str) -> Self:
        """Return the range itself; one of another type than its setting is a ValueError."""
        field = TrainingSettings.model_fields.get(name)
        kinds: dict[Any, str] = {float: "float", float | None: "float", int: "int"}
        kind = kinds.get(field.annotation) if field is not None else self.type  # None for other types
        if kind != self.type:
            rule = f"{kind} or a choice" if kind else "choice"
            raise ValueError(f"{name} must be a {rule}, got type {self.type}; change its type")
        return self


class FloatParameter(_Range):
    """A real number between ``low`` and ``high``, both included.

    ``scale: log`` is uniform in the logarithm; ``scale: log1m`` (smooth_rate alone) is uniform in
    ``log(1 - r)``, in which theory spreads the noise-cancelling rates of the noise levels evenly.
    """

    type: Literal["float"]
    scale: Literal["linear", "log", "log1m"] = "linear"

    @model_validator(mode="after")
    def _check(self) -> FloatParameter:
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"scale log needs low above 0, got {self.low}")
        if self.scale == "log1m" and self.high >= 1:
            raise ValueError(f"scale log1m needs high below 1, got {self.high}")
        return self

    def contains(self, value: Any) -> bool:
        """Return whether a value lies in the range."""
        return bool(self.low <= value <= self.high)

    def distribution(self) -> FloatDistribution:
        """Return what Optuna samples: for ``log1m`` log(1 - r), of which rates are made by `decode`."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(*self._sampled_range(), log=self.scale == "log")

    def decode(self, sampled: float) -> float:
        """Return the value of what Optuna sampled, rounded to four significant digits."""
        value = rounded(-math.expm1(sampled) if self.scale == "log1m" else sampled)
        return min(max(value, self.low), self.high)

    def encode(self, value: float) -> float:
        """Return what Optuna would have sampled for a value, moved into the range."""
        low, high = self._sampled_range()
        return min(max(math.log1p(-value) if self.scale == "log1m" else value, low), high)

    def at(self, share: float) -> float:
        """Return the value at a share of the range, from 0 to 1, on the scale that Optuna samples."""
        low, high = self._sampled_range()
        return self.decode(low * (high / low) ** share if self.scale == "log" else low + share * (high - low))

    def points(self) -> Sequence[float] | None:
        """Return all that Optuna can sample, or None where that is infinitely much."""
        low, high = self._sampled_range()
        return [low] if low == high else None

    def _sampled_range(self) -> tuple[float, float]:
        if self.scale == "log1m":
            return math.log1p(-self.high), math.log1p(-self.low)
        return self.low, self.high


class IntParameter(_Range):
    """A whole number ``low``, ``low + step``, ... up to ``high``, both ends included."""

    type: Literal["int"]
    low: int
    high: int
    default: int
    step: Annotated[int, Field(ge=1)] = 1
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _check(self) -> IntParameter:
        if self.scale == "log" and self.low < 1:
            raise ValueError(f"scale log needs low of at least 1, got {self.low}")
        if self.scale == "log" and self.step > 1:
            raise ValueError(f"scale log takes no step, got {self.step}; leave step out")
        for name, value in (("high", self.high), ("default", self.default)):
            if (value - self.low) % self.step:
                raise ValueError(
                    f"{name} must be low {self.low} plus a multiple of step {self.step}, got {value}; "
                    f"take {self.nearest(value)}, or change low or step"
                )
        return self

    def points(self) -> range:
        """Return every value."""
        return range(self.low, self.high + 1, self.step)

    def contains(self, value: Any) -> bool:
        """Return whether a value is one of `points`."""
        return value in self.points()

    def nearest(self, value: float) -> int:
        """Return the value that is nearest to a number."""
        steps = round((min(max(value, self.low), self.high) - self.low) / self.step)
        return self.low + min(steps, (self.high - self.low) // self.step) * self.step

    def scaled(self, change: Callable[[float], int], ratio: float = 1.0) -> IntParameter:
        """Return the parameter with every value changed.

        A step of more than 1 is scaled by ``ratio``, and ``high`` and ``default`` move onto the new grid.
        """
        low, high, default = change(self.low), change(self.high), change(self.default)
        update: dict[str, object] = {"low": low, "high": high, "default": default}
        if low < 1:
            update["scale"] = "linear"  # there is no logarithm of 0
        if self.step > 1:
            step = max(1, round(self.step * ratio))
            update |= {"step": step, "high": high - (high - low) % step}
            update["default"] = self.model_copy(update=update).nearest(default)
        return self.model_copy(update=update)

    def distribution(self) -> IntDistribution:
        """Return what Optuna samples: the values."""
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, self.scale == "log", self.step)

    def decode(self, sampled: float) -> int:
        """Return the value of what Optuna sampled."""
        return int(sampled)

    def encode(self, value: float) -> int:
        """Return what Optuna would have sampled for a value, moved onto the grid."""
        return self.nearest(value)

    def at(self, share: float) -> int:
        """Return the value at a share of the range, from 0 to 1, on its scale."""
        if self.scale == "log":
            return self.nearest(self.low * (self.high / self.low) ** share)
        return int(_element(self.points(), share))


class ChoiceParameter(BaseModel):
    """One of a list of values."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["choice"]
    values: tuple[Any, ...]
    default: Any

    @model_validator(mode="after")
    def _check(self) -> ChoiceParameter:
        if not self.values:
            raise ValueError("values must not be empty")
        if any(a == b for a, b in itertools.combinations(self.values, 2)):
            raise ValueError(f"values must differ, got {list(self.values)}")
        if self.default not in self.values:
            raise ValueError(f"default must be one of {list(self.values)}, got {self.default!r}")
        return self

    def extremes(self) -> list[Any]:
        """Return every value."""
        return list(self.values)

    def coerced(self, name: str) -> ChoiceParameter:
        """Return the parameter with its values in the type of its setting."""
        values = tuple(coerce(name, value) for value in self.values)
        return ChoiceParameter(type="choice", values=values, default=coerce(name, self.default))

    def contains(self, value: Any) -> bool:
        """Return whether a value is one of the list."""
        return value in self.values

    def scaled(self, change: Callable[[float], int], ratio: float = 1.0) -> ChoiceParameter:
        """Return the parameter with every value changed; those that fall together become one."""
        values = tuple(dict.fromkeys(change(v) for v in self.values))
        return ChoiceParameter(type="choice", values=values, default=change(self.default))

    def distribution(self) -> CategoricalDistribution:
        """Return what Optuna samples: indices, because a value may be a list, which Optuna does not take."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.points())

    def decode(self, sampled: int) -> Any:
        """Return the value of what Optuna sampled."""
        return self.values[sampled]

    def encode(self, value: Any) -> int:
        """Return what Optuna would have sampled for a value."""
        return self.values.index(value)

    def at(self, share: float) -> Any:
        """Return the value at a share of the list, from 0 to 1."""
        return _element(self.values, share)

    def points(self) -> range:
        """Return all that Optuna can sample."""
        return range(len(self.values))


Parameter = Annotated[FloatParameter | IntParameter | ChoiceParameter, Field(discriminator="type")]


def coerce(name: str, value: Any) -> Any:
    """Return the value of a training setting in the setting's type; that of an unknown setting as it is.

    YAML reads ``1e-3`` as text and ``-4`` as a whole number; a configuration must be equal to itself when it comes
    back from the results.

    Raises:
        ValueError: If the setting cannot have this value.
    """
    field = TrainingSettings.model_fields.get(name)
    if field is None:
        return value
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(cast("Any", field.annotation))
        return adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{name}: {error.errors()[0]['msg']}, got {value!r}") from None


def _element(values: Sequence[Any], share: float) -> Any:
    """Return the value at a share of a list: each has an equal part of 0 to 1."""
    return values[min(int(share * len(values)), len(values) - 1)]


def rounded(value: float) -> float:
    """Return a float with as many significant digits as sampled ones have."""
    return float(f"{value:.{_DIGITS}g}")
