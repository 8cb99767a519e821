"""How many trials share a GPU: chosen, limited, lowered; without a GPU and without Ray."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch.cuda._utils import _get_device_index
from trial_rows import trial_row

from nls_tune import read_trials
from nls_tune.errors import InputError, error_line, is_out_of_memory
from nls_tune.plan.plan import SearchPlan, make_plan
from nls_tune.plan.settings import SearchSettings, check_search_settings
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import runs_again
from nls_tune.runs.schemas import config_columns
from nls_tune.session import confirming as confirm
from nls_tune.session import session
from nls_tune.training import devices
from nls_tune.tune.cluster import Slots, slots_of
from nls_tune.tune.packing import WORTH, Packing, choose_packing, fits_in_memory, measure_throughputs, packing_note
from nls_tune.tune.packing_probe import GpuMeasurement, PackingMeasurement, Probe

throughput_tables = st.dictionaries(st.integers(1, 64), st.floats(0.1, 1e9), min_size=1)


class TestChoice:
    @given(throughput_tables)
    def test_it_is_the_smallest_that_is_about_as_fast_as_the_fastest(self, found):
        chosen, best = choose_packing(found), max(found.values())
        assert found[chosen] >= (1 - WORTH) * best
        assert all(value < (1 - WORTH) * best for n, value in found.items() if n < chosen)

    @given(throughput_tables, st.floats(0.5, 2))
    def test_the_unit_does_not_matter(self, found, factor):
        other = choose_packing({n: value * factor for n, value in found.items()})
        best = max(found.values())
        # Where rounding decides, either is right.
        assert other == choose_packing(found) or found[other] == pytest.approx((1 - WORTH) * best)

    @pytest.mark.parametrize(
        ("found", "chosen"),
        [
            ({}, 1),
            ({1: 100.0}, 1),
            ({1: 100.0, 2: 104.0}, 1),
            ({1: 100.0, 2: 106.0}, 2),
            ({1: 100.0, 2: 180.0, 4: 185.0}, 2),
            ({1: 100.0, 2: 180.0, 4: 120.0}, 2),
        ],
    )
    def test_examples(self, found, chosen):
        assert choose_packing(found) == chosen


class TestMeasuring:
    @given(st.lists(st.floats(1, 1e6), min_size=8, max_size=8), st.integers(1, 70), st.integers(1, 70))
    def test_it_doubles_up_to_what_fits_as_long_as_that_gains(self, speeds, fits, most):
        asked: list[int] = []

        def measure(trials: int) -> float:
            asked.append(trials)
            return speeds[len(asked) - 1]

        found = measure_throughputs(measure, lambda: fits, most)
        assert found == dict(zip(asked, speeds, strict=False))
        assert asked == [2**i for i in range(len(asked))]
        assert max(asked) <= max(1, min(fits, most))
        gains = [speeds[i] > (1 + WORTH) * max(speeds[:i], default=0) for i in range(len(asked))]
        assert all(gains[:-1])
        assert not gains[-1] or 2 * asked[-1] > min(fits, most)

    def test_one_that_does_not_fit_ends_it(self):
        assert measure_throughputs(lambda n: None if n == 4 else 100.0 * n, lambda: 64, 64) == {1: 100.0, 2: 200.0}
        assert measure_throughputs(lambda n: None, lambda: 64, 64) == {}

    @given(st.integers(1, 2**40), st.floats(0, 1))
    def test_what_fits_in_memory_leaves_some(self, total, part):
        used = max(1, int(total * part))
        number = fits_in_memory(total - used, total)
        assert number >= 1
        assert number == 1 or number * used <= 0.9 * total
        assert (number + 1) * used > 0.9 * total

    def test_a_process_trains_a_slice_and_says_how_fast(self, tiny_plan):
        threads = torch.get_num_threads()
        try:
            settings = tiny_plan.training_settings(tiny_plan.space.default()).model_copy(update={"epochs": 2})
            probe = Probe(tiny_plan.levels[0].dataset, settings, 2, "cpu", "auto")
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(threads)
        assert probe.memory() is None
        assert len(probe._data.train_labels) == 500
        assert len(probe._data.val_labels) == 4000
        for _ in range(3):  # longer than one training
            assert probe.samples_per_second(0.0) > 0

    def test_its_steps_are_compiled_where_those_of_the_trials_are(self, tiny_plan, monkeypatch):
        dataset, asked, compiled = tiny_plan.levels[0].dataset, [], []

        def wants(self, device_type, steps):
            asked.append((self.mode, steps))
            return True

        def compile_nothing(function, **options):
            return lambda network, inputs: compiled.append(len(inputs)) or function(network, inputs)

        monkeypatch.setattr("nls_tune.training.compiling.Compiler.wants", wants)
        monkeypatch.setattr(torch, "compile", compile_nothing)
        monkeypatch.setattr("nls_tune.tune.packing_probe._BATCHES", 2)
        settings = tiny_plan.training_settings(tiny_plan.space.default()).model_copy(update={"batch_size": 50})
        Probe(dataset, settings, torch.get_num_threads(), "cpu", "auto")
        # The steps of a whole trial, not of the two batches that are measured.
        assert asked == [("auto", settings.epochs * (dataset.num_train // 50))]
        assert compiled == [50] * 3  # a rehearsal, and the first epoch

    def test_the_line_says_what_was_measured(self):
        kinds = (
            GpuMeasurement("A", {1: 41_200.0, 2: 70_100.4}, 3 * 2**30),
            GpuMeasurement("B", {1: 10.0}, None, "memory"),
        )
        assert PackingMeasurement(1, kinds, 31.7).line() == (
            "Trials that share a GPU: 1 (A: samples/s with 1: 41,200, 2: 70,100; 3.0 GiB used by one"
            " | B: samples/s with 1: 10; ended by memory; 32 s)"
        )


class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            torch.OutOfMemoryError(),
            RuntimeError("CUDA error: out of memory"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.",
        ],
    )
    def test_memory_has_many_ways_to_run_out(self, error):
        assert is_out_of_memory(error)

    @pytest.mark.parametrize(
        "error", [RuntimeError("CUDA error: device-side assert triggered"), ValueError("memory"), "KeyError: 'x'"]
    )
    def test_other_errors_are_others(self, error):
        assert not is_out_of_memory(error)

    def test_cudnn_without_an_engine_means_memory_only_beside_others(self):
        said = "unable to find an engine to execute this computation"
        for error in (RuntimeError(f"FIND was {said}"), f"RuntimeError: GET was {said}"):
            assert is_out_of_memory(error, shared_gpu=True)
            assert not is_out_of_memory(error)
        assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"), shared_gpu=True)

    def test_the_line_is_short(self):
        text = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB of which\nmore"
        line = error_line(torch.OutOfMemoryError(text))
        assert line == "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB"
        assert is_out_of_memory(line)


class TestSettings:
    @pytest.mark.parametrize(("given", "stored"), [(3, 3), ("3", 3), ("auto", "auto"), ("99", 99)])
    def test_a_number_or_auto(self, given, stored):
        assert check_search_settings(trials_per_gpu=given).trials_per_gpu == stored

    @pytest.mark.parametrize("given", [0, -1, 100, "0", "1.5", 1.5, "many", "", True, None])
    def test_nothing_else(self, given):
        with pytest.raises(InputError, match="--trials-per-gpu: must be a whole number from 1 to 99, or auto"):
            check_search_settings(trials_per_gpu=given)

    def test_it_is_no_part_of_what_a_run_is(self):
        names = {"noise": ("symmetric:0.4",), "preset": "cpu", "train_size": 500}
        one, other = (
            make_plan(check_search_settings(**names, trials_per_gpu=n), 0, progress=False).identity()
            for n in (1, "auto")
        )
        assert one == other

    @pytest.mark.parametrize(
        ("resources", "settings", "said"),
        [
            ({"CPU": 8, "GPU": 2}, {}, None),
            ({"CPU": 8, "GPU": 2}, {"trials_per_gpu": 4}, None),
            ({"CPU": 8, "GPU": 2}, {"trials_per_gpu": "auto"}, "is measured before the first one starts"),
            (
                {"CPU": 7, "GPU": 2},
                {"trials_per_gpu": 8, "cpus_per_trial": 2},
                "--trials-per-gpu 8 needs 32 CPUs, there are 7: 3 at a time, at most 2 on a GPU",
            ),
        ],
    )
    def test_the_plan_says_when_cpus_run_short(self, resources, settings, said):
        checked = SearchSettings(**settings)
        note = packing_note(resources, slots_of(resources, checked), checked)
        assert note is None if said is None else said in str(note)

    @given(st.integers(1, 99), st.integers(1, 8), st.integers(1, 200))
    def test_slots_fit_on_the_gpus_and_lose_none(self, wanted, gpus, cpus):
        slots = slots_of({"CPU": cpus, "GPU": gpus}, SearchSettings(trials_per_gpu=wanted))
        assert slots.count == min(cpus, wanted * gpus)
        assert slots.trials_per_gpu <= wanted
        assert (slots.trials_per_gpu - 1) * gpus < slots.count <= slots.trials_per_gpu * gpus


class TestLowering:
    def packing(self, trials: int, cpus: int = 64) -> tuple[Packing, list[tuple[int, Slots]]]:
        resources, settings = {"CPU": cpus, "GPU": 2}, SearchSettings(trials_per_gpu=trials)
        said: list[tuple[int, Slots]] = []
        return Packing(resources, settings, slots_of(resources, settings), lambda *what: said.append(what)), said

    @given(st.integers(1, 99))
    def test_it_halves_down_to_one_and_ends(self, trials):
        packing, said = self.packing(trials, 200)
        seen = []
        while packing.out_of_memory():
            packing.out_of_memory()  # several trials may run out before the last one has ended
            assert packing.is_draining()
            assert packing.lower()
            seen.append(packing.slots.trials_per_gpu)
            assert not packing.is_draining()
        assert seen == [trials >> i for i in range(1, trials.bit_length())]
        assert not packing.lower()
        assert [before for before, _ in said] == [trials, *seen][:-1]

    def test_without_a_gpu_nothing_can_be_lowered(self):
        packing = Packing({"CPU": 4}, SearchSettings(), slots_of({"CPU": 4}, SearchSettings()))
        assert not packing.out_of_memory()
        assert not packing.lower()

    def test_a_row_stands_unless_its_folder_is_kept(self, tmp_path):
        run = RunDirectory(tmp_path / "run")
        run.create()
        rows = pd.DataFrame(
            {"trial_id": list("abcd"), "status": ["out_of_memory", "out_of_memory", "interrupted", "completed"]}
        )
        for name in "bd":
            (run.checkpoints / name).mkdir()
        assert runs_again(run, rows).tolist() == [False, True, True, False]
        assert runs_again(run, rows.iloc[:0]).tolist() == []


class TestMemoryOfAProcess:
    @pytest.fixture
    def fractions(self, monkeypatch) -> list[tuple[float, int | None]]:
        asked: list[tuple[float, int | None]] = []

        def limit(part: float, device: Any = None) -> None:
            # Torch's own check: a device without an index is refused.
            asked.append((part, None if device is None else _get_device_index(device, optional=False)))

        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limit)
        return asked

    @pytest.mark.parametrize(("trials", "part"), [(2, 0.55), (4, 0.275)])
    def test_a_trial_that_shares_a_gpu_has_its_part(self, fractions, trials, part):
        devices.limit_memory(torch.device("cuda"), trials)
        devices.limit_memory(torch.device("cuda:1"), trials)
        assert fractions == [(pytest.approx(part), None), (pytest.approx(part), 1)]

    def test_alone_or_on_a_cpu_there_is_no_limit(self, fractions):
        devices.limit_memory(torch.device("cuda"), 1)
        devices.limit_memory(torch.device("cpu"), 4)
        assert fractions == []


def confirming_plan() -> SearchPlan:
    settings = check_search_settings(
        noise=("symmetric:0.4",), preset="cpu", epochs=6, num_trials=4, train_size=500, confirm_seeds=2
    )
    return make_plan(settings, 0, progress=False)


def searched(folder: Path) -> tuple[SearchPlan, RunDirectory]:
    """A plan and its run, whose search is over."""
    plan, run = confirming_plan(), RunDirectory(folder / "run")
    run.create()
    for rate in (0.0, 0.1, -4.0):
        training = plan.training_settings(plan.space.default(smooth_rate=rate))
        name = plan.trial_id("symmetric:0.4", training, "search")
        row = trial_row(noise_level="symmetric:0.4", arm=training.arm)
        run.write_trial({**row, **config_columns(training), "trial_id": name})
    return plan, run


def test_a_confirmation_that_runs_out_of_memory_goes_on_with_fewer(tmp_path, monkeypatch):
    """Ray's part is played: each experiment asks for its trials, and one of them has no room beside others."""
    plan, run = searched(tmp_path)
    experiments: list[tuple[int, list[str]]] = []
    short_of_memory: list[str] = []

    def experiment(plan, run, slots, recorder, view, searcher, scheduler, num_trials, *more):
        ran: list[str] = []
        while isinstance(config := searcher.suggest("x"), dict):
            trial: Any = SimpleNamespace(trial_id=config["trial_id"], config=config)
            ran.append(config["trial_id"])
            short_of_memory[:] = short_of_memory or ran
            recorder.on_trial_start(iteration=1, trials=[], trial=trial)
            out = slots.trials_per_gpu > 1 and config["trial_id"] in short_of_memory
            result = {
                "epoch": 0, "new_epochs": [], "best_val_accuracy": 0.0, "best_epoch": None, "train_seconds": 0.0,
                "finished": True, "out_of_memory": "OutOfMemoryError: CUDA out of memory" if out else None,
            }  # fmt: skip
            recorder.on_trial_result(iteration=1, trials=[], trial=trial, result=result)
            recorder.on_trial_complete(iteration=1, trials=[], trial=trial)
        experiments.append((slots.trials_per_gpu, ran))

    monkeypatch.setattr(confirm, "run_experiment", experiment)
    lines: list[str] = []
    resources, settings = {"CPU": 8, "GPU": 1}, SearchSettings(trials_per_gpu=2)
    packing = Packing(resources, settings, slots_of(resources, settings))
    views: list[Any] = []

    def make_view(progress: Any) -> Any:
        views.append(progress)
        return SimpleNamespace(trial_ended=lines.append)

    assert confirm.confirm(plan, run, "run-1", packing, make_view) == "finished"
    (first, second) = experiments
    assert (first[0], second[0]) == (2, 1)
    assert first[1] == short_of_memory  # no other one started after it
    assert second[1][0] == first[1][0]
    rows = read_trials(run.path)
    confirmed = rows[rows["stage"] == "confirm"]
    assert len(confirmed) == len(second[1]) == 6
    assert set(confirmed["status"]) == {"completed"}
    assert (views[0].num_ended, views[0].num_left(), views[0].levels["symmetric:0.4"].running) == (6, 0, 0)
    assert list(run.checkpoints.iterdir()) == []


