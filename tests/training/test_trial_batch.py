"""A batch of trials in the trainable, as Tune drives it, without starting Ray."""

from __future__ import annotations

import dataclasses
import errno
import math
from typing import Any

import numpy as np
import pytest
import torch

from nls_tune import TrainingSettings, load_dataset
from nls_tune.datasets import NoisyDataset
from nls_tune.files import write_atomically
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.spaces.settings import TrainingSettings as Settings
from nls_tune.training.vectorized import VectorizedTraining
from nls_tune.tune.trainable import TrainingTrainable

CPU = torch.device("cpu")
SETTINGS = {"model": "mlp", "epochs": 6, "warmup_epochs": 2, "lr": 0.01, "batch_size": 64}
RATES = {"a": 0.0, "b": -1.0, "c": 0.5}


@pytest.fixture(scope="module")
def dataset() -> NoisyDataset:
    return load_dataset("twonorm", "symmetric:0.2", train_size=200, val_fraction=0.1)


@pytest.fixture
def make(dataset, tmp_path):
    threads = torch.get_num_threads()

    def made(described: dict[str, Any]) -> TrainingTrainable:
        trainable = TrainingTrainable.__new__(TrainingTrainable)  # Tune's constructor wants a session of Ray's
        trainable.setup(
            described,
            arrays={"inputs": dataset.inputs, "test_inputs": dataset.test_inputs},
            datasets={dataset.noise_level: dataclasses.replace(dataset, inputs=dataset.inputs[:0], test_inputs=None)},
            shared={"objective": "best", "use_gpu": False, "cpus_per_trial": 1, "trials_per_gpu": 1}
            | {"checkpoints": str(tmp_path), "warmup_store": None, "warmup_epochs": []},
        )
        return trainable

    yield made
    torch.set_num_threads(threads)


def config(name: str, **changes: Any) -> dict[str, Any]:
    more = {key: changes.pop(key) for key in ("stage", "stop_at") if key in changes}
    settings = Settings(**{**SETTINGS, "smooth_rate": RATES.get(name, -0.5), **changes}).model_dump(mode="json")
    described = {"trial_id": name, "noise_level": "symmetric:0.2", "stage": "confirm", "settings": settings}
    return {**described, "report_at": [], **more}


def run(trainable: TrainingTrainable, most: int = 100) -> list[dict[str, Any]]:
    reports = [trainable.step()]
    while not reports[-1]["done"] and len(reports) < most:
        reports.append(trainable.step())
    return reports


def of_member(reports: list[dict[str, Any]], index: int) -> list[dict[str, Any]]:
    return [report["reports"][index] for report in reports if report["reports"][index] is not None]


def same_reports(together: list[dict[str, Any]], alone: list[dict[str, Any]], samples: int) -> None:
    """Up to the rounding of another order of sums."""
    mine, theirs = ([e for report in reports for e in report["new_epochs"]] for reports in (together, alone))
    assert [e["epoch"] for e in mine] == [e["epoch"] for e in theirs]
    for name in ("train_loss", "val_loss", "lr"):
        np.testing.assert_allclose([e[name] for e in mine], [e[name] for e in theirs], rtol=1e-4)
    np.testing.assert_allclose([e["val_accuracy"] for e in mine], [e["val_accuracy"] for e in theirs], atol=1 / samples)
    last, expected = together[-1], alone[-1]
    assert last.keys() == expected.keys()
    for name in ("epoch", "gls_epochs", "diverged", "finished", "out_of_memory", "done", "device", "node"):
        assert last[name] == expected[name], name


@pytest.fixture
def slow(monkeypatch):
    """Every epoch takes longer than the time between reports."""
    monkeypatch.setattr("nls_tune.training.trial_batch.REPORT_SECONDS", 0.0)
    monkeypatch.setattr("nls_tune.training.trial.REPORT_SECONDS", 0.0)


def test_each_trial_reports_what_it_would_alone(make, slow, dataset):
    trainable = make({"batch": [config(name) for name in RATES]})
    reports = run(trainable)
    assert len(reports) == 6
    for report in reports:
        assert report["best_val_accuracy"] == max(r["best_val_accuracy"] for r in report["reports"])
    for index, name in enumerate(RATES):
        assert trainable.reset_config({**config(name), "trial_id": f"{name} alone"})
        same_reports(of_member(reports, index), run(trainable), dataset.num_val)


