"""Start points from an earlier run: whose they are, and what becomes of them in another space."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_runs import write_raw
from trial_rows import trial_row

from nls_tune.errors import InputError
from nls_tune.plan.plan import SearchPlan, make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.plan.start_points import WarmPoint, read_warm_points, stored_warm_points, with_warm_points
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.run_json import RunJson

SPACE = """
space:
  smooth_rate: {type: float, low: -3, high: 0.5, default: -1}
  warmup_epochs: {type: int, low: 0, high: 8, default: 3}
  lr: {type: float, low: 1.0e-3, high: 0.1, scale: log, default: 0.01}
  batch_size: {type: choice, values: [64, 128], default: 64}
fixed: {model: mlp}
budget: {trials: 8, epochs: 20, grace_epochs: 5}
"""


class EarlierRun:
    """A run directory with rows of trials, in which validation says which are selected."""

    def __init__(self, path: Path) -> None:
        self.directory = RunDirectory(path)
        self.directory.create()
        self.directory.write_json(RunJson(schema_version=1, status="finished"))
        self._minute = 0

    def add(self, level: str, rate: float, *, noise_rate: float | None = 0.4, val: float = 0.6, **more) -> None:
        changes = {key: more.pop(key) for key in ("status", "stage") if key in more}
        right = np.arange(100) < 100 * val
        self._minute += 1
        settings = {"smooth_rate": rate, **more}
        row = trial_row(settings, val_correct=right, minute=self._minute, noise_level=level, noise_rate=noise_rate)
        self.directory.write_trial({**row, "best_val_accuracy": val, **changes, "trial_id": f"{self._minute:016x}"})


@pytest.fixture
def earlier(tmp_path) -> EarlierRun:
    return EarlierRun(tmp_path / "earlier")


@pytest.fixture
def make(tmp_path, earlier):
    """Plan a search that starts from the earlier run."""
    (tmp_path / "space.yaml").write_text(SPACE)

    def plan(noise: str = "symmetric:0.4", **changes) -> SearchPlan:
        given = {
            "dataset": "twonorm",
            "noise": tuple(noise.split(",")),
            "space": str(tmp_path / "space.yaml"),
            "train_size": 500,
            "warm_start": earlier.directory.path,
            **changes,
        }
        return make_plan(check_search_settings(**given), 0, progress=False)

    return plan


def test_each_arm_takes_what_was_selected_at_its_level(make, earlier):
    earlier.add("symmetric:0.4", 0.0, val=0.6, lr=0.02)
    earlier.add("symmetric:0.4", 0.0, val=0.7, lr=0.03)
    earlier.add("symmetric:0.4", -2.0, val=0.8, lr=0.04)
    earlier.add("symmetric:0.4", -2.5, val=0.9, lr=0.05, status="stopped")
    earlier.add("symmetric:0.4", -2.6, val=0.9, lr=0.05, stage="confirm")
    earlier.add("symmetric:0.2", -1.5, val=0.9, lr=0.06, noise_rate=0.2)
    (level,) = make().levels
    assert [(p.arm, p.config["lr"], p.noise_level) for p in level.warm] == [
        ("ce", 0.03, "symmetric:0.4"),
        ("negative", 0.04, "symmetric:0.4"),
    ]
    assert level.start["ce"][-1] == level.warm[0].config
    assert level.start["negative"][-1] == level.warm[1].config
    assert len(level.start["negative"]) == 2  # behind the noise-cancelling rate
    assert len(level.start["positive"]) == 1


def test_another_level_takes_the_one_with_the_nearest_noise_rate_and_an_unknown_rate_the_first(make, earlier):
    earlier.add("symmetric:0.1", -0.5, noise_rate=0.1)
    earlier.add("pairflip:0.35", -1.5, noise_rate=0.35)
    earlier.add("given", -2.5, noise_rate=None)
    plan = make("symmetric:0.4,symmetric:0.2")
    assert [p.warm[0].noise_level for p in plan.levels] == ["pairflip:0.35", "symmetric:0.1"]
    found = read_warm_points(earlier.directory.path, plan.space, {"human:worst": None})
    assert [p.noise_level for p in found["human:worst"]] == ["symmetric:0.1"]


def test_a_point_is_moved_into_the_space(make, earlier):
    earlier.add("symmetric:0.4", -7.0, lr=1.0, batch_size=256, weight_decay=0.3, epochs=100, warmup_epochs=25)
    earlier.add("symmetric:0.4", 0.8, lr=1e-5, batch_size=128, epochs=10, warmup_epochs=9)
    positive, negative = make().levels[0].warm
    assert negative.config == {"smooth_rate": -3.0, "warmup_epochs": 5, "lr": 0.1, "batch_size": 64}
    assert positive.config == {"smooth_rate": 0.5, "warmup_epochs": 8, "lr": 1e-3, "batch_size": 128}


def test_a_rate_that_would_change_its_arm_is_left_out(make, earlier):
    earlier.add("symmetric:0.4", 0.2)
    earlier.add("symmetric:0.4", -1.0)
    (level,) = make(overrides=("smooth_rate.high=0",)).levels
    assert [p.arm for p in level.warm] == ["negative"]


def test_duplicates_are_dropped():
    one, other = {"lr": 0.1}, {"lr": 0.2}
    points = [WarmPoint("ce", one, "a"), WarmPoint("ce", other, "a"), WarmPoint("negative", {"lr": 0.3}, "a")]
    assert with_warm_points((one,), "ce", points) == (one, other)


def test_the_points_are_those_of_the_beginning_also_when_the_earlier_run_is_gone(make, earlier, tmp_path):
    earlier.add("symmetric:0.4", -2.0, lr=0.04)
    out = RunDirectory(tmp_path / "out")
    before = make(out=out.path)
    out.create()
    levels = [level.model_dump(mode="json") for level in before.run_levels()]
    write_raw(out.path, identity=before.identity().model_dump(mode="json"), plan=levels)
    earlier.add("symmetric:0.4", -1.0, lr=0.05, val=0.99)
    assert make(out=out.path).levels[0].warm == before.levels[0].warm
    assert make().levels[0].warm != before.levels[0].warm
    shutil.rmtree(earlier.directory.path)
    again = make(out=out.path)
    assert again.levels[0].start == before.levels[0].start
    assert again.identity() == before.identity()
    assert stored_warm_points(out.path, tmp_path / "another run") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warm_start": Path("nowhere")}, "--warm-start: .*nowhere is not a run"),
        ({}, "no trial of a search was completed"),
    ],
)
def test_a_run_that_gives_nothing(make, earlier, changes, message):
    earlier.add("symmetric:0.4", -2.0, status="stopped")
    earlier.add("symmetric:0.4", -2.0, stage="confirm")
    with pytest.raises(InputError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_another_earlier_run_is_another_search(make, earlier):
    earlier.add("symmetric:0.4", -2.0)
    assert make().identity().settings["warm_start"] == str(earlier.directory.path)
    assert "warm_start" not in make(warm_start=None).identity().settings
