"""How many trials run at once, and what a resumed search takes over, without starting Ray."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from trial_rows import trial_row

from nls_tune.allocation.allocator import Allocator, Suggestion
from nls_tune.errors import InputError
from nls_tune.metrics import AVERAGES, Judging, best_epoch
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import SearchPlan, make_plan
from nls_tune.plan.settings import SearchSettings, check_search_settings
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_epochs, read_trials
from nls_tune.runs.schemas import config_columns, settings_of
from nls_tune.session.searching import _rung_values, adopt_results, make_progress
from nls_tune.training.compiling import Compiler
from nls_tune.training.data import DeviceData
from nls_tune.training.trial import Trial, Workplace
from nls_tune.tune.cluster import Slots, check_node, local_resources, slots_of

LEVEL = "symmetric:0.4"
#: A run of version 0.1.
OLD = Path(__file__).parents[1] / "data" / "run_0.1" / "finished"


@pytest.mark.parametrize(
    ("resources", "settings", "slots"),
    [
        ({"CPU": 8}, {"max_concurrent": 3}, Slots(3, 1, 0.0)),
        ({"CPU": 2}, {"max_concurrent": 3}, Slots(2, 1, 0.0)),
        ({"CPU": 8, "GPU": 1}, {"max_concurrent": 2, "trials_per_gpu": 4}, Slots(2, 1, 0.5)),
        ({"CPU": 2}, {}, Slots(2, 1, 0.0)),
        ({"CPU": 8, "GPU": 0}, {"cpus_per_trial": 3}, Slots(2, 3, 0.0)),
        ({"CPU": 8, "GPU": 2}, {}, Slots(2, 1, 1.0)),
        ({"CPU": 16, "GPU": 2}, {"trials_per_gpu": 4}, Slots(8, 1, 0.25)),
        ({"CPU": 4, "GPU": 2}, {"trials_per_gpu": 4}, Slots(4, 1, 0.5)),
        ({"CPU": 16, "GPU": 1}, {"trials_per_gpu": 3}, Slots(3, 1, 1 / 3)),
        ({"CPU": 2}, {"cpus_per_trial": 3}, "--cpus-per-trial must be at most the 2 CPUs"),
        ({"CPU": 2, "GPU": 0}, {"trials_per_gpu": 2}, "--trials-per-gpu 2 needs a GPU"),
        ({}, {}, "CPUs"),
    ],
)
def test_slots(resources, settings, slots):
    if isinstance(slots, Slots):
        assert slots_of(resources, SearchSettings(**settings)) == slots
        return
    with pytest.raises(InputError, match=slots):
        slots_of(resources, SearchSettings(**settings))


BIG, SMALL, GPUS = {"CPU": 16.0}, {"CPU": 2.0}, {"CPU": 2.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("slots", "nodes", "most"),
    [
        (Slots(8, 2, 0.0), [SMALL, SMALL], None),
        (Slots(1, 3, 0.0), [SMALL, SMALL], "the 2 CPUs of one node, got 3"),
        (Slots(1, 3, 0.0), [SMALL, BIG], None),
        (Slots(4, 2, 0.5), [BIG, GPUS], None),
        (Slots(4, 3, 0.5), [BIG, GPUS], "the 2 CPUs of one node with a GPU, got 3"),  # 18 CPUs, but not there
        (Slots(1, 1, 0.0), [], "the 0 CPUs"),
    ],
)
def test_a_trial_must_fit_on_one_node(slots, nodes, most):
    if most is None:
        check_node(slots, nodes)
        return
    with pytest.raises(InputError, match=f"--cpus-per-trial must be at most {most}.*; lower it"):
        check_node(slots, nodes)


def test_the_cpus_are_those_that_this_process_may_use():
    everything = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(everything)})
        assert local_resources()["CPU"] == 1
    finally:
        os.sched_setaffinity(0, everything)
    assert local_resources()["CPU"] == len(everything)


class Resumed:
    """A run directory with results in it, and what a search takes over from them."""

    def __init__(self, plan: SearchPlan, folder: Path) -> None:
        self.plan, self.data, self.run = plan, LevelData(plan), RunDirectory(folder)
        self.run.create()

    # Each of the two returns the trial's name.
    def write(self, status: str = "completed", stage: str = "search", **config: Any) -> str:
        settings = self.plan.training_settings(self.plan.space.default(**config))
        trial_id = self.data.trial(LEVEL, settings).trial_id
        row = trial_row(noise_level=LEVEL, status=status, stage=stage, arm=settings.arm, error=None)
        self.run.write_trial({**row, **config_columns(settings), "trial_id": trial_id})
        return trial_id

    def leave_half_done(self, **config: Any) -> str:
        trial = self.data.trial(LEVEL, self.plan.training_settings(self.plan.space.default(**config)))
        TrialCheckpoint(self.run.checkpoints / trial.trial_id).start(trial)
        return trial.trial_id

    def take_over(self) -> int:
        self.allocator = Allocator(self.plan.groups(), self.plan.rungs(), seed=self.plan.settings.seed)
        self.progress = make_progress(self.plan, 2)
        return adopt_results(self.plan, self.data, self.run, self.allocator, self.progress)

    def ask_all(self) -> list[str]:
        names = []
        while (suggestion := self.allocator.ask()) is not None:
            names.append(self.name_of(suggestion))
            self.allocator.tell(suggestion.number, "completed", 0.5, 1.0)
        return names

    def name_of(self, suggestion: Suggestion) -> str:
        settings = self.plan.training_settings(suggestion.config)
        return self.data.trial(suggestion.group.noise_level, settings).trial_id


@pytest.fixture
def resumed(tiny_plan, tmp_path) -> Resumed:
    return Resumed(tiny_plan, tmp_path / "run")


def plan_of(**settings: Any) -> SearchPlan:
    checked = check_search_settings(
        **{"dataset": "twonorm", "noise": (LEVEL,), "preset": "cpu", "train_size": 500, **settings}
    )
    return make_plan(checked, 0, progress=False)


class TestAdoption:
    def test_an_empty_run_has_everything_to_do(self, resumed):
        assert resumed.take_over() == 0
        assert len(resumed.ask_all()) == 4

    @pytest.mark.parametrize("status", ["completed", "stopped", "diverged", "failed"])
    def test_a_trial_that_ended_is_not_run_again(self, resumed, status):
        done = resumed.write(status, smooth_rate=0.0)
        assert resumed.take_over() == 1
        asked = resumed.ask_all()
        assert len(asked) == len(set(asked)) == 3
        assert done not in asked
        assert resumed.progress.levels[LEVEL].ended == {status: 1}

    def test_an_interrupted_trial_is_the_first_of_its_group(self, resumed):
        interrupted = resumed.write("interrupted", smooth_rate=-2.5, lr=0.02)
        assert resumed.leave_half_done(smooth_rate=-2.5, lr=0.02) == interrupted
        assert resumed.take_over() == 0
        asked = resumed.ask_all()
        assert asked.count(interrupted) == 1
        start = resumed.leave_half_done(smooth_rate=-4.0)
        assert asked.index(interrupted) < asked.index(start)
        assert len(set(asked)) == 4

    def test_memory_that_ran_out_beside_others_is_tried_again_and_alone_it_stands(self, resumed):
        """The folder of its checkpoint says which it was."""
        beside = resumed.write("out_of_memory", smooth_rate=-2.5)
        assert resumed.leave_half_done(smooth_rate=-2.5) == beside
        alone = resumed.write("out_of_memory", smooth_rate=0.0)
        assert resumed.take_over() == 1
        assert resumed.progress.levels[LEVEL].ended == {"out_of_memory": 1}
        asked = resumed.ask_all()
        assert len(set(asked)) == len(asked) == 3
        assert beside in asked
        assert alone not in asked

    def test_a_trial_without_a_row_goes_on_too_but_not_from_a_torn_folder(self, resumed):
        """That is what a killed process leaves."""
        half_done = resumed.leave_half_done(smooth_rate=-2.5)
        torn = resumed.run.checkpoints / resumed.leave_half_done(smooth_rate=-3.5)
        (torn / "trial.json").write_text('{"trial')
        resumed.take_over()
        asked = resumed.ask_all()
        assert half_done in asked
        assert torn.name not in asked
        assert len(asked) == 4
        assert not torn.exists()

    def test_a_trial_whose_row_was_damaged_is_run_again_if_its_settings_can_still_be_read(self, resumed, caplog):
        whole = resumed.write(smooth_rate=0.0)
        readable, lost = resumed.write(smooth_rate=-2.5, lr=0.02), resumed.write(smooth_rate=-3.5, lr=0.02)
        part = resumed.run.trials / f"{readable}.parquet"
        part.write_bytes(part.read_bytes().replace(b"completed", b"comple?ed"))
        part = resumed.run.trials / f"{lost}.parquet"
        changed = pq.read_table(part, partitioning=None).to_pylist()[0] | {"lr": 0.021}
        pq.write_table(pa.Table.from_pylist([changed], pq.read_schema(part)), part)
        assert resumed.take_over() == 1  # also where nothing was set aside
        assert {f"trials/{name}.parquet is not" in caplog.text for name in (readable, lost)} == {True}
        lines = resumed.run.tidy()
        assert sorted(line.split("/")[1][:16] for line in lines) == sorted([readable, lost])
        assert resumed.take_over() == 1
        asked = resumed.ask_all()
        assert len(set(asked)) == len(asked) == 3
        assert readable in asked
        assert {whole, lost}.isdisjoint(asked)

    def test_a_folder_of_another_search_changes_nothing(self, resumed):
        trial = resumed.data.trial(LEVEL, resumed.plan.training_settings(resumed.plan.space.default()))
        TrialCheckpoint(resumed.run.checkpoints / "abc").start(replace(trial, noise_level="clean"))
        assert resumed.take_over() == 0
        assert len(resumed.ask_all()) == 4

    def test_a_folder_left_behind_by_a_trial_that_ended_is_removed(self, resumed):
        done = resumed.write(smooth_rate=0.0)
        resumed.leave_half_done(smooth_rate=0.0)
        resumed.take_over()
        assert list(resumed.run.checkpoints.iterdir()) == []
        assert done not in resumed.ask_all()

    def test_so_is_that_of_a_confirmation(self, resumed):
        folders = {}
        for rate, status in ((0.0, "completed"), (-4.0, "interrupted")):
            resumed.write(status, stage="confirm", smooth_rate=rate)
            folders[status] = resumed.run.checkpoints / resumed.leave_half_done(smooth_rate=rate)
        assert resumed.take_over() == 0
        assert (folders["completed"].exists(), folders["interrupted"].exists()) == (False, True)


class TestRungsOfAnEarlierSession:
    """What a rung has judged is computed from the epochs again, and must be what the trial has reported there."""

    @pytest.mark.parametrize("spans", ["[]", "[1.0, 0.3]"])
    @pytest.mark.parametrize("rate", [0.0, -0.5])
    @pytest.mark.parametrize(
        ("objective", "metric"),
        [("best", "accuracy"), ("last", "macro_f1"), (None, "accuracy"), (None, "balanced_accuracy")],
    )
    def test_they_are_those_of_the_reports(self, tmp_path, spans, rate, objective, metric):
        overrides = ("batch_size=4", "lr.high=0.5", f"average_spans={spans}")
        plan = plan_of(overrides=overrides, objective=objective, metric=metric, epochs=12, train_size=100)
        settings = plan.training_settings(plan.space.default(smooth_rate=rate, lr=0.2, warmup_epochs=2))
        assert settings.average_spans == tuple(json.loads(spans))
        data, judged = LevelData(plan), [settings.rung_epoch(rung) for rung in plan.rungs().levels]
        spec = data.trial(LEVEL, settings, judged_at=[epoch for epoch in judged if epoch is not None])
        dataset, device = data.load(spec.data), torch.device("cpu")
        judging = Judging(plan.settings.objective, metric=metric)
        place = Workplace(device, "a CPU", Compiler("off"), judging, tmp_path, None, ())
        trial, reports = Trial(spec, dataset, DeviceData.load(dataset, device), place), []
        while not (reports and reports[-1].done):
            reports.append(trial.train())
        reported = {report.gls_epochs: report.objective for report in reports if report.epoch in spec.judged_at}
        assert len(reported) >= 2
        rows = [asdict(metrics) for report in reports for metrics in report.new_epochs]
        curve = pd.DataFrame(rows)
        for name in AVERAGES.values():
            curve[name] = [np.array(one) for one in curve[name]]  # as read
        assert _rung_values(plan, curve, settings) == reported

    def test_those_of_an_older_version_have_no_averages(self):
        plan, epochs = plan_of(epochs=5, scheduler="asha"), read_epochs(OLD)
        for row in read_trials(OLD).to_dict("records"):
            settings, curve = settings_of(row), epochs[epochs["trial_id"] == row["trial_id"]]
            for rung, value in _rung_values(plan, curve, settings).items():
                accuracies = curve["val_accuracy"].tolist()[: settings.rung_epoch(rung)]
                assert value == best_epoch(accuracies, settings.first_counting_epoch).value


RATE = "{type: float, low: -8, high: 0.8, default: -1}"
LR = "{type: float, low: 1.0e-4, high: 0.1, scale: log, default: 0.01}"
SPACE = """
space:
  smooth_rate: {RATE}
  warmup_epochs: {type: choice, values: [1], default: 1}
  milestones: {type: choice, values: [[2], [3]], default: [2]}
  lr: {LR}