def test_a_member_that_ends_says_so_at_once_and_once(make, tmp_path):
    ends = {"a": 2, "b": 6, "c": 4}
    described = [config(name, stage="confirm_all", stop_at=end) for name, end in ends.items()]
    reports = run(make({"batch": [*described, config("diverges", lr=1e30, warmup_lr=1e30, stop_at=6)]}))
    for index, (name, end) in enumerate(ends.items()):
        mine = of_member(reports, index)
        assert [report["done"] for report in mine] == [False] * (len(mine) - 1) + [True]
        assert (mine[-1]["epoch"], mine[-1]["finished"], mine[-1]["best_epoch"]) == (end, True, None)
        epochs = [e for report in mine for e in report["new_epochs"]]
        assert [e["epoch"] for e in epochs] == list(range(1, end + 1)), name
        assert all(math.isnan(e["val_accuracy"]) and e["test_accuracy"] > 0 for e in epochs)
    (lost,) = of_member(reports, 3)
    assert (lost["diverged"], lost["done"], lost["epoch"]) == (True, True, 1)
    # Diverged in epoch 1, then ends after 2, 4 and 6.
    assert [[r is not None for r in report["reports"]] for report in reports] == [
        [True, True, True, True], [True, True, True, False], [False, True, True, False], [False, True, False, False],
    ]  # fmt: skip


def test_the_parts_of_a_batch_that_is_interrupted_go_on_alone(make, slow, tmp_path, dataset):
    trainable = make({"batch": [config(name) for name in RATES]})
    run(trainable, most=3)
    for name in RATES:
        trial = TrialCheckpoint(tmp_path / name).read_trial()
        assert trial is not None
        assert trial.settings == TrainingSettings(**config(name)["settings"])
        assert TrialCheckpoint(tmp_path / name).load(CPU) is None
    trainable.cleanup()
    for name in RATES:
        state = TrialCheckpoint(tmp_path / name).load(CPU)
        assert state is not None
        assert len(state["history"]) == 3
    again = make(config("b"))
    assert again._trial.trial.training.epoch == 3
    same_reports(run(again), run(make({**config("b"), "trial_id": "fresh"})), dataset.num_val)
    # Or together, wherever each of them is.
    (report,) = [r for r in run(make({"batch": [config("a"), config("d")]})) if r["done"]]
    assert report["reports"][1]["epoch"] == 6


def test_checkpoints_are_saved_now_and_then(make, slow, tmp_path, monkeypatch):
    monkeypatch.setattr("nls_tune.training.trial_batch.CHECKPOINT_SECONDS", 0.0)
    run(make({"batch": [config("a"), config("b", stop_at=3)]}), most=4)
    for name, epochs in (("a", 4), ("b", 2)):  # what is at its end waits for its row
        state = TrialCheckpoint(tmp_path / name).load(CPU)
        assert state is not None
        assert len(state["history"]) == epochs


@pytest.mark.parametrize("where", ["at the start", "in an epoch"])
def test_a_batch_without_memory_ends_with_all_its_trials(make, slow, monkeypatch, tmp_path, where):
    def fail(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    described = {"batch": [config("a", stop_at=1), config("b"), config("c")]}
    with monkeypatch.context() as patch:
        if where == "at the start":
            patch.setattr(VectorizedTraining, "__init__", fail)
        trainable = make(described)
        if where == "in an epoch":
            first = trainable.step()
            assert [report["done"] for report in first["reports"]] == [True, False, False]
            patch.setattr(VectorizedTraining, "_train_epoch", fail)
        report = trainable.step()
    assert report["done"]
    lost = report["reports"] if where == "at the start" else report["reports"][1:]
    assert where == "at the start" or report["reports"][0]["out_of_memory"] is None
    for member in lost:
        assert (member["out_of_memory"], member["done"]) == (
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
            True,
        )
    trainable.cleanup()
    assert TrialCheckpoint(tmp_path / "b").load(CPU) is None  # of no epoch
    assert trainable.reset_config(config("b"))
    assert run(trainable)[-1]["epoch"] == 6


def test_a_disk_that_is_full_costs_a_batch_its_checkpoints_and_nothing_else(make, monkeypatch):
    def write(path, content):
        if path.name == "state.pt":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomically(path, content)

    monkeypatch.setattr("nls_tune.runs.checkpoint.write_atomically", write)
    monkeypatch.setattr("nls_tune.training.trial_batch.CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr("nls_tune.training.trial_batch.REPORT_SECONDS", 0)
    trainable = make({"batch": [config("a"), config("b")], "data": "symmetric:0.2"})
    reports = run(trainable)
    trainable.cleanup()
    for index in (0, 1):
        mine = of_member(reports, index)
        assert mine[-1]["finished"]
        assert "No space left on device" in mine[-2]["warning"]
