"""How many trials run at once, and what a resumed search takes over, without starting Ray."""

from __future__ import annotations

import os
from typing import Any

import pytest
from trial_rows import trial_row

from nls_tune.allocation.allocator import Allocator, Suggestion
from nls_tune.errors import InputError
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import SearchPlan, make_plan
from nls_tune.plan.settings import SearchSettings, check_search_settings
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.schemas import config_columns
from nls_tune.session.searching import adopt_results, make_progress
from nls_tune.tune.cluster import Slots, check_node, local_resources, slots_of

LEVEL = "symmetric:0.4"


@pytest.mark.parametrize(
    ("resources", "settings", "slots"),
    [
        ({"CPU": 2}, {}, Slots(2, 1, 0.0)),
        ({"CPU": 8, "GPU": 0}, {"cpus_per_trial": 3}, Slots(2, 3, 0.0)),
        ({"CPU": 8, "GPU": 2}, {}, Slots(2, 1, 1.0)),
        ({"CPU": 16, "GPU": 2}, {"trials_per_gpu": 4}, Slots(8, 1, 0.25)),
        ({"CPU": 4, "GPU": 2}, {"trials_per_gpu": 4}, Slots(4, 1, 0.5)),
        ({"CPU": 16, "GPU": 1}, {"trials_per_gpu": 3}, Slots(3, 1, 1 / 3)),
    ],
)
def test_slots(resources, settings, slots):
    assert slots_of(resources, SearchSettings(**settings)) == slots


@pytest.mark.parametrize(
    ("resources", "settings", "message"),
    [
        ({"CPU": 2}, {"cpus_per_trial": 3}, "--cpus-per-trial must be at most the 2 CPUs"),
        ({"CPU": 2, "GPU": 0}, {"trials_per_gpu": 2}, "--trials-per-gpu 2 needs a GPU"),
        ({}, {}, "CPUs"),
    ],
)
def test_not_even_one_trial_fits(resources, settings, message):
    with pytest.raises(InputError, match=message):
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


def name_of(plan: SearchPlan, config: dict[str, Any]) -> str:
    return LevelData(plan).trial(LEVEL, plan.training_settings(config)).trial_id


class Resumed:
    """A run directory with results in it, and what a search takes over from them."""

    def __init__(self, plan: SearchPlan, run: RunDirectory) -> None:
        self.plan, self.data, self.run = plan, LevelData(plan), run
        run.create()

    def write(self, status: str = "completed", stage: str = "search", **config: Any) -> str:
        """Write the row of a trial as the recorder does; return its name."""
        settings = self.plan.training_settings(self.plan.space.default(**config))
        trial_id = self.data.trial(LEVEL, settings).trial_id
        row = trial_row(noise_level=LEVEL, status=status, stage=stage, arm=settings.arm, error=None)
        self.run.write_trial({**row, **config_columns(settings), "trial_id": trial_id})
        return trial_id

    def leave_half_done(self, **config: Any) -> str:
        """Leave the folder of a trial that was running; return its name."""
        trial = self.data.trial(LEVEL, self.plan.training_settings(self.plan.space.default(**config)))
        TrialCheckpoint(self.run.checkpoints / trial.trial_id).start(trial)
        return trial.trial_id

    def take_over(self) -> int:
        self.allocator = Allocator(self.plan.groups(), self.plan.rungs(), seed=self.plan.settings.seed)
        self.progress = make_progress(self.plan, 2)
        return adopt_results(self.plan, self.data, self.run, self.allocator, self.progress)

    def ask_all(self) -> list[str]:
        """The names of all trials that are still run."""
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
    return Resumed(tiny_plan, RunDirectory(tmp_path / "run"))


def plan_of(**settings: Any) -> SearchPlan:
    checked = check_search_settings(**{"noise": (LEVEL,), "preset": "cpu", "train_size": 500, **settings})
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

    def test_when_everything_is_done_nothing_is_left(self, resumed):
        for rate in (0.0, 0.1, -4.0, -1.0):
            resumed.write(smooth_rate=rate)
        assert resumed.take_over() == 4
        assert resumed.allocator.num_left() == 0
        assert resumed.ask_all() == []

    def test_an_interrupted_trial_is_the_first_of_its_group(self, resumed):
        interrupted = resumed.write("interrupted", smooth_rate=-2.5, lr=0.02)
        assert resumed.leave_half_done(smooth_rate=-2.5, lr=0.02) == interrupted
        assert resumed.take_over() == 0
        asked = resumed.ask_all()
        assert asked.count(interrupted) == 1
        start = name_of(resumed.plan, resumed.plan.space.default(smooth_rate=-4.0))
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

    def test_a_trial_without_a_row_goes_on_too(self, resumed):
        """That is what a killed process leaves."""
        half_done = resumed.leave_half_done(smooth_rate=-2.5)
        resumed.take_over()
        assert half_done in resumed.ask_all()

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

    def test_a_torn_folder_is_removed(self, resumed):
        folder = resumed.run.checkpoints / resumed.leave_half_done(smooth_rate=-2.5)
        (folder / "trial.json").write_text('{"trial')
        resumed.take_over()
        assert not folder.exists()
        assert len(resumed.ask_all()) == 4

    def test_other_stages_do_not_count(self, resumed):
        resumed.write(stage="confirm", smooth_rate=0.0)
        assert resumed.take_over() == 0

    def test_many_trials_of_an_arm_are_all_different(self, tmp_path):
        resumed = Resumed(plan_of(num_trials=16, epochs=6), RunDirectory(tmp_path / "run"))
        done = {resumed.write(smooth_rate=rate) for rate in (0.0, 0.1, -4.0, -1.0, -2.0, -3.0)}
        resumed.take_over()
        asked = resumed.ask_all()
        assert len(asked) == len(set(asked)) == 10
        assert not done & set(asked)


