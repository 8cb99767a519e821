from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from nls_tune.parameters import ChoiceParameter, FloatParameter, IntParameter, Parameter, extremes, map_parameter


def parameter(**values) -> Parameter:
    return TypeAdapter(Parameter).validate_python(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"type": "float", "low": 2, "high": 1, "default": 1}, "low must be at most high, got 2.0 and 1.0"),
        ({"type": "float", "low": 0, "high": 1, "default": 2}, "default must lie between .* got 2"),
        ({"type": "int", "low": 0, "high": 1, "default": -1}, "default must lie between .* got -1"),
        ({"type": "float", "low": 0, "high": 1, "default": 1, "scale": "log"}, "log needs low above 0, got 0"),
        ({"type": "int", "low": 0, "high": 1, "default": 1, "scale": "log"}, "log needs low of at least 1, got 0"),
        ({"type": "float", "low": -1, "high": 1, "default": 0, "scale": "log1m"}, "high below 1, got 1"),
        ({"type": "int", "low": 0, "high": 1, "default": 1, "scale": "log1m"}, "'linear' or 'log'"),
        ({"type": "float", "low": 0, "high": float("inf"), "default": 1}, "finite"),
        ({"type": "choice", "values": [], "default": 1}, "values must not be empty"),
        ({"type": "choice", "values": [1, 1], "default": 1}, "values must differ"),
        ({"type": "choice", "values": [1, 2], "default": 3}, "default must be one of .* got 3"),
        ({"type": "choice", "values": [1, 2]}, "default"),
        ({"type": "real", "low": 0, "high": 1, "default": 1}, "'float', 'int', 'choice'"),
        ({"type": "int", "low": 0.5, "high": 1, "default": 1}, "integer"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        parameter(**values)


@pytest.mark.parametrize("values", [[-1, -1.0], [0, False], [0.1, 0.10]])
def test_choices_that_are_equal_are_no_two_choices(values):
    with pytest.raises(ValidationError, match="values must differ"):
        parameter(type="choice", values=values, default=values[0])


def test_a_range_may_be_a_point():
    assert parameter(type="float", low=1, high=1, default=1) == FloatParameter(type="float", low=1, high=1, default=1)


def test_extremes_are_the_ends_or_all_choices():
    assert extremes(parameter(type="int", low=1, high=9, default=2)) == [1, 9]
    assert extremes(parameter(type="choice", values=[3, 1, 2], default=1)) == [3, 1, 2]


def test_mapping_changes_every_value_of_a_range():
    found = map_parameter(parameter(type="int", low=2, high=10, default=4), lambda v: round(v / 2))
    assert found == IntParameter(type="int", low=1, high=5, default=2)


def test_choices_that_fall_together_become_one():
    found = map_parameter(parameter(type="choice", values=[10, 20, 21], default=21), lambda v: round(v / 10))
    assert found == ChoiceParameter(type="choice", values=(1, 2), default=2)
