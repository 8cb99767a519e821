"""The trainable when memory runs out, and its share of the machine, without starting Ray."""

from __future__ import annotations

import dataclasses
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from nls_tune import TrainingSettings, load_dataset
from nls_tune.datasets import NoisyDataset
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.trial_spec import DataName, TrialSpec
from nls_tune.training.training import Training
from nls_tune.tune.trainable import SharedInputs, SharedSettings, TrainingTrainable

SETTINGS = {"model": "mlp", "epochs": 4, "warmup_epochs": 1, "smooth_rate": -1.0, "lr": 0.01, "batch_size": 64}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset() -> NoisyDataset:
    return load_dataset("twonorm", "symmetric:0.2", train_size=200, val_fraction=0.1)


@pytest.fixture
def make(dataset, tmp_path):
    threads = torch.get_num_threads()

    def made(trial: dict[str, Any], **shared: Any) -> TrainingTrainable:
        common = {"objective": "best", "use_gpu": False, "checkpoints": tmp_path, "cpus_per_trial": 1}
        common |= {"warmup_store": tmp_path / "store", "warmup_epochs": (1,)}
        name = DataName(dataset.noise_level)
        trainable = TrainingTrainable.__new__(TrainingTrainable)  # Tune's constructor wants a session of Ray's
        trainable.setup(
            trial,
            inputs=SharedInputs(dataset.inputs, dataset.test_inputs),
            datasets={name: dataclasses.replace(dataset, inputs=dataset.inputs[:0], test_inputs=None)},
            shared=SharedSettings(**common | shared),
        )
        return trainable

    yield made
    torch.set_num_threads(threads)


def trial(name: str) -> dict[str, Any]:
    return TrialSpec(name, "symmetric:0.2", "search", TrainingSettings(**SETTINGS), judged_at=(2,)).to_config()


def accuracies(trainable: TrainingTrainable) -> list[float]:
    found: list[float] = []
    while True:
        report = trainable.step()
        found += [epoch["val_accuracy"] for epoch in report["new_epochs"]]
        if report["done"]:
            return found


def run_out(*arguments: Any, **more: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has no more")


@pytest.fixture
def alone(dataset) -> list[float]:
    training = Training(dataset, TrainingSettings(**SETTINGS))
    while not training.finished:
        training.run_epoch()
    return training.val_accuracies()


@pytest.mark.parametrize("epochs_before", [0, 2])
def test_a_process_outlives_a_trial_that_runs_out_of_memory(make, alone, monkeypatch, tmp_path, epochs_before):
    trainable = make(trial("large"))
    before = trainable.step() if epochs_before else None
    training = weakref.ref(trainable._trial.training)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_train_epoch", run_out)
        report = trainable.step()
    assert report["out_of_memory"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert (report["done"], report["finished"], report["epoch"]) == (True, False, epochs_before)
    assert not report["new_epochs"]
    assert training() is None  # nothing holds the tensors any more
    ordinary = before or make(trial("other")).step()
    assert report.keys() == ordinary.keys()
    if before is not None:
        assert report["best_val_accuracy"] == before["best_val_accuracy"]
    trainable.cleanup()
    assert TrialCheckpoint(tmp_path / "large").load(CPU) is None  # in the middle of an epoch
    assert trainable.reset_config(trial("next"))
    assert accuracies(trainable) == alone  # also: nobody holds the warm-up that the first one began


def test_a_trial_that_cannot_even_begin_says_so_in_its_report(make, alone, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("nls_tune.training.training.build_model", run_out)
        trainable = make(trial("first"))
        first = trainable.step()
        assert trainable.reset_config(trial("second"))
        second = trainable.step()
    for report in (first, second):
        assert "CUDA out of memory" in report["out_of_memory"]
        assert (report["done"], report["epoch"], report["best_epoch"]) == (True, 0, None)
    assert trainable.reset_config(trial("third"))
    assert accuracies(trainable) == alone


def test_a_checkpoint_for_which_there_is_no_memory_is_kept(make, alone, monkeypatch, tmp_path):
    first = make(trial("abc"))
    first.step()
    first.cleanup()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", run_out)
        assert "CUDA out of memory" in make(trial("abc")).step()["out_of_memory"]
    with monkeypatch.context() as patch:
        patch.setattr(Training, "load_state_dict", run_out)
        assert "CUDA out of memory" in make(trial("abc")).step()["out_of_memory"]
    again = make(trial("abc"))
    assert again._trial.training.epoch == 2
    assert accuracies(again) == alone


@pytest.mark.parametrize("beside", [1, 2])
def test_cudnn_without_room_to_work_in_runs_again_with_fewer_beside_it(make, alone, monkeypatch, beside):
    def fail(*arguments: Any) -> None:
        raise RuntimeError("FIND was unable to find an engine to execute this computation")

    trainable = make(trial("crowded"), trials_per_gpu=beside)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_train_epoch", fail)
        if beside == 1:
            with pytest.raises(RuntimeError, match="find an engine"):
                trainable.step()
            return
        assert "find an engine" in trainable.step()["out_of_memory"]
    assert trainable.reset_config(trial("next"))
    assert accuracies(trainable) == alone


def test_another_error_is_one(make, monkeypatch):
    trainable = make(trial("abc"))

    def fail(*arguments: Any) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(Training, "_train_epoch", fail)
    with pytest.raises(RuntimeError, match="device-side"):
        trainable.step()


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_trial_computes_with_the_cpus_that_it_was_given(make, cpus):
    """Whatever the environment says: here that is one thread, or as many as there are cores."""
    torch.set_num_threads(3 - cpus)
    trainable = make(trial("abc"), cpus_per_trial=cpus)
    assert torch.get_num_threads() == cpus
    assert trainable.reset_config(trial("next"))
    assert torch.get_num_threads() == cpus


def test_a_process_on_a_gpu_takes_its_share_before_its_first_trial(make, monkeypatch):
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(
        "nls_tune.training.devices.limit_memory", lambda device, trials: asked.append((device.type, trials))
    )
    monkeypatch.setattr(TrainingTrainable, "_prepare", lambda self, spec: asked.append(spec.trial_id))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    trainable = make(trial("abc"), use_gpu=True, trials_per_gpu=4)
    assert trainable.reset_config(trial("next"))
    assert asked == [("cuda", 4), "abc", "next"]


def test_the_folder_of_a_trial_is_there_while_it_runs(make, tmp_path):
    make(trial("abc")).step()
    assert (Path(tmp_path) / "abc" / "trial.json").exists()
