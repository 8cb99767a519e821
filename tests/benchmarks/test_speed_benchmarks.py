"""What the benchmarks of overhead, scale and epochs compute, on inputs whose answer is known."""

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg

ROOT = Path(__file__).parents[2]
NAMES = ("throughput", "overhead", "scale", "profile_epoch")


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import overhead
        import profile_epoch
        import scale
        import throughput

        yield {
            "throughput": throughput, "overhead": overhead, "scale": scale, "profile_epoch": profile_epoch,
        }  # fmt: skip
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@settings(max_examples=30)
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


def _race(monkeypatch, throughput, side, **more):
    """A race between sides that are played, in copies of this process."""
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(throughput.multiprocessing, "get_context", lambda method: context)
    monkeypatch.setattr(throughput, "_side", side)
    return throughput.race(throughput.settings_of("small_cnn", 32), 64, "cpu", 2, **more)


def test_a_side_that_dies_or_is_silent_ends_the_race(modules, monkeypatch):
    def dies(name, settings, num_train, device, pipe):
        pipe.send(1.0)
        if name == "nls_tune":
            pipe.recv()
            os._exit(7)
        while True:
            time.sleep(0.01)

    begin = time.monotonic()
    with pytest.raises(RuntimeError, match="nls_tune ended with exit code 7"):
        _race(monkeypatch, modules["throughput"], dies)
    with pytest.raises(RuntimeError, match=r"reference said nothing for 0\.2 s"):
        _race(monkeypatch, modules["throughput"], lambda *_: time.sleep(60), patience=0.2)
    assert time.monotonic() - begin < 20
    assert not multiprocessing.active_children()


def test_the_race_pairs_the_epochs_of_a_round(modules, monkeypatch):
    def side(name, settings, num_train, device, pipe):
        ours = name == "nls_tune"
        pipe.send(0.5)
        for speed in (2.0, 8.0) if ours else (1.0, 2.0):
            assert pipe.recv() == "epoch"
            pipe.send(speed)
        assert pipe.recv() == "stop"
        pipe.send({"peak_memory_bytes": 3, "largest_worker_bytes": 4, "cudnn_benchmark": ours})

    found = _race(monkeypatch, modules["throughput"], side)
    assert found["ratios"] == [2.0, 4.0]
    assert found["median"] == {"reference": 1.5, "nls_tune": 5.0, "ratio": 3.0}
    assert found["cudnn_benchmark"] == {"reference": False, "nls_tune": True}
    assert found["memory"]["nls_tune"] == {"peak_memory_bytes": 3, "largest_worker_bytes": 4}


@pytest.mark.parametrize("name", ["reference", "nls_tune"])
def test_only_our_side_lets_cudnn_look_for_kernels(modules, monkeypatch, name):
    throughput, said = modules["throughput"], []

    class Trained:
        def __init__(self, *arguments):
            pass

        def train_epoch(self):
            said.append(torch.backends.cudnn.benchmark)

        run_epoch = train_epoch

    class Pipe:
        send = staticmethod(said.append)
        recv = staticmethod(lambda: "stop")

    monkeypatch.setattr(throughput, "Training", Trained)
    monkeypatch.setattr(throughput, "ReferenceLoop", Trained)
    monkeypatch.setattr(throughput, "peak_memory_bytes", lambda device: 0)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    throughput._side(name, throughput.settings_of("small_cnn", 32), 64, "cuda", Pipe)
    assert said[0] is (name == "nls_tune")
    assert said[-1]["cudnn_benchmark"] is said[0]


def test_the_first_product_is_not_timed(modules, monkeypatch):
    throughput, clock = modules["throughput"], [0.0]
    products = []

    def product(a, b, device):
        products.append(len(a))
        clock[0] += 100.0 if len(products) == 1 else 0.5

    monkeypatch.setattr(throughput, "_product", product)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock[0])
    assert throughput.matmul_flops("cpu", "float32", seconds=1.0) == 2 * 1536**3 / 0.5
    assert products == [1536] * 3


def test_on_cuda_a_kernel_is_counted_once(modules):
    def row(key, device, time_total, annotation=False):
        found = FunctionEventAvg()
        found.key, found.device_type, found.is_user_annotation = key, device, annotation
        found.self_device_time_total = time_total
        return found

    rows = [
        row("aten::mm", DeviceType.CPU, 7), row("sgemm_kernel", DeviceType.CUDA, 7),
        row("Memcpy DtoH", DeviceType.CUDA, 1), row("Optimizer.step#SGD.step", DeviceType.CUDA, 5, annotation=True),
    ]  # fmt: skip
    assert [r.key for r in modules["profile_epoch"].on_device(rows)] == ["sgemm_kernel", "Memcpy DtoH"]


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


def test_readme_shows_the_tables_of_the_evidence_that_there_is(modules):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        evidence = ROOT / "benchmarks" / "evidence" / f"{name}.json"
        assert evidence.exists() == (f"benchmarks/evidence/{name}.json" in readme), name
        if evidence.exists():
            table = modules[name].readme_table(json.loads(evidence.read_text(encoding="utf-8")))
            assert "\n".join(table) in readme, name
