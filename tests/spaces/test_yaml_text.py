import time

import pytest
import yaml

from nls_tune.spaces.reading import load_space, shipped_spaces
from nls_tune.spaces.yaml_text import parse_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "more than 10,000 values"),
        ("- 1\n" * 10_001, "more than 10,000 values"),
        ("x" * 50_001, "50,001 characters, 50,000 are the most"),
        ("[" * 20_000, "nested deeper than 20 times"),
        ("&a [*a]", "stands in itself"),
        ("&a {? *a : 1}", "stands in itself"),
        ("a: 1\nb: 2\na: 3", "the key 'a' is there twice"),
        ("{a: 1, b: {c: 1, 'c': 2}}", "the key 'c' is there twice"),
        ("day: 2001-13-45", "month must be in 1..12"),
        ("!!timestamp x", "AttributeError"),
        ("!!int ''", "IndexError"),
        ("!!bool x", "KeyError"),
        ("1" * 5000, "4300 digits"),
        ("!!python/object/apply:os.mkdir [owned]", "could not determine a constructor"),
        ("{a: [1, 2}", "line 1"),
        ("\0", "special characters are not allowed"),
    ],
    ids=lambda text: text[:20],
)
def test_what_nobody_meant_is_one_line_and_quick(text, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin = time.perf_counter()
    with pytest.raises(ValueError, match=problem) as caught:
        parse_yaml(text)
    assert time.perf_counter() - begin < 10
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2}",
        "[1, 1.5e-3, yes, null, 2001-02-03, 'x', {1: 2}]",
        "{a: 1, A: 1, 1: 1}",
    ],
)
def test_everything_else_is_what_the_safe_loader_reads(text):
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize("name", shipped_spaces())
def test_shipped_spaces_are_far_from_the_limits(name):
    assert load_space(name)
