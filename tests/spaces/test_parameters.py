import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from nls_tune.spaces.parameters import ChoiceParameter, IntParameter, Parameter


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
        ({"type": "int", "low": 1, "high": 9, "default": 1, "scale": "log", "step": 2}, "log takes no step, got 2"),
        ({"type": "int", "low": 1, "high": 9, "default": 1, "step": 0}, "greater than or equal to 1"),
        ({"type": "int", "low": 1, "high": 8, "default": 1, "step": 3}, "high must be low 1 plus .* got 8; take 7"),
        ({"type": "int", "low": 1, "high": 7, "default": 3, "step": 3}, "default must be low 1 plus .* got 3; take 4"),
        ({"type": "float", "low": -1, "high": 1, "default": 0, "scale": "log1m"}, "high below 1, got 1"),
        ({"type": "int", "low": 0, "high": 1, "default": 1, "scale": "log1m"}, "'linear' or 'log'"),
        ({"type": "float", "low": 0, "high": float("inf"), "default": 1}, "finite"),
        ({"type": "choice", "values": [], "default": 1}, "values must not be empty"),
        ({"type": "choice", "values": [-1, -1.0], "default": -1}, "values must differ"),
        ({"type": "choice", "values": [0, False], "default": 0}, "values must differ"),
        ({"type": "choice", "values": [1, 2], "default": 3}, "default must be one of .* got 3"),
        ({"type": "choice", "values": [1, 2]}, "default"),
        ({"type": "real", "low": 0, "high": 1, "default": 1}, "'float', 'int', 'choice'"),
        ({"type": "int", "low": 0.5, "high": 1, "default": 1}, "integer"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        parameter(**values)


def test_extremes_are_the_ends_or_all_choices():
    assert parameter(type="float", low=1, high=1, default=1).extremes() == [1, 1]  # a range may be a point
    assert parameter(type="choice", values=[3, 1, 2], default=1).extremes() == [3, 1, 2]


def test_mapping_changes_every_value_and_choices_that_fall_together_become_one():
    found = parameter(type="int", low=2, high=10, default=4).scaled(lambda v: round(v / 2))
    assert found == IntParameter(type="int", low=1, high=5, default=2)
    found = parameter(type="choice", values=[10, 20, 21], default=21).scaled(lambda v: round(v / 10))
    assert found == ChoiceParameter(type="choice", values=(1, 2), default=2)


TENS = IntParameter(type="int", low=10, high=80, step=10, default=60)


def test_a_step_leaves_out_what_lies_between_and_is_scaled_with_its_range():
    assert list(TENS.points()) == [10, 20, 30, 40, 50, 60, 70, 80]
    assert (TENS.contains(20), TENS.contains(25), TENS.contains(90)) == (True, False, False)
    assert [TENS.nearest(v) for v in (-5, 14, 16, 76, 1000)] == [10, 10, 20, 80, 80]
    assert TENS.scaled(lambda v: round(v / 2), 0.5) == TENS.model_copy(
        update={"low": 5, "high": 40, "step": 5, "default": 30}
    )


@given(st.integers(0, 50), st.integers(1, 12), st.integers(0, 9), st.data(), st.integers(1, 300))
def test_a_scaled_step_is_still_a_grid(low, step, count, data, epochs):
    default = low + step * data.draw(st.integers(0, count))
    before = IntParameter(type="int", low=low, high=low + step * count, step=step, default=default)
    ratio = epochs / 150
    found = before.scaled(lambda v: min(round(v * ratio), epochs - 1), ratio)
    assert parameter(**found.model_dump()) == found


@given(share=st.floats(0, 1))
def test_a_share_of_the_range_lies_in_it_on_its_scale(share):
    rate = parameter(type="float", low=-8, high=0.8, default=0, scale="log1m")
    lr = parameter(type="float", low=1e-4, high=1, default=0.1, scale="log")
    size = parameter(type="int", low=1, high=100, default=1, scale="log")
    warmup = parameter(type="int", low=0, high=9, default=0, step=3)
    assert rate.contains(rate.at(share))
    assert rate.at(share) == pytest.approx(1 - 0.2 * 45**share, abs=0.001)
    assert lr.at(share) == pytest.approx(10 ** (4 * share - 4), rel=0.001)
    assert abs(size.at(share) - 100**share) <= 0.5 + 1e-9
    assert warmup.at(share) == 3 * min(int(4 * share), 3)
    assert parameter(type="choice", values=["a", "b"], default="a").at(share) == ("a" if share < 0.5 else "b")
