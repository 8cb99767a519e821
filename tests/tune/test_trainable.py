"""The checkpoint of a trial, and the trainable as Tune drives it, without starting Ray."""

import dataclasses
import errno
import io
import json
import math
import os
import pickle
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nls_tune import TrainingSettings, load_dataset
from nls_tune.datasets import NoisyDataset
from nls_tune.datasets.mapped import MappedImages
from nls_tune.errors import InputError
from nls_tune.files import write_atomically
from nls_tune.metrics import Judging
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.trial_spec import DataName, TrialSpec
from nls_tune.training.training import Training
from nls_tune.tune import experiment
from nls_tune.tune.trainable import SharedInputs, SharedSettings, TrainingTrainable

CPU = torch.device("cpu")
LEVEL = "symmetric:0.2"
SETTINGS = {"model": "mlp", "epochs": 6, "warmup_epochs": 2, "smooth_rate": -1.0, "lr": 0.01, "batch_size": 64}
TRIAL = TrialSpec("abc", "symmetric:0.4", "confirm_all", TrainingSettings(model="mlp"), 3, (1, 5), 4)


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("owned",))


class TestTrialCheckpoint:
    @pytest.fixture
    def checkpoint(self, tmp_path) -> TrialCheckpoint:
        return TrialCheckpoint(tmp_path / "checkpoints" / "abc")

    def test_what_was_written_is_read(self, checkpoint):
        checkpoint.start(TRIAL)
        checkpoint.save({"epoch": 1, "weights": torch.ones(3)})
        checkpoint.save({"epoch": 2, "weights": torch.zeros(3)})
        again = TrialCheckpoint(checkpoint.folder)
        assert again.read_trial() == TRIAL
        state = again.load(CPU)
        assert state is not None
        assert (state["epoch"], state["weights"].tolist()) == (2, [0, 0, 0])
        assert len(list(checkpoint.folder.iterdir())) == 2  # no temporary file is left

    def test_what_early_versions_wrote_is_read(self, checkpoint):
        checkpoint.start(TRIAL)
        old = {"trial_id": "a", "noise_level": "clean", "stage": "search", "settings": {"model": "mlp", "epochs": 6}}
        (checkpoint.folder / "trial.json").write_text(json.dumps(old))
        assert checkpoint.read_trial() == TrialSpec("a", "clean", "search", TrainingSettings(model="mlp", epochs=6))

    def test_before_the_start_there_is_nothing(self, checkpoint):
        assert checkpoint.read_trial() is None
        assert checkpoint.load(CPU) is None
        checkpoint.remove()

    @pytest.mark.parametrize(
        "content",
        ["", '{"trial_id": "a', "[1, 2]", "null", b"\xff\xfe", json.dumps({**TRIAL.to_config(), "stage": "x"})],
    )
    def test_a_torn_description_is_none(self, checkpoint, content):
        checkpoint.start(TRIAL)
        (file,) = checkpoint.folder.iterdir()
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert checkpoint.read_trial() is None

    def test_a_bad_state_is_an_error_and_nothing_in_it_is_executed(self, checkpoint, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        checkpoint.start(TRIAL)
        checkpoint.save({"weights": torch.ones(1000)})
        (file,) = checkpoint.folder.glob("*.pt")
        content, evil = file.read_bytes(), io.BytesIO()
        torch.save({"a": Evil()}, evil)
        torn = [content[: int(part * len(content))] for part in (0, 0.5, 0.99)]
        for bad in (*torn, pickle.dumps({"a": Evil()}, protocol=2), evil.getvalue()):
            file.write_bytes(bad)
            with pytest.raises(InputError, match="the saved state cannot be read"):
                checkpoint.load(CPU)
        assert not (tmp_path / "owned").exists()
        checkpoint.save([1, 2])  # type: ignore[arg-type]
        with pytest.raises(InputError, match="it is a list"):
            checkpoint.load(CPU)
        assert checkpoint.read_trial() == TRIAL

    def test_once_removed_a_late_save_writes_nothing(self, checkpoint):
        checkpoint.start(TRIAL)
        checkpoint.remove()
        checkpoint.save({"epoch": 1})
        assert not checkpoint.folder.exists()


@pytest.fixture(scope="module")
def dataset() -> NoisyDataset:
    return load_dataset("twonorm", LEVEL, train_size=200, val_fraction=0.1)


@pytest.fixture(scope="module")
def uninterrupted(dataset: NoisyDataset) -> list[dict[str, Any]]:
    """The epochs of a training that nothing stops."""
    training = Training(dataset, TrainingSettings(**SETTINGS))
    while not training.finished:
        training.run_epoch()
    return [dataclasses.asdict(metrics) for metrics in training.history]


@pytest.fixture
def warmup_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warmups")


@pytest.fixture
def make(dataset, tmp_path, warmup_store):
    """Make a trainable as a worker does, with one thread; checkpoints go to tmp_path."""
    threads = torch.get_num_threads()
    inputs = SharedInputs(dataset.inputs, dataset.test_inputs)
    datasets = {DataName(LEVEL): dataclasses.replace(dataset, inputs=dataset.inputs[:0], test_inputs=None)}
    shared = SharedSettings(
        judging=Judging(), use_gpu=False, checkpoints=tmp_path, cpus_per_trial=1, warmup_store=warmup_store,
        warmup_epochs=(1, 2, 4),
    )  # fmt: skip

    def made(config: dict[str, Any], **changes: Any) -> TrainingTrainable:
        trainable = TrainingTrainable.__new__(TrainingTrainable)  # Tune's constructor wants a session of Ray's
        trainable.setup(config, inputs=inputs, datasets=datasets, shared=dataclasses.replace(shared, **changes))
        return trainable

    yield made
    torch.set_num_threads(threads)


def config(
    trial_id: str = "abc",
    judged_at: tuple[int, ...] = (),
    *,
    noise_seed: int | None = None,
    stop_at: int | None = None,
    **changes: Any,
) -> dict[str, Any]:
    settings = TrainingSettings(**{**SETTINGS, **changes})
    return TrialSpec(trial_id, LEVEL, "search", settings, noise_seed, judged_at, stop_at).to_config()


def reports_of(trainable: TrainingTrainable) -> list[dict[str, Any]]:
    reports = [trainable.step()]
    while not reports[-1]["done"]:
        reports.append(trainable.step())
    return reports


def epochs_of(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [epoch for report in reports for epoch in report["new_epochs"]]


def full_disk(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the disk have no room for files with a name."""

    def write(path: Path, content: bytes) -> None:
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomically(path, content)

    monkeypatch.setattr("nls_tune.runs.checkpoint.write_atomically", write)


def without_times(epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in epoch.items() if k not in ("seconds", "peak_memory_bytes")} for epoch in epochs]


def test_trials_of_one_level_can_have_data_of_their_own(dataset, make):
    """As the confirmation has with draws of the noise: their names tell them apart, also in a reused actor."""
    other = load_dataset("twonorm", "symmetric:0.2", train_size=200, val_fraction=0.1, noise_seed=1)
    trainable = make(config(epochs=1, warmup_epochs=0))
    trainable._datasets[DataName(LEVEL, 1)] = dataclasses.replace(other, inputs=other.inputs[:0], test_inputs=None)
    first = trainable.step()
    trainable.reset_config(config("b", epochs=1, warmup_epochs=0, noise_seed=1))
    second = trainable.step()
    training = Training(other, TrainingSettings(**{**SETTINGS, "epochs": 1, "warmup_epochs": 0}))
    expected = without_times([dataclasses.asdict(training.run_epoch())])
    assert without_times(second["new_epochs"]) == expected != without_times(first["new_epochs"])


class TestTrainingTrainable:
    def test_every_epoch_is_reported_once_and_reports_come_where_they_are_wanted(self, make, uninterrupted):
        reports = reports_of(make(config(judged_at=(1, 3))))
        assert without_times(epochs_of(reports)) == without_times(uninterrupted)
        assert {1, 3, 6} <= {report["epoch"] for report in reports}
        assert [report["finished"] for report in reports] == [False] * (len(reports) - 1) + [True]
        assert len({frozenset(report) for report in reports}) == 1  # every report has every key

    def test_in_the_warm_up_nothing_counts(self, make):
        first, *_, last = reports_of(make(config(judged_at=(1, 2, 3))))
        assert (first["best_value"], first["best_epoch"], first["val_correct_at_best"]) == (0.0, None, None)
        assert last["best_epoch"] > 2
        assert last["best_value"] > 0

    def test_divergence_ends_a_trial_without_an_error(self, make):
        last = reports_of(make(config(lr=1e30, warmup_lr=1e30)))[-1]
        assert (last["diverged"], last["done"], last["epoch"]) == (True, True, 1)
        assert last["best_value"] == 0.0

    def test_a_trial_that_is_stopped_goes_on_where_it_was(self, make, tmp_path, uninterrupted):
        first = make(config(judged_at=(1, 2, 3, 4)))
        for _ in range(4):
            first.step()
        first.cleanup()
        second = make(config())
        reports = reports_of(second)
        assert without_times(epochs_of(reports)) == without_times(uninterrupted)
        # The first four were not trained again: they have the very times of the first process.
        times = [epoch["seconds"] for epoch in epochs_of(reports)]
        assert times[:4] == [m["seconds"] for m in torch.load(tmp_path / "abc" / "state.pt")["history"]]

    @pytest.mark.parametrize("name", ["state.pt", "trial.json"])
    def test_a_disk_that_is_full_costs_a_trial_its_checkpoint_and_nothing_else(
        self, make, tmp_path, uninterrupted, monkeypatch, name
    ):
        full_disk(monkeypatch, name)
        monkeypatch.setattr("nls_tune.training.trial.CHECKPOINT_SECONDS", 0)
        trainable = make(config(judged_at=(1, 2, 3)))
        reports = reports_of(trainable)
        trainable.cleanup()
        assert without_times(epochs_of(reports)) == without_times(uninterrupted)
        (warning,) = {warning for report in reports for warning in report["warnings"]}
        assert f"cannot be saved in {tmp_path} (No space left on device)" in warning
        assert not (tmp_path / "abc" / "state.pt").exists()

    def test_what_a_trial_is_is_written_once_the_disk_has_room(self, make, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            full_disk(patch, "trial.json")
            trainable = make(config(judged_at=(1, 2)))
            assert trainable.step()["warnings"]
        assert not trainable.step()["warnings"]
        trainable.cleanup()
        assert TrialCheckpoint(tmp_path / "abc").read_trial() is not None
        assert (tmp_path / "abc" / "state.pt").exists()

    @pytest.mark.parametrize("torn", [False, True])
    def test_a_state_that_cannot_be_loaded_is_trained_anew_and_reports_say_so(
        self, make, tmp_path, uninterrupted, torn
    ):
        other = make(config(judged_at=(1,), lr=0.02))
        other.step()
        other.cleanup()
        if torn:
            (tmp_path / "abc" / "state.pt").write_bytes(b"torn")
        reports = reports_of(make(config()))
        assert without_times(epochs_of(reports)) == without_times(uninterrupted)
        (warnings,) = {report["warnings"] for report in reports}
        why = "the saved state cannot be read" if torn else "the saved state has another settings"
        assert warnings[0].startswith(f"trial abc is trained anew: {why}")

    def test_a_trainable_takes_over_the_next_trial(self, make, uninterrupted):
        trainable = make(config("first", lr=0.05))
        reports_of(trainable)
        assert trainable.reset_config(config("second")) is True
        assert without_times(epochs_of(reports_of(trainable))) == without_times(uninterrupted)

    @pytest.mark.parametrize("finished", [True, False])
    def test_a_trial_whose_row_is_written_saves_nothing_more(self, make, tmp_path, finished):
        trainable = make(config(judged_at=() if finished else (1,)))
        if finished:
            reports_of(trainable)
        else:
            trainable.step()
        TrialCheckpoint(tmp_path / "abc").remove()  # as the driver does when it has written the row
        trainable.cleanup()
        assert list(tmp_path.iterdir()) == []

    def test_a_trainable_that_never_trains_leaves_nothing_and_holds_nothing(self, make, tmp_path, warmup_store):
        """Tune starts actors that it then does not need: they must not leave a folder behind."""
        needless = make(config())
        assert list(warmup_store.iterdir()) == []
        needless.cleanup()
        assert list(tmp_path.iterdir()) == []

    def test_a_trainable_that_never_trains_does_not_touch_the_state_of_the_one_that_does(self, make, tmp_path):
        needless = make(config())
        working = make(config(judged_at=(1, 2, 3)))
        for _ in range(3):
            working.step()
        working.cleanup()
        needless.cleanup()
        state = TrialCheckpoint(tmp_path / "abc").load(CPU)
        assert state is not None
        assert len(state["history"]) == 3

    def test_the_folder_says_what_the_trial_is_while_it_runs(self, make, tmp_path):
        described = config(judged_at=(1,))
        make(described).step()
        assert TrialCheckpoint(tmp_path / "abc").read_trial() == TrialSpec.from_config(described)


JUDGED = ("epoch", "best_value", "best_epoch", "val_correct_at_best", "test_correct_at_best", "diverged",
          "finished")  # fmt: skip


class TestSharedWarmup:
    @pytest.mark.parametrize("rate", [0.0, -1.0])
    def test_rungs_within_a_warm_up_that_was_taken_over_are_reported_as_if_it_had_been_trained(self, make, rate):
        described = {"judged_at": (1, 3, 4, 5), "smooth_rate": rate, "warmup_epochs": 4}
        plain = {r["epoch"]: r for r in reports_of(make(config("alone", **described), warmup_store=None))}
        reports_of(make(config("first", **described, lr=0.02)))
        trainable = make(config("second", **described))
        reports = reports_of(trainable)
        assert [report["epoch"] for report in reports] == [1, 3, 4, 5, 6]
        assert [report["epochs_reused"] for report in reports] == [1, 3, 4, 4, 4]
        for report in reports:
            expected = plain[report["epoch"]]
            assert {key: report[key] for key in JUDGED} == {key: expected[key] for key in JUDGED}
        assert without_times(epochs_of(reports)) == without_times(epochs_of(list(plain.values())))
        assert [report["train_seconds"] for report in reports[:3]] == [0, 0, 0]
        assert reports[-1]["train_seconds"] == sum(e["seconds"] for e in epochs_of(reports)[4:])

    def test_a_stored_warm_up_that_cannot_be_used_is_trained_anew_and_reports_say_so(
        self, make, uninterrupted, warmup_store
    ):
        reports_of(make(config("first", lr=0.02)))
        for file in warmup_store.glob("*/epoch-*.pt"):
            file.write_bytes(file.read_bytes()[:-100])
        reports = reports_of(make(config("second")))
        assert without_times(epochs_of(reports)) == without_times(uninterrupted)
        assert reports[-1]["epochs_reused"] == 0
        (warning,) = {warning for report in reports for warning in report["warnings"]}
        assert "cannot be used and is trained anew (BadZipFile: File is not a zip file)" in warning

    def test_who_waits_says_so_and_goes_on_when_the_epoch_is_there(self, make, uninterrupted, monkeypatch):
        holder = make(config("holder", judged_at=(1,), lr=0.02))
        holder.step()
        waiting = make(config("waiting"))
        monkeypatch.setattr("nls_tune.training.trial.REPORT_SECONDS", 0.1)
        beat = waiting.step()
        assert (beat["epoch"], beat["best_epoch"], beat["new_epochs"], beat["done"]) == (0, None, (), False)
        assert frozenset(beat) == frozenset(holder.step())
        reports = reports_of(waiting)
        assert without_times(epochs_of(reports)) == without_times(uninterrupted)
        assert reports[-1]["epochs_reused"] == 2

    @pytest.mark.parametrize("end", ["cleanup", "reset", "error"])
    def test_however_the_trainer_ends_another_one_goes_on_from_there(self, make, tmp_path, monkeypatch, end):
        long = {"judged_at": (3,), "warmup_epochs": 5}  # epoch 3 is no length that is asked for
        holder = make(config("holder", **long))
        holder.step()
        if end == "cleanup":
            holder.cleanup()
        elif end == "reset":
            holder.reset_config(config("other", seed=1))
        else:
            with monkeypatch.context() as patch:
                patch.setattr(Training, "_train_epoch", lambda self, epoch: _fail())
                with pytest.raises(RuntimeError, match="device-side assert"):
                    holder.step()
            holder.cleanup()
            assert TrialCheckpoint(tmp_path / "holder").load(CPU) is None
        reports = reports_of(make(config("next", **long, lr=0.02)))
        taken = {"cleanup": 3, "reset": 3, "error": 2}[end]  # what an error leaves is of no epoch
        assert reports[-1]["epochs_reused"] == taken
        alone = reports_of(make(config("alone", **long, lr=0.02), warmup_store=None))
        assert without_times(epochs_of(reports)) == without_times(epochs_of(alone))

    def test_what_was_reused_stays_so_when_the_trial_is_continued(self, make):
        reports_of(make(config("first", lr=0.02)))
        second = make(config("second", judged_at=(3,)))
        second.step()
        second.cleanup()
        last = reports_of(make(config("second")))[-1]
        assert (last["epoch"], last["epochs_reused"]) == (6, 2)


def _fail():
    raise RuntimeError("CUDA error: device-side assert triggered")


class TestOnAllLabels:
    def test_it_ends_at_its_epoch_and_says_nothing_of_validation(self, make, uninterrupted):
        reports = reports_of(make(config(stop_at=4)))
        last = reports[-1]
        assert (last["epoch"], last["done"], last["finished"], last["diverged"]) == (4, True, True, False)
        assert not any(report["done"] for report in reports[:-1])
        for report in reports:
            assert (report["best_epoch"], report["best_value"]) == (None, 0.0)
            assert report["val_correct_at_best"] is report["test_correct_at_best"] is None
        epochs = without_times(epochs_of(reports))
        assert all(math.isnan(e.pop("val_loss")) and math.isnan(e.pop("val_accuracy")) for e in epochs)
        others = [e.pop(name) for e in epochs for name in ("val_balanced_accuracy", "val_macro_f1")]
        assert others == [None] * len(others)
        kept = [{k: v for k, v in e.items() if k in epochs[0]} for e in without_times(uninterrupted[:4])]
        assert epochs == kept

    def test_it_can_end_within_a_warm_up_that_another_trial_has_trained(self, make):
        reports_of(make(config("first", warmup_epochs=4)))
        (report,) = reports_of(make(config("second", smooth_rate=0.0, warmup_epochs=4, stop_at=2)))
        assert (report["epoch"], report["finished"], report["epochs_reused"]) == (2, True, 2)
        assert [epoch["epoch"] for epoch in report["new_epochs"]] == [1, 2]

    @pytest.mark.parametrize(("saved", "end"), [(2, 4), (4, 3)])
    def test_it_goes_on_from_its_checkpoint_which_may_be_past_an_earlier_end(self, make, uninterrupted, saved, end):
        first = make(config(judged_at=(saved,), stop_at=5))
        while first.step()["epoch"] < saved:
            pass  # a slow machine reports between rungs
        first.cleanup()
        again = make(config(stop_at=end))
        assert again._trial.training.epoch == saved
        last = reports_of(again)[-1]
        assert (last["epoch"], last["finished"]) == (end, True)
        assert last["new_epochs"][-1]["test_accuracy"] == uninterrupted[end - 1]["test_accuracy"]


def test_the_trials_of_a_worker_compile_once_and_tell_what_went_wrong(make, monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: calls.append(options) or function)
    worker = make(config("a"), compile="on")
    for name, rate in (("b", 0.3), ("c", 0.0)):
        assert worker.step()["warnings"] == ()
        worker.reset_config(config(name, smooth_rate=rate))
    assert len(calls) == 1
    worker._workplace.compiler.warning = "cannot be compiled"
    assert worker.step()["warnings"] == ("cannot be compiled",)
    worker.cleanup()


def trial(name: str) -> dict[str, Any]:
    return config(name, judged_at=(3,))


def run_out(*arguments: Any, **more: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has no more")


@pytest.mark.parametrize("epochs_before", [0, 3])
def test_a_process_outlives_a_trial_that_runs_out_of_memory(make, uninterrupted, monkeypatch, tmp_path, epochs_before):
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
        assert report["best_value"] == before["best_value"]
    trainable.cleanup()
    assert TrialCheckpoint(tmp_path / "large").load(CPU) is None  # in the middle of an epoch
    assert trainable.reset_config(trial("next"))
    # Also: nobody holds the warm-up that the first one began.
    assert without_times(epochs_of(reports_of(trainable))) == without_times(uninterrupted)


def test_a_trial_that_cannot_even_begin_says_so_in_its_report(make, uninterrupted, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("nls_tune.training.training.starting_network", run_out)
        trainable = make(trial("first"))
        first = trainable.step()
        assert trainable.reset_config(trial("second"))
        second = trainable.step()
    for report in (first, second):
        assert "CUDA out of memory" in report["out_of_memory"]
        assert (report["done"], report["epoch"], report["best_epoch"]) == (True, 0, None)
    assert trainable.reset_config(trial("third"))
    assert without_times(epochs_of(reports_of(trainable))) == without_times(uninterrupted)


def test_a_checkpoint_for_which_there_is_no_memory_is_kept(make, uninterrupted, monkeypatch):
    first = make(trial("abc"))
    first.step()
    first.cleanup()
    for place, name in ((torch, "load"), (Training, "load_state_dict")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, run_out)
            assert "CUDA out of memory" in make(trial("abc")).step()["out_of_memory"]
    again = make(trial("abc"))
    assert again._trial.training.epoch == 3
    assert without_times(epochs_of(reports_of(again))) == without_times(uninterrupted)


@pytest.mark.parametrize("beside", [1, 2])
def test_cudnn_without_room_to_work_in_runs_again_with_fewer_beside_it(make, uninterrupted, monkeypatch, beside):
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
    assert without_times(epochs_of(reports_of(trainable))) == without_times(uninterrupted)


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


def test_mapped_images_travel_by_their_file_unless_a_node_lacks_it(tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2))
    images = MappedImages(tmp_path / "images.npy", np.array([1, 0]), (3, 2, 2))
    inputs = SharedInputs(images, images[:1])
    answers: list[str] = []
    monkeypatch.setattr(
        experiment, "on_every_node", lambda look, _, file: [("node", "id", look("id", file)), ("b", "c", *answers)]
    )
    assert experiment._travelling(inputs, on_cluster=False) is inputs
    answers[:] = [""]
    assert experiment._travelling(inputs, on_cluster=True) is inputs
    answers[:] = ["lacks it"]
    held = experiment._travelling(inputs, on_cluster=True)
    assert isinstance(held.inputs, np.ndarray)
    assert np.array_equal(held.inputs, np.asarray(images))
    assert held.test_inputs.shape == (1, 3, 2, 2)
