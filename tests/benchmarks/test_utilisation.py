"""The measure of ``benchmarks/utilisation.py`` on trials whose times are known."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def utilisation():
    path = Path(__file__).parents[2] / "benchmarks" / "utilisation.py"
    spec = importlib.util.spec_from_file_location("utilisation", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.utilisation


def trials(*spans, share=1.0):
    start = pd.Timestamp("2026-01-01", tz="UTC")
    rows = [
        {
            "started_at": start + pd.Timedelta(seconds=begin),
            "finished_at": start + pd.Timedelta(seconds=end),
            "train_seconds": share * (end - begin),
        }
        for begin, end in spans
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("rows", "slots", "expected"),
    [
        (trials((0, 10), (0, 10), (10, 20), (10, 20)), 2, 1.0),
        (trials((0, 10), (10, 20), (20, 30)), 2, 0.5),  # the second slot stands idle
        (trials((0, 10), (0, 10), (10, 20), (10, 20), share=0.9), 2, 0.9),
        (trials((0, 10), (0, 30), (10, 12)), 2, 1.0),  # what comes after the last start does not count
        (trials((0, 10), (0, 10), (20, 30)), 2, 0.5),
    ],
)
def test_training_over_slot_seconds(utilisation, rows, slots, expected):
    assert utilisation(rows, slots) == pytest.approx(expected)