fixed: {model: mlp}
budget: {trials: 12, epochs: 6, grace_epochs: 6}
"""


class TestSpellingsOfOneValue:
    """YAML has whole numbers and lists where settings have floats and tuples: the trial is the same."""

    @pytest.mark.parametrize("rates", [(), (0, -1, -2, 0.2)])
    def test_a_grid_runs_every_rate_once(self, tmp_path, rates):
        """Also where a start point, here the noise-cancelling rate of -4, lies on it."""
        plan = plan_of(space="cifar10n", preset="paper", overrides=("model=mlp", "crop_padding=0", "flip=false"))
        assert {-2.0, -4.0} <= set(plan.space.space["smooth_rate"].values)
        resumed = Resumed(plan, tmp_path / "run")
        done = {resumed.write(smooth_rate=rate) for rate in rates}
        assert resumed.take_over() == len(rates)
        asked = resumed.ask_all()
        assert not done & set(asked)
        assert len(asked) == len(set(asked)) == 14 - len(rates)

    @pytest.mark.parametrize(
        ("rate", "lr", "more", "done"),
        [
            (RATE, LR, "start: [{smooth_rate: -5}]", [{"smooth_rate": -5}]),
            (RATE, LR, "", [{"smooth_rate": 0.0, "milestones": [3]}]),
            (
                "{type: choice, values: [0, 0.1, -4], default: 0}",
                "{type: choice, values: [1, 0.1], default: 0.1}",
                "arms: {ce: 1, positive: 1, negative: 1}",
                [{"smooth_rate": 0, "lr": 1}, {"smooth_rate": -4, "lr": 1}],
            ),
        ],
        ids=["start point of whole numbers", "choice of lists", "choice of whole numbers"],
    )
    def test_what_has_a_row_is_not_run_again(self, tmp_path, rate, lr, more, done):
        space = tmp_path / "space.yaml"
        space.write_text(SPACE.replace("{RATE}", rate).replace("{LR}", lr) + more)
        resumed = Resumed(plan_of(space=str(space)), tmp_path / "run")
        written = {resumed.write(**config) for config in done}
        assert resumed.take_over() == len(done)
        asked = resumed.ask_all()
        assert not written & set(asked)
        assert len(written | set(asked)) == 12