SPACE = """
space:
  smooth_rate: {RATE}
  warmup_epochs: {type: int, low: 0, high: 2, default: 1}
  lr: {type: float, low: 1.0e-4, high: 0.1, scale: log, default: 0.01}
fixed: {model: mlp}
budget: {trials: TRIALS, epochs: 6, grace_epochs: 6}
"""


class TestSpellingsOfOneValue:
    """YAML has whole numbers and lists where settings have floats and tuples: the trial is the same."""

    def write_space(self, tmp_path, text: str) -> str:
        (tmp_path / "space.yaml").write_text(text)
        return str(tmp_path / "space.yaml")

    def grid(self) -> SearchPlan:
        return plan_of(space="paper_grid", overrides=("model=mlp", "crop_padding=0", "flip=false"))

    def test_a_grid_runs_every_rate_once(self, tmp_path):
        """Also where a start point, here the noise-cancelling rate of -4, lies on it."""
        resumed = Resumed(self.grid(), RunDirectory(tmp_path / "run"))
        resumed.take_over()
        asked = resumed.ask_all()
        assert len(asked) == len(set(asked)) == 14

    def test_a_grid_of_whole_numbers_is_resumed_where_it_was(self, tmp_path):
        plan = self.grid()
        rates = [v for v in plan.space.space["smooth_rate"].values if v < 0]
        assert -2.0 in rates
        resumed = Resumed(plan, RunDirectory(tmp_path / "run"))
        done = {resumed.write(smooth_rate=rate) for rate in (0, -1, -2, 0.2)}
        assert resumed.take_over() == 4
        asked = resumed.ask_all()
        assert not done & set(asked)
        assert len(done | set(asked)) == 14

    def test_a_start_point_of_whole_numbers_is_not_run_again(self, tmp_path):
        text = SPACE.replace("{RATE}", "{type: float, low: -8, high: 0.8, default: -1}").replace("TRIALS", "8")
        space = self.write_space(tmp_path, text + "start: [{smooth_rate: -5}]\n")
        resumed = Resumed(plan_of(space=space), RunDirectory(tmp_path / "run"))
        done = resumed.write(smooth_rate=-5)
        resumed.take_over()
        assert done not in resumed.ask_all()

    def test_a_choice_of_lists(self, tmp_path):
        text = SPACE.replace("{RATE}", "{type: float, low: -8, high: 0.8, default: -1}").replace("TRIALS", "8")
        text = text.replace("fixed:", "  milestones: {type: choice, values: [[2], [3]], default: [2]}\nfixed:")
        resumed = Resumed(plan_of(space=self.write_space(tmp_path, text)), RunDirectory(tmp_path / "run"))
        done = resumed.write(smooth_rate=0.0, milestones=[3])
        assert resumed.take_over() == 1
        assert done not in resumed.ask_all()

    def test_a_choice_of_whole_learning_rates(self, tmp_path):
        text = SPACE.replace("{RATE}", "{type: choice, values: [0, 0.1, -4], default: 0}").replace("TRIALS", "9")
        text = text.replace(
            "lr: {type: float, low: 1.0e-4, high: 0.1, scale: log, default: 0.01}",
            "lr: {type: choice, values: [1, 0.1], default: 0.1}",
        ).replace("{type: int, low: 0, high: 2, default: 1}", "{type: choice, values: [1], default: 1}")
        text += "arms: {ce: 1, positive: 1, negative: 1}\n"
        resumed = Resumed(plan_of(space=self.write_space(tmp_path, text)), RunDirectory(tmp_path / "run"))
        done = {resumed.write(smooth_rate=0, lr=1), resumed.write(smooth_rate=-4, lr=1)}
        resumed.take_over()
        asked = resumed.ask_all()
        assert not done & set(asked)
        assert len(done | set(asked)) == 6


def test_a_search_that_is_resumed_asks_for_the_trials_of_one_that_was_not(tmp_path):
    """As far as they follow from the settings alone: start points come in the same order."""
    plan = plan_of(num_trials=8, epochs=6)
    fresh = Resumed(plan, RunDirectory(tmp_path / "a"))
    fresh.take_over()
    resumed = Resumed(plan, RunDirectory(tmp_path / "b"))
    starts = {name_of(plan, config) for points in plan.levels[0].start.values() for config in points}
    done = resumed.write(smooth_rate=0.0)
    resumed.take_over()
    asked = set(fresh.ask_all())
    assert starts <= asked
    assert starts - {done} <= set(resumed.ask_all())
