import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nls_tune.files import BLANK_SEAL, json_text, parse_json, seal, seal_holds, sealed_json

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
keys = st.text(max_size=5) | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=settings.default.max_examples // 2)
@given(values)
def test_it_is_read_back_as_that_of_the_standard_library(value):
    text = json_text(value)
    pairs = json.loads(text, object_pairs_hook=list)
    assert pairs == json.loads(json.dumps(value, indent=2), object_pairs_hook=list)
    assert len(text) <= len(json.dumps(value, indent=2))
    assert not any(line != line.rstrip() for line in text.splitlines() if '"' not in line)


def test_a_matrix_has_a_line_a_row_and_anything_else_is_its_text():
    matrix = [[0.5, 0.5], [0.25, 0.75]]
    assert json_text({"a": matrix, "b": ()}) == '{\n  "a": [\n    [0.5, 0.5],\n    [0.25, 0.75]\n  ],\n  "b": []\n}'
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert json_text({"at": now, "places": [Path("a")]}) == f'{{\n  "at": "{now}",\n  "places": ["a"]\n}}'
    large = json_text({"estimate": {"matrix": [[0.123456] * 100] * 100}})
    assert len(large) < 0.6 * len(json.dumps({"estimate": {"matrix": [[0.123456] * 100] * 100}}, indent=2))


@given(before=st.binary(max_size=40), after=st.binary(max_size=40), where=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_seal_holds_until_a_bit_changes(before, after, where, bit):
    after = after.replace(b"=", b"")  # the last mark is the seal
    content = bytearray(before + BLANK_SEAL + after)
    seal(content, len(before))
    assert seal_holds(bytes(content)) is True
    assert seal_holds(before.replace(b"=", b"") + after) is None
    content[where % len(content)] ^= 1 << bit
    assert seal_holds(bytes(content)) is not True  # None where the mark itself is hit


@given(st.dictionaries(st.text(max_size=5), plain, max_size=3))
def test_sealed_json_is_the_object_with_one_entry_more(value):
    value.pop("seal", None)
    text = sealed_json(json_text(value))
    assert seal_holds(text.encode()) is True
    found = json.loads(text)
    assert found.pop("seal").startswith("nls_tune.crc32=")
    assert found == json.loads(json_text(value))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "1" * 5000, b"\xff"])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