def test_auto_is_measured_before_the_search_and_stands_in_run_json(monkeypatch, tmp_path):
    measured = PackingMeasurement(4, (GpuMeasurement("H", {1: 10.0, 4: 30.0}, 2**30),), 12.0)
    used: list[Slots] = []

    def execute(plan, run, run_id, packing, make_view, budget, trackers):
        used.append(packing.slots)
        return "interrupted"

    monkeypatch.setattr("nls_tune.tune.cluster.local_resources", lambda: {"CPU": 3, "GPU": 1})
    monkeypatch.setattr("nls_tune.session.session._is_complete", lambda *arguments: False)
    monkeypatch.setattr("nls_tune.tune.packing_probe.measure_packing", lambda plan, cpus: measured)
    monkeypatch.setattr("nls_tune.session.searching.execute", execute)
    resources = {"CPU": 3, "GPU": 1}

    class Opened:
        def __enter__(self):
            return resources

        def __exit__(self, *raised):
            return None

    monkeypatch.setattr("nls_tune.tune.cluster.ray_session", lambda address: Opened())
    settings = check_search_settings(
        noise=("symmetric:0.4",), preset="cpu", train_size=500, out=tmp_path / "run", trials_per_gpu="auto"
    )
    console = Console(file=io.StringIO(), width=200)
    session.run_settings(settings, console, dry_run=False)
    text = console.file.getvalue()
    assert "; 1 at a time at least" in text
    assert "Note: How many trials share a GPU is measured" in text
    assert measured.line() in text
    assert used == [Slots(3, 1, 1 / 3)]  # four would be best; there are CPUs for three
    (stored,) = RunDirectory(tmp_path / "run").read_json()["sessions"]
    assert stored["packing"]["trials_per_gpu"] == 4
    assert stored["packing"]["kinds"][0]["samples_per_second"] == {"1": 10.0, "4": 30.0}
    assert stored["slots"]["count"] == 3


