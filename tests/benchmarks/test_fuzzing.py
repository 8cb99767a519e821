"""Damaged inputs of every kind are named or change nothing; the program that reads them is benchmarks/fuzzing.py."""

import importlib
import random
from pathlib import Path

import pytest

ENDS = ("same", "said", "another")


@pytest.fixture
def fuzzing(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/nonexistent")  # which the program replaces, and pytest then restores
    module = importlib.import_module("fuzzing")
    for name, spec in [*module.LABEL_FILES.items()]:
        monkeypatch.setitem(module.LABEL_FILES, name, spec)
    return module


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("count", "seed"), [(500, 7), pytest.param(10_000, 8, marks=pytest.mark.soak)])
def test_damaged_inputs_end_in_documented_ways(fuzzing, count, seed, tmp_path):
    found = fuzzing.fuzz(count, seed)
    assert found["failures"] == []
    assert sum(row["inputs"] for row in found["rows"]) == count
    assert all(row["inputs"] == sum(row[end] for end in ENDS) for row in found["rows"])
    assert found["slowest_seconds"] < fuzzing.LIMIT_SECONDS
    sealed = [row for row in found["rows"] if row["another"] and "0.1" not in row["kind"]]
    assert {row["kind"].partition(",")[0] for row in sealed} <= {"search space", "--set", "--noise", "matrix", "images"}


def test_what_is_wrong_is_seen(fuzzing, tmp_path, monkeypatch):
    def read(how):
        def do():
            if how == "slow":
                while True:
                    pass
            if how == "error":
                raise KeyError("x")
            if how == "lines":
                raise fuzzing.InputError("a\nb")
            return how, False

        return do

    monkeypatch.setattr(fuzzing, "LIMIT_SECONDS", 0.2)
    ends = {
        how: fuzzing.outcome(fuzzing.Kind("k", tmp_path, read(how)), "good")[0]
        for how in ("slow", "error", "lines", "other", "good")
    }
    assert ends == {"slow": "slow", "error": "error", "lines": "error", "other": "error", "good": "same"}


def test_damage_is_damage_and_the_seed_decides_it(fuzzing):
    def draw(seed):
        chance = random.Random(seed)
        return [fuzzing.damage(bytes(range(48, 58)) * 20, chance, [b"other"]) for _ in range(100)]

    first = draw(1)
    assert first == draw(1) != draw(2)
    assert sum(one != bytes(range(48, 58)) * 20 for one in first) > 80
