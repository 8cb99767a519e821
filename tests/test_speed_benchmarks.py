"""What the benchmarks of overhead, scale and epochs compute, on inputs whose answer is known."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
NAMES = ("throughput", "overhead", "scale", "profile_epoch", "vectorize")


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import overhead
        import profile_epoch
        import scale
        import throughput
        import vectorize

        yield {
            "throughput": throughput, "overhead": overhead, "scale": scale, "profile_epoch": profile_epoch,
            "vectorize": vectorize,
        }  # fmt: skip
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@settings(max_examples=30, deadline=None)
@given(
    spans=st.lists(
        st.lists(st.tuples(st.floats(0.1, 5), st.floats(0.01, 2)), min_size=1, max_size=6), min_size=1, max_size=4
    )
)
def test_overhead_is_what_lies_between_the_trainings_of_a_slot(modules, spans):
    start, rows, expected = pd.Timestamp("2026-01-01", tz="UTC"), [], []
    for slot, trials in enumerate(spans):
        clock = 0.001 * slot
        for number, (train, other) in enumerate(trials):
            end = clock + train + other / 2
            rows.append((start + pd.Timedelta(seconds=clock), start + pd.Timedelta(seconds=end), train))
            clock = end + other / 2
            if number + 1 < len(trials):
                expected.append(other)
    frame = pd.DataFrame(rows, columns=["started_at", "finished_at", "train_seconds"])
    found = modules["overhead"].overheads(frame, len(spans))
    # Where slots overlap a trial may take another's place, but the sum of what is between all of them stays.
    assert len(found) >= len(expected)
    if len(spans) == 1:
        assert found == pytest.approx(expected, abs=1e-5)


def test_trials_that_do_not_follow_one_another_have_no_overhead(modules):
    now = pd.Timestamp("2026-01-01", tz="UTC")
    rows = [{"started_at": now, "finished_at": now + pd.Timedelta(seconds=1), "train_seconds": 1.0}] * 4
    with pytest.raises(ValueError, match="must follow one another"):
        modules["overhead"].overheads(pd.DataFrame(rows), 2)


def test_a_stopwatch_counts_nested_functions_once(modules):
    class Writer:
        def outer(self):
            self.inner()
            time.sleep(0.02)

        def inner(self):
            time.sleep(0.02)

    watch, plain = modules["overhead"]._Stopwatch(), Writer.outer
    with watch.watch({"files": [(Writer, "outer"), (Writer, "inner")]}):
        Writer().outer()
        Writer().inner()
    assert 0.06 <= watch.seconds["files"] < 0.075
    assert Writer.outer is plain


@given(exponent=st.floats(-1, 3), factor=st.floats(1e-3, 1e3))
def test_the_fit_finds_a_power_law(modules, exponent, factor):
    sizes = [10, 100, 300, 1000]
    found = modules["scale"].exponents(sizes, [factor * size**exponent for size in sizes])
    assert found["exponent"] == pytest.approx(exponent, abs=1e-6)
    assert found["exponent_at_the_end"] == pytest.approx(exponent, abs=1e-6)
    assert found["factor"] == pytest.approx(factor, rel=1e-5)


def test_rows_of_epochs_are_written_and_read(modules, tmp_path, capsys):
    modules["scale"].write_rows(tmp_path / "run", 3_000)
    modules["scale"]._read(str(tmp_path / "run"))
    found = json.loads(capsys.readouterr().out)
    assert found["read"] == 3_000
    assert found["read_seconds"] > 0
    assert found["peak_megabytes"] > 10


def test_parts_in_parts_add_up(modules):
    parts = modules["profile_epoch"].Parts(torch.device("cpu"))
    begin = time.perf_counter()
    with parts.part("gather"):
        time.sleep(0.01)
        with parts.part("normalise"):
            time.sleep(0.02)
    with parts.part("evaluation"), parts.part("normalise"):
        time.sleep(0.03)
    parts.finish()
    assert sum(parts.seconds.values()) == pytest.approx(time.perf_counter() - begin, abs=1e-3)
    for name, seconds in (("gather", 0.01), ("normalise", 0.02), ("evaluation", 0.03)):
        assert seconds <= parts.seconds[name] < seconds + 0.02


def test_watching_an_epoch_changes_none_of_its_numbers(modules):
    benchmark = modules["profile_epoch"]
    watched, alone = (benchmark.make_training("small_cnn", 256, "cpu") for _ in range(2))
    for training in (watched, alone):
        training.run_epoch()  # the first epoch of a phase makes the optimiser
    parts = benchmark.parts_of_epoch(watched)
    alone.run_epoch()
    for mine, theirs in zip(watched.history, alone.history, strict=True):
        assert (mine.train_loss, mine.val_loss, mine.val_accuracy) == (
            theirs.train_loss,
            theirs.val_loss,
            theirs.val_accuracy,
        )
    assert sum(parts.values()) >= watched.history[1].seconds
    assert all(parts[name] > 0 for name in parts)
    assert parts["backward"] > parts["loss"]


def test_the_table_of_a_profile_has_every_part(modules):
    found = modules["profile_epoch"].measure("mlp", 0, "cpu", 1)
    assert sum(found["share"].values()) == pytest.approx(1)
    table = modules["profile_epoch"].readme_table({"rows": [found]})
    shares = [float(line.split("|")[2]) for line in table[2:-1]]
    assert np.sum(shares) == pytest.approx(100, abs=0.5)


def test_an_epoch_of_an_mlp_has_the_products_that_it_has(modules):
    found = modules["vectorize"].race("mlp", 2, 2, "cpu", 1)
    products = [20 * 128, 128 * 128, 128 * 2]  # of a sample, by layer
    # Each twice backwards, but for the inputs' gradient; each once for a validation or test sample.
    training = 2 * 4_000 * (3 * sum(products) - products[0])
    assert found["flops_of_an_epoch"] == training + 2 * 14_000 * sum(products)
    assert found["median"]["ratio"] == found["ratios"][0]
    # At 1 and 2 GFLOP/s the products of a training take so many seconds.
    rates = {"training": {"torch": 1e9, "onednn": 5e8}, "evaluation": {"torch": 2e9}}
    least = training / 1e9 + 2 * 14_000 * sum(products) / 2e9
    assert modules["vectorize"].bound_of(found, rates) == pytest.approx(
        found["milliseconds"]["in_turn"][0] / 1e3 / least
    )
    assert min(modules["vectorize"].product_rates(2, 8, 0.01).values()) > 1e6


def test_readme_shows_the_tables_of_the_evidence_that_there_is(modules):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        evidence = ROOT / "benchmarks" / "evidence" / f"{name}.json"
        assert evidence.exists() == (f"benchmarks/evidence/{name}.json" in readme), name
        if evidence.exists():
            table = modules[name].readme_table(json.loads(evidence.read_text(encoding="utf-8")))
            assert "\n".join(table) in readme, name
