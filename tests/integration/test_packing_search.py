"""Several trials per GPU, on a Ray that believes in one: the lack of memory is made up, the rest is as on a GPU."""

import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group
from rich.console import Console

from nls_tune import read_epochs, read_trials, run_search
from nls_tune.errors import InputError
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.tune.estimating import estimate_on_cluster
from nls_tune.tune.trainable import TrainingTrainable

pytestmark = pytest.mark.timeout(240)
RESOURCES = {"CPU": 4, "GPU": 1}
SETTINGS = {
    "dataset": "twonorm",
    "noise": ["symmetric:0.4"], "num_trials": 3, "epochs": 6, "train_size": 500, "confirm_seeds": 0,
    "preset": "cpu", "scheduler": "none", "trials_per_gpu": 3,
}  # fmt: skip
LONG = TrainingSettings(model="mlp", epochs=100_000)
#: The first of these start points has no room beside another trial, the second none at all; CE has room.
CROWDED, TOO_LARGE = 0.1, -4.0


def crowded_trainable(notes: Path) -> type[TrainingTrainable]:
    """The trainable on a GPU that is too small, made of CPU; every trial leaves a note of how it was run."""

    class Crowded(TrainingTrainable):
        def setup(self, config: dict[str, Any], **more: Any) -> None:
            self._beside = more["shared"].trials_per_gpu
            super().setup(config, **{**more, "shared": replace(more["shared"], use_gpu=False)})

        def _prepare(self, spec: TrialSpec) -> None:
            super()._prepare(spec)
            advance, self._trial._advance = self._trial._advance, lambda: self._crowded(advance)

        def _crowded(self, advance: Callable[[], None]) -> None:
            training = self._trial.training
            rate, epoch = training.settings.smooth_rate, training.epoch
            if epoch == 0:
                note = {"pid": os.getpid(), "rate": rate, "beside": self._beside}
                (notes / f"{os.getpid()}-{rate}.json").write_text(json.dumps(note))
            if rate == CROWDED and self._beside > 1 and epoch == 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has other trials")
            if rate == TOO_LARGE:
                raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
            advance()

    return Crowded


@dataclass(frozen=True)
class Searched:
    run: Path
    text: str
    notes: pd.DataFrame
    again: str


@pytest.fixture(scope="module")
def gpu():
    """A Ray session with a GPU that is a number only."""
    ray.init(address="local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def searched(gpu, tmp_path_factory) -> Searched:
    folder = tmp_path_factory.mktemp("packing")
    (folder / "notes").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nls_tune.tune.cluster.local_resources", lambda: RESOURCES)
        patch.setattr("nls_tune.tune.trainable.TrainingTrainable", crowded_trainable(folder / "notes"))
        screens = []
        for _ in range(2):
            text = io.StringIO()
            run_search(out=folder / "run", console=Console(file=text, width=200), **SETTINGS)
            screens.append(text.getvalue())
    notes = pd.DataFrame([json.loads(note.read_text()) for note in (folder / "notes").iterdir()])
    return Searched(folder / "run", screens[0], notes, screens[1])


def test_every_trial_has_one_row_and_only_the_one_without_any_room_ran_out_of_memory(searched):
    rows = read_trials(searched.run)
    assert len(rows) == rows["trial_id"].nunique() == 3
    rows = rows.set_index("smooth_rate")
    assert rows["status"].drop(TOO_LARGE).isin(["completed"]).all()
    assert rows["error"].drop(TOO_LARGE).isna().all()
    assert rows.loc[TOO_LARGE, ["status", "epochs"]].tolist() == ["out_of_memory", 0]
    assert "CUBLAS_STATUS_ALLOC_FAILED" in rows.loc[TOO_LARGE, "error"]
    assert "--set batch_size=N" in rows.loc[TOO_LARGE, "error"]
    assert read_epochs(searched.run).groupby("trial_id")["epoch"].apply(list).tolist() == [[*range(1, 7)]] * 2
    assert list((searched.run / "checkpoints").iterdir()) == []


def test_the_trials_on_the_gpu_are_halved_and_what_ran_out_runs_again(searched):
    beside = searched.notes.groupby("rate")["beside"].apply(sorted)
    assert beside[CROWDED] == [1, 3]
    assert beside[TOO_LARGE] == [1, 3]
    assert beside[0.0] == [3]  # what is finished is not run again
    alone = searched.notes[searched.notes["beside"] == 1]
    assert alone["pid"].nunique() == 1  # the process that ran out has taken over the next trial
    (session,) = json.loads((searched.run / "run.json").read_text())["sessions"]
    assert session["out_of_memory_with"] == [3]
    assert session["slots"] == {"count": 1, "cpus_per_trial": 1, "gpus_per_trial": 1.0}


def test_the_progress_counts_what_is_done(searched):
    ended = [int(number) for number in re.findall(r"^\[(\d)/3\]", searched.text, re.MULTILINE)]
    assert len(ended) == 5  # CE once, the others at 3 and 1
    assert ended == sorted(ended)
    assert ended[-1] == 3
    assert "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB; it runs again" in searched.text
    assert "Memory ran out with 3 trials per GPU: 1 from now on" in searched.text


def test_the_same_command_runs_nothing_again(searched):
    assert "[" not in searched.again.replace("[%", "")
    assert len(json.loads((searched.run / "run.json").read_text())["sessions"]) == 1


@pytest.mark.parametrize("trials", [3, 6, 7, 99])
def test_parts_of_a_gpu_that_are_no_decimals_fill_it(gpu, trials):
    """Ray counts in ten-thousandths: so many fit, and not one more."""
    groups = [placement_group([{"GPU": 1 / trials}]) for _ in range(trials)]
    try:
        assert all(group.wait(5) for group in groups)
        more = placement_group([{"GPU": 1 / trials}])
        groups.append(more)
        assert not more.wait(0.1)
    finally:
        for group in groups:
            remove_placement_group(group)


def everything_is_free() -> bool:
    group = placement_group([RESOURCES])
    try:
        return group.wait(20)
    finally:
        remove_placement_group(group)


def test_noise_is_estimated_by_a_task_that_has_the_gpu(gpu, tiny_plan):
    (level,) = tiny_plan.levels
    quick = replace(level, dataset=replace(level.dataset, val_indices=level.dataset.val_indices[:300]))
    found = estimate_on_cluster(tiny_plan, quick)
    assert (found.num_samples, found.folds) == (800, 3)
    assert found.low <= found.noise_rate <= found.high
    assert everything_is_free()
    broken = replace(level, dataset=replace(level.dataset, noisy_labels=level.dataset.noisy_labels + 1))
    with pytest.raises(InputError, match=r"^labels of twonorm must be 0 to 1, got 1 to 2; renumber them$"):
        estimate_on_cluster(tiny_plan, broken)


def test_an_estimate_that_is_interrupted_lets_the_gpu_go(gpu, tiny_plan, monkeypatch):
    def interrupted(ref):
        ray.wait([ref], timeout=1.0)
        raise KeyboardInterrupt

    level = tiny_plan.levels[0]
    with monkeypatch.context() as patch:
        patch.setattr(ray, "get", interrupted)
        patch.setattr(type(tiny_plan), "training_settings", lambda plan, values: LONG)
        with pytest.raises(KeyboardInterrupt):
            estimate_on_cluster(tiny_plan, level)
    assert everything_is_free()
