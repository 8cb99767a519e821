"""The kinds of parameter that a search space may hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
    """A whole number between ``low`` and ``high``, both included."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["int"]
    low: int
    high: int
    default: int
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _check(self) -> IntParameter:
        _check_range(self.low, self.high, self.default)
        if self.scale == "log" and self.low < 1:
            raise ValueError(f"scale log needs low of at least 1, got {self.low}")
        return self


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
        if len({repr(v) for v in self.values}) != len(self.values):
            raise ValueError(f"values must differ, got {list(self.values)}")
        if self.default not in self.values:
            raise ValueError(f"default must be one of {list(self.values)}, got {self.default!r}")
        return self


Parameter = Annotated[FloatParameter | IntParameter | ChoiceParameter, Field(discriminator="type")]


def extremes(parameter: Parameter) -> list[Any]:
    """Return the ends of a range, or every value of a choice."""
    if isinstance(parameter, ChoiceParameter):
        return list(parameter.values)
    return [parameter.low, parameter.high]


def map_parameter(parameter: Parameter, change: Callable[[float], int]) -> Parameter:
    """Return a parameter with every value changed; choices that fall together become one."""
    if isinstance(parameter, ChoiceParameter):
        values = tuple(dict.fromkeys(change(v) for v in parameter.values))
        return ChoiceParameter(type="choice", values=values, default=change(parameter.default))
    update = {key: change(getattr(parameter, key)) for key in ("low", "high", "default")}
    return parameter.model_copy(update=update)


def _check_range(low: float, high: float, default: float) -> None:
    if low > high:
        raise ValueError(f"low must be at most high, got {low} and {high}")
    if not low <= default <= high:
        raise ValueError(f"default must lie between low {low} and high {high}, got {default}")