def test_what_ran_out_beside_others_is_described_in_its_folder(tmp_path, tiny_plan):
    """A trial that never began has no folder of its own; a later session must find it all the same."""
    from types import SimpleNamespace

    from nls_tune.session.searching import make_progress
    from nls_tune.tune.experiment import trial_config
    from nls_tune.tune.recorder import Recorder

    run = RunDirectory(tmp_path / "run")
    run.create()
    view: Any = SimpleNamespace(trial_ended=lambda line: None)
    training = tiny_plan.training_settings(tiny_plan.space.default())
    name = tiny_plan.trial_id("symmetric:0.4", training, "search")
    file = tmp_path / "error.txt"
    file.write_text("Traceback\nray.exceptions.OutOfMemoryError: Task was killed\n")
    trial: Any = SimpleNamespace(
        trial_id="t1", config=trial_config(name, "symmetric:0.4", training, "search"), error_file=str(file)
    )
    for again in ("it runs again alone", None):
        progress = make_progress(tiny_plan, 2)
        recorder = Recorder(tiny_plan, run, "run-1", progress, view, out_of_memory=lambda again=again: again)
        recorder.on_trial_error(iteration=1, trials=[], trial=trial)
        found = TrialCheckpoint(run.checkpoints / name).read_trial()
        assert (found is not None) == bool(again)
        assert found is None or found.settings == training
        (row,) = read_trials(run.path).to_dict("records")
        assert row["status"] == "out_of_memory"
        assert ("runs again alone" in row["error"]) == bool(again)
        assert (progress.num_ended, len(recorder.failures)) == ((0, 0) if again else (1, 1))
