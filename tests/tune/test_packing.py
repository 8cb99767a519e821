"""How many trials share a GPU: chosen, limited, lowered; without a GPU and without Ray."""

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_recorder import LEVEL, Driven
from torch.cuda._utils import _get_device_index
from trial_rows import trial_row

from nls_tune import read_trials
from nls_tune.errors import InputError, error_line, is_out_of_memory
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.settings import SearchSettings, check_search_settings
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import runs_again
from nls_tune.runs.schemas import config_columns
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.session import confirming as confirm
from nls_tune.training import devices
from nls_tune.training.report import TrialReport
from nls_tune.tune.cluster import Slots, slots_of
from nls_tune.tune.packing import Packing, packing_note
from nls_tune.tune.work import Work


class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [
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
        assert not is_out_of_memory(error, shared_gpu=True)

    def test_cudnn_without_an_engine_means_memory_only_beside_others(self):
        said = "unable to find an engine to execute this computation"
        for error in (RuntimeError(f"FIND was {said}"), f"RuntimeError: GET was {said}"):
            assert is_out_of_memory(error, shared_gpu=True)
            assert not is_out_of_memory(error)

    def test_the_line_is_short(self):
        text = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB of which\nmore"
        line = error_line(torch.OutOfMemoryError(text))
        assert line == "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB"
        assert is_out_of_memory(line)


class TestSettings:
    def test_a_number_from_1_to_99_and_nothing_else(self):
        for number in (3, "3", 99, "99"):
            assert check_search_settings(trials_per_gpu=number).trials_per_gpu == int(number)
        for value in (0, -1, 100, "0", "1.5", 1.5, "many", "", True, None):
            with pytest.raises(InputError, match="--trials-per-gpu: must be a whole number from 1 to 99"):
                check_search_settings(trials_per_gpu=value)

    def test_the_plan_says_when_cpus_run_short(self):
        def note(cpus: int, **settings: int) -> str | None:
            resources, checked = {"CPU": cpus, "GPU": 2}, SearchSettings(**settings)
            return packing_note(resources, slots_of(resources, checked), checked)

        assert note(8) is note(8, trials_per_gpu=4) is None
        said = "--trials-per-gpu 8 needs 32 CPUs, there are 7: 3 at a time, at most 2 on a GPU"
        assert said in str(note(7, trials_per_gpu=8, cpus_per_trial=2))

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
            assert not packing.may_start()
            assert packing.lower()
            seen.append(packing.slots.trials_per_gpu)
            assert packing.may_start()
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


@pytest.mark.parametrize(("trials", "part"), [(1, None), (2, 0.55), (4, 0.275)])
def test_a_trial_that_shares_a_gpu_has_its_part_of_the_memory(monkeypatch, trials, part):
    asked: list[tuple[float, int | None]] = []

    def limit(part: float, device: Any = None) -> None:
        # Torch's own check: a device without an index is refused.
        asked.append((part, None if device is None else _get_device_index(device, optional=False)))

    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limit)
    for device in ("cpu", "cuda", "cuda:1"):
        devices.limit_memory(torch.device(device), trials)
    assert asked == ([] if part is None else [(pytest.approx(part), None), (pytest.approx(part), 1)])


def test_a_confirmation_that_runs_out_of_memory_goes_on_with_fewer(tiny_plan, tmp_path, monkeypatch):
    """Ray's part is played: each experiment asks for its trials, and one of them has no room beside others."""
    plan, run = tiny_plan, RunDirectory(tmp_path / "run")
    run.create()
    for rate in (0.0, 0.1, -4.0):
        training = plan.training_settings(plan.space.default(smooth_rate=rate))
        name = LevelData(plan).trial(LEVEL, training).trial_id
        row = trial_row(noise_level=LEVEL, arm=training.arm)
        run.write_trial({**row, **config_columns(training), "trial_id": name})
    experiments: list[tuple[int, list[str]]] = []
    short_of_memory: list[str] = []

    def experiment(work, recorder, searcher, scheduler, **more):
        ran: list[str] = []
        sharing = work.packing.slots.trials_per_gpu
        while isinstance(config := searcher.suggest("x"), dict):
            trial: Any = SimpleNamespace(trial_id=config["trial_id"], config=config)
            ran.append(config["trial_id"])
            short_of_memory[:] = short_of_memory or ran
            recorder.on_trial_start(iteration=1, trials=[], trial=trial)
            out = sharing > 1 and config["trial_id"] in short_of_memory
            error = "OutOfMemoryError: CUDA out of memory" if out else None
            report = TrialReport(device="a GPU", node="here", finished=True, out_of_memory=error)
            recorder.on_trial_result(iteration=1, trials=[], trial=trial, result=report.to_result())
            recorder.on_trial_complete(iteration=1, trials=[], trial=trial)
        experiments.append((sharing, ran))

    monkeypatch.setattr(confirm, "run_experiment", experiment)
    resources, settings = {"CPU": 8, "GPU": 1}, SearchSettings(trials_per_gpu=2)
    packing = Packing(resources, settings, slots_of(resources, settings))
    views: list[Any] = []

    def make_view(progress: Any) -> Any:
        views.append(progress)
        return SimpleNamespace(trial_ended=lambda line: None)

    work = Work(plan=plan, data=LevelData(plan), run=run, run_id="run-1", packing=packing, make_view=make_view)
    assert confirm.confirm(work) == "finished"
    first, second = experiments
    assert (first[0], second[0]) == (2, 1)
    assert first[1] == short_of_memory  # no other one started after it
    assert second[1][0] == first[1][0]
    rows = read_trials(run.path)
    confirmed = rows[rows["stage"] == "confirm"]
    assert len(confirmed) == len(second[1]) == 3 * len(plan.confirm_seeds())
    assert set(confirmed["status"]) == {"completed"}
    assert (views[0].num_ended, views[0].num_left(), views[0].levels[LEVEL].running) == (len(confirmed), 0, 0)
    assert list(run.checkpoints.iterdir()) == []


def test_what_ran_out_beside_others_is_described_in_its_folder(tmp_path, tiny_plan):
    """A trial that never began has no folder of its own; a later session must find it all the same."""
    driven = Driven(tiny_plan, tmp_path)
    trial = driven.trial(error="Traceback\nray.exceptions.OutOfMemoryError: Task was killed\n")
    spec = TrialSpec.from_config(trial.config)
    for again in ("it runs again alone", None):
        driven.begin(out_of_memory=lambda again=again: again)
        driven.fail(trial)
        folder = TrialCheckpoint(driven.run.checkpoints / spec.trial_id)
        assert folder.read_trial() == (spec if again else None)
        row = driven.row()
        assert row["status"] == "out_of_memory"
        assert ("runs again alone" in row["error"]) == bool(again)
        assert (driven.progress.num_ended, len(driven.recorder.failures)) == ((0, 0) if again else (1, 1))
