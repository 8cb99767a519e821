"""The kinds of parameter that a search space may hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from nls_tune.spaces.settings import TrainingSettings


class FloatParameter(BaseModel):
    """A real number between ``low`` and ``high``, both included.

    ``scale: log`` is uniform in the logarithm; ``scale: log1m`` (smooth_rate alone) is uniform in
    ``log(1 - r)``, in which theory spreads the noise-cancelling rates of the noise levels evenly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["float"]
    low: Annotated[float, Field(allow_inf_nan=False)]
    high: Annotated[float, Field(allow_inf_nan=False)]
    default: Annotated[float, Field(allow_inf_nan=False)]
    scale: Literal["linear", "log", "log1m"] = "linear"

    @model_validator(mode="after")
    def _check(self) -> FloatParameter:
        _check_range(self.low, self.high, self.default)
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"scale log needs low above 0, got {self.low}")
        if self.scale == "log1m" and self.high >= 1:
            raise ValueError(f"scale log1m needs high below 1, got {self.high}")
        return self


class IntParameter(BaseModel):
    """A whole number ``low``, ``low + step``, ... up to ``high``, both ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["int"]
    low: int
    high: int
    default: int
    step: Annotated[int, Field(ge=1)] = 1
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _check(self) -> IntParameter:
        _check_range(self.low, self.high, self.default)
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

    def values(self) -> range:
        """Return every value."""
        return range(self.low, self.high + 1, self.step)

    def nearest(self, value: float) -> int:
        """Return the value that is nearest to a number."""
        steps = round((min(max(value, self.low), self.high) - self.low) / self.step)
        return self.low + min(steps, (self.high - self.low) // self.step) * self.step


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


def coerce_parameter(name: str, parameter: Parameter) -> Parameter:
    """Return a parameter with its values in its setting's type; a range of another type is a ValueError."""
    if isinstance(parameter, ChoiceParameter):
        values = tuple(coerce(name, value) for value in parameter.values)
        return ChoiceParameter(type="choice", values=values, default=coerce(name, parameter.default))
    field = TrainingSettings.model_fields.get(name)
    kind = {float: "float", int: "int"}.get(field.annotation) if field is not None else parameter.type  # type: ignore[arg-type] # None for other types
    if kind != parameter.type:
        rule = f"{kind} or a choice" if kind else "choice"
        raise ValueError(f"{name} must be a {rule}, got type {parameter.type}; change its type")
    return parameter


def extremes(parameter: Parameter) -> list[Any]:
    """Return the ends of a range, or every value of a choice."""
    return list(parameter.values) if isinstance(parameter, ChoiceParameter) else [parameter.low, parameter.high]


def contains(parameter: Parameter, value: Any) -> bool:
    """Return whether a value lies in a parameter."""
    if isinstance(parameter, FloatParameter):
        return bool(parameter.low <= value <= parameter.high)
    return value in (parameter.values() if isinstance(parameter, IntParameter) else parameter.values)


def map_parameter(parameter: Parameter, change: Callable[[float], int], ratio: float = 1.0) -> Parameter:
    """Return a parameter with every value changed; choices that fall together become one.

    A step of more than 1 is scaled by ``ratio``, and ``high`` and ``default`` move onto the new grid.
    """
    if isinstance(parameter, ChoiceParameter):
        values = tuple(dict.fromkeys(change(v) for v in parameter.values))
        return ChoiceParameter(type="choice", values=values, default=change(parameter.default))
    low, high, default = change(parameter.low), change(parameter.high), change(parameter.default)
    update: dict[str, object] = {"low": low, "high": high, "default": default}
    if parameter.scale == "log" and low < 1:
        update["scale"] = "linear"  # there is no logarithm of 0
    if isinstance(parameter, IntParameter) and parameter.step > 1:
        step = max(1, round(parameter.step * ratio))
        update |= {"step": step, "high": high - (high - low) % step}
        update["default"] = parameter.model_copy(update=update).nearest(default)
    return parameter.model_copy(update=update)


def _check_range(low: float, high: float, default: float) -> None:
    if low > high:
        raise ValueError(f"low must be at most high, got {low} and {high}")
    if not low <= default <= high:
        raise ValueError(f"default must lie between low {low} and high {high}, got {default}")
