from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nls_tune.report.console.sparkline import sparkline

BLOCKS = "▁▂▃▄▅▆▇█"


def test_heights_rise_from_the_lowest_to_the_highest_value():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == BLOCKS
    assert sparkline([0.7, 0.5, 0.6], 10) == "█▁▅"
    assert sparkline([0, 2, 4, 4, 9, 7], 3) == "▁▄█"  # the means 1, 4 and 8
    assert sparkline([0.5] * 3, 5) == "▄▄▄"
    assert sparkline([0.1, math.nan, math.inf, 0.2], 9) == "▁  █"
    assert sparkline([math.nan], 9) == " "
    assert sparkline([], 9) == ""
    with pytest.raises(ValueError, match="at least 1, got 0"):
        sparkline([1.0], 0)


@given(st.lists(st.floats(), max_size=60), st.integers(1, 30))
def test_any_values_give_as_many_characters_as_fit(values, width):
    drawn, plain = sparkline(values, width), sparkline(values, width, ascii_only=True)
    assert len(drawn) == len(plain) == min(width, len(values))
    assert set(drawn) <= set(BLOCKS + " ")
    assert plain.isascii()
    finite = [v for v in values if math.isfinite(v)]
    if len(values) <= width and finite and min(finite) < max(finite):
        assert drawn[values.index(max(finite))] == "█"
        assert drawn[values.index(min(finite))] == "▁"
