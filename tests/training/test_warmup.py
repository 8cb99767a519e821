"""The store of shared CE warm-ups: what shares one, what is read, who trains, and that the numbers stay the same."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter, namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import environment, wait_until
from filelock import FileLock
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nls_tune import InputError, TrainingSettings, load_dataset
from nls_tune.datasets import NoisyDataset
from nls_tune.training.data import DeviceData
from nls_tune.training.training import Training
from nls_tune.training.warmup import SharedWarmup, check_store, warmup_key

#: The other value of every setting, and whether it shapes a warm-up.
OTHER = {
    "model": ("cnn9", True),
    "epochs": (50, False),
    "smooth_rate": (-4.0, False),
    "warmup_epochs": (3, False),
    "lr": (0.5, False),
    "schedule": ("cosine", False),
    "milestones": ((2,), False),
    "gamma": (0.7, False),
    "warmup_lr": (0.2, True),
    "warmup_milestones": ((3,), True),
    "warmup_gamma": (0.3, True),
    "optimizer": ("adamw", True),
    "momentum": (0.5, True),
    "nesterov": (False, True),
    "weight_decay": (0.0, True),
    "batch_size": (50, True),
    "crop_padding": (2, True),
    "flip": (True, True),
    "cutout": (3, True),
    "clip_norm": (1.0, True),
    "precision": ("bfloat16", True),
    "seed": (1, True),
}
LENGTHS = (2, 3, 5)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def dataset() -> NoisyDataset:
    return small_dataset()


@pytest.fixture(scope="module")
def data(dataset) -> DeviceData:
    return DeviceData.load(dataset, "cpu")


def small_dataset() -> NoisyDataset:
    found = load_dataset("twonorm", "symmetric:0.2", train_size=100, val_fraction=0.1)
    assert found.test_inputs is not None
    assert found.test_labels is not None
    small = {"val_indices": found.val_indices[:40], "test_inputs": found.test_inputs[:50]}
    return replace(found, **small, test_labels=found.test_labels[:50])


def settings_of(**changes: Any) -> TrainingSettings:
    values = {"model": "mlp", "epochs": 7, "warmup_epochs": 3, "smooth_rate": -1.0, "lr": 0.01, "batch_size": 50}
    return TrainingSettings(**{**values, **changes})


@pytest.fixture
def make(dataset, data):
    return lambda **changes: Training(dataset, settings_of(**changes), data=data)


def train(training: Training, store: Path | None, *, epochs: int | None = None, lengths=LENGTHS) -> list[int]:
    """Train to the end, or up to an epoch, and return the epochs that were trained and not taken over."""
    warmup, trained = SharedWarmup(store, training, lengths), []
    while not training.finished and (epochs is None or training.epoch < epochs):
        turn = warmup.turn()
        assert turn != "wait"
        if turn == "train":
            trained.append(training.run_epoch().epoch)
            warmup.trained()
    warmup.close()
    return trained


def outcome(training: Training) -> tuple[Any, ...]:
    """All that must not depend on what was reused: metrics, bits and weights."""
    state = training.state_dict()
    metrics = [{k: v for k, v in m.items() if k not in ("seconds", "peak_memory_bytes")} for m in state["history"]]
    weights = {name: value.tolist() for name, value in state["model"].items()}
    return repr(metrics), [b.tolist() for b in (*state["val_correct"], *state["test_correct"])], repr(weights)


def only_folder(store: Path) -> Path:
    (folder,) = store.iterdir()
    return folder


class TestKey:
    def test_every_setting_is_looked_at(self):
        assert set(OTHER) == set(TrainingSettings.model_fields)

    @given(st.sets(st.sampled_from(sorted(OTHER))), st.sets(st.sampled_from(sorted(OTHER))))
    @hypothesis_settings(max_examples=60)
    def test_two_configurations_share_a_warm_up_if_nothing_that_shapes_it_differs(self, first, second):
        one, two = (TrainingSettings(**{n: OTHER[n][0] for n in names}).warmup_settings() for names in (first, second))
        assert (warmup_key(one) == warmup_key(two)) == (not any(OTHER[name][1] for name in first ^ second))

    def test_what_else_decides(self, make, dataset, monkeypatch):
        def key(training: Training) -> str:
            return warmup_key(training.warmup_identity())

        first = key(make())
        assert key(make(precision="float32", lr=1.0)) == first  # what auto means here
        assert key(make(precision="bfloat16")) != first
        assert key(Training(replace(dataset, fingerprint="other"), settings_of())) != first
        for name in (
            "nls_tune.training.training.__version__",
            "torch.__version__",
            "nls_tune.training.training._STATE_VERSION",
        ):
            with monkeypatch.context() as patch:
                patch.setattr(name, "99")
                assert key(make()) != first, name
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
        assert key(make()) != first


class TestSameNumbers:
    @given(st.permutations([1, 2, 4]), st.sampled_from(["sgd", "adamw"]))
    @hypothesis_settings(max_examples=3)
    def test_every_epoch_is_trained_once_and_the_numbers_are_those_without_a_store(
        self, dataset, data, tmp_path_factory, lengths, optimizer
    ):
        """Whatever the order: a stored warm-up is shorter, longer, or as long."""
        store, counts = tmp_path_factory.mktemp("store"), Counter()
        for number, length in enumerate(lengths):
            changes = {
                "warmup_epochs": length,
                "lr": 0.01 + number / 1000,
                "optimizer": optimizer,
                "epochs": 6 + number,
            }
            shared, alone = (Training(dataset, settings_of(**changes), data=data) for _ in range(2))
            counts.update(e for e in train(shared, store, lengths=(1, 2, 4)) if e <= length)
            train(alone, None)
            assert outcome(shared) == outcome(alone)
            assert (alone.epochs_reused, shared.epochs_reused <= length) == (0, True)
        assert counts == dict.fromkeys(range(1, 5), 1)

    def test_only_epochs_that_can_be_asked_for_are_stored(self, make, tmp_path):
        train(make(warmup_epochs=5), tmp_path, lengths=(3, 6))
        folder = only_folder(tmp_path)
        assert sorted(p.name for p in folder.iterdir()) == [".lock", "epoch-0003.pt", "epoch-0005.pt", "warmup.json"]
        assert json.loads((folder / "warmup.json").read_text())["settings"]["model"] == "mlp"
        state = torch.load(folder / "epoch-0003.pt", weights_only=True)["state"]
        assert len(state["history"]) == 3

    def test_what_a_stopped_trainer_has_trained_is_not_lost(self, make, tmp_path):
        train(make(warmup_epochs=6), tmp_path, epochs=4)
        second = make(warmup_epochs=5)
        assert train(second, tmp_path)[0] == 5
        alone = make(warmup_epochs=5)
        train(alone, None)
        assert outcome(second) == outcome(alone)

    def test_the_training_that_takes_over_does_not_change_what_others_take_over(self, make, tmp_path):
        train(make(), tmp_path)
        taken = [make(lr=lr) for lr in (0.1, 0.2)]
        for training in taken:
            assert train(training, tmp_path, epochs=3) == []
        train(taken[0], None)
        untouched = make(lr=0.3)
        train(untouched, tmp_path, epochs=3)
        assert outcome(taken[1]) == outcome(untouched)

    def test_a_warm_up_that_diverged_is_diverged_for_all(self, make, tmp_path):
        assert train(make(warmup_lr=1e30), tmp_path) == [1]
        second = make(warmup_lr=1e30, warmup_epochs=5)
        assert train(second, tmp_path) == []
        assert (second.diverged, second.epoch, second.epochs_reused) == (True, 1, 1)

    def test_without_a_warm_up_nothing_is_stored(self, make, tmp_path):
        training = make(warmup_epochs=0)
        assert train(training, tmp_path) == [1, 2, 3, 4, 5, 6, 7]
        assert list(tmp_path.iterdir()) == []


class TestLoadWarmup:
    def test_another_warm_up_is_refused(self, make):
        state = make(warmup_lr=0.5).state_dict()
        with pytest.raises(InputError, match="of another warm-up"):
            make().load_warmup(state)

    def test_a_longer_one_is_refused(self, make):
        longer = make(warmup_epochs=4)
        train(longer, None, epochs=4)
        with pytest.raises(InputError, match="at most 3 epochs long, got 4"):
            make().load_warmup(longer.state_dict())

    def test_a_network_of_other_shapes_changes_nothing(self, make):
        training, state = make(), make().state_dict()
        before = outcome(training)
        name, weight = next(iter(state["model"].items()))
        state["model"] = {**{n: t + 1 for n, t in state["model"].items()}, name: weight[:1]}
        with pytest.raises(InputError, match="of another network"):
            training.load_warmup(state)
        assert outcome(training) == before


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("owned",))


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


class TestDamage:
    """A file that is not what it should be is trained again and replaced."""

    @pytest.mark.parametrize(
        "damage",
        [lambda c: b"", lambda c: c[: len(c) // 2], lambda c: c[:-30], _flip, lambda c: pickle.dumps(Evil())],
        ids=["empty", "half", "end", "a bit", "evil"],
    )
    def test_a_torn_file(self, make, tmp_path, damage, monkeypatch):
        monkeypatch.chdir(tmp_path)
        store = tmp_path / "store"
        first = make()
        train(first, store)
        file = only_folder(store) / "epoch-0003.pt"
        good = file.read_bytes()
        file.write_bytes(damage(good))
        again = make()
        assert train(again, store)[0] == 3  # from epoch 2, which is whole
        assert outcome(again) == outcome(first)
        assert train(make(), store)[0] == 4  # it was replaced
        assert not (tmp_path / "owned").exists()

    @pytest.mark.parametrize("foreign", ["another epoch", "another warm-up", "no state", "a list", "evil"])
    def test_a_foreign_file(self, make, tmp_path, foreign, monkeypatch):
        monkeypatch.chdir(tmp_path)
        store, other = tmp_path / "store", tmp_path / "other"
        train(make(), store)
        file = only_folder(store) / "epoch-0003.pt"
        if foreign == "another epoch":
            shutil.copy(file.with_name("epoch-0002.pt"), file)
        elif foreign == "another warm-up":
            train(make(warmup_lr=0.5), other)
            shutil.copy(only_folder(other) / "epoch-0003.pt", file)
        else:
            torch.save({"no state": {"key": 1}, "a list": [1, 2], "evil": Evil()}[foreign], file)
        training = make()
        assert train(training, store)[0] == 3
        alone = make()
        train(alone, None)
        assert outcome(training) == outcome(alone)
        assert not (tmp_path / "owned").exists()

    @pytest.mark.parametrize("holding", [True, False])
    def test_a_good_file_for_which_there_is_no_memory(self, make, tmp_path, monkeypatch, holding):
        train(make(warmup_epochs=2 if holding else 3), tmp_path)
        whole = (only_folder(tmp_path) / "epoch-0002.pt").read_bytes()
        warmup = SharedWarmup(tmp_path, make())

        def run_out(*arguments, **more):
            raise torch.OutOfMemoryError("CUDA out of memory")

        with monkeypatch.context() as patch:
            patch.setattr(torch, "load", run_out)
            with pytest.raises(torch.OutOfMemoryError):
                warmup.turn()
        warmup.close()  # as the trial does that ends
        assert (only_folder(tmp_path) / "epoch-0002.pt").read_bytes() == whole
        assert train(make(), tmp_path)[0] == (3 if holding else 4)  # nobody holds the warm-up

    def test_a_bad_file_is_read_once_while_waiting(self, make, tmp_path, monkeypatch):
        holder = SharedWarmup(tmp_path, trainer := make())
        assert holder.turn() == "train"
        (only_folder(tmp_path) / "epoch-0003.pt").write_bytes(b"bad")
        reads = []
        read_bytes = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read_bytes(path))
        waiting = SharedWarmup(tmp_path, make())
        assert [waiting.turn() for _ in range(3)] == ["wait"] * 3
        assert len(reads) == 1
        while holder._holds():
            trainer.run_epoch()
            holder.trained()
        assert waiting.turn() == "taken"


class TestLock:
    def test_one_trains_and_the_other_waits_until_the_epoch_that_it_wants(self, make, tmp_path):
        long, short = make(warmup_epochs=5), make(warmup_epochs=2)
        trainer, waiting = SharedWarmup(tmp_path, long, LENGTHS), SharedWarmup(tmp_path, short, LENGTHS)
        for epoch in (1, 2):
            assert (trainer.turn(), waiting.turn()) == ("train", "wait")
            assert long.run_epoch().epoch == epoch
            trainer.trained()
        assert (waiting.turn(), short.epoch, short.epochs_reused) == ("taken", 2, 2)
        assert (waiting.turn(), trainer.turn()) == ("train", "train")

    def test_who_waits_takes_the_place_of_one_that_is_stopped(self, make, tmp_path):
        first, second = make(warmup_epochs=5), make(warmup_epochs=5)
        trainer, waiting = SharedWarmup(tmp_path, first, LENGTHS), SharedWarmup(tmp_path, second, LENGTHS)
        trainer.turn()
        first.run_epoch()
        trainer.trained()
        assert waiting.turn() == "wait"
        trainer.close()
        assert [waiting.turn(), waiting.turn()] == ["taken", "train"]
        assert (second.epoch, trainer.turn()) == (1, "wait")

    def test_another_warm_up_is_no_reason_to_wait(self, make, tmp_path):
        both = [SharedWarmup(tmp_path, make(warmup_lr=lr)) for lr in (0.1, 0.2)]
        assert [warmup.turn() for warmup in both] == ["train", "train"]

    def test_a_torn_file_of_a_killed_process_is_removed(self, make, tmp_path):
        first = SharedWarmup(tmp_path, make(), LENGTHS)
        first.turn()
        (folder,) = tmp_path.iterdir()
        first.close()
        torn = folder / ".epoch-0002.pt.999999.tmp"
        torn.write_bytes(b"a part")
        assert SharedWarmup(tmp_path, make(), LENGTHS).turn() == "train"
        assert not torn.exists()

    def test_the_lock_of_a_killed_process_is_free(self, make, tmp_path):
        warmup = SharedWarmup(tmp_path, make())
        warmup.turn()
        warmup.close()
        code = (
            "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
            "print(1, flush=True); time.sleep(60)"
        )
        command = [sys.executable, "-c", code, str(only_folder(tmp_path) / ".lock")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            before = warmup.turn()
            holder.kill()
        assert (before, warmup.turn()) == ("wait", "train")

    def test_processes_that_race_train_every_epoch_once(self, tmp_path):
        store, go = tmp_path / "store", tmp_path / "go"
        command = [sys.executable, __file__, str(store), str(go)]
        path = {"PYTHONPATH": os.pathsep.join(sys.path)}  # with that of the helpers
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(path)) as racer:
            try:
                wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == 1, "the other process is ready")
                go.touch()
                answers = [_race(store, go), json.loads(racer.communicate(timeout=60)[0])]
            finally:
                racer.kill()
        trained = [tuple(epoch) for answer in answers for epoch in answer["trained"]]
        assert Counter(trained) == {(seed, epoch): 1 for seed in (0, 1, 2) for epoch in range(1, 6)}
        assert answers[0]["losses"] == answers[1]["losses"]


class TestNoStore:
    """Whatever the file system cannot do, the trial trains its warm-up itself."""

    def whole(self, training: Training, store: Path) -> bool:
        return train(training, store) == [1, 2, 3, 4, 5, 6, 7]

    def test_no_place_for_the_folder(self, make, tmp_path):
        (tmp_path / "file").touch()
        assert self.whole(make(), tmp_path / "file")

    @pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "no locks"), NotImplementedError(), PermissionError()])
    def test_no_locks(self, make, tmp_path, monkeypatch, error):
        def acquire(self, **options):
            raise error

        train(make(seed=1), tmp_path)
        monkeypatch.setattr(FileLock, "acquire", acquire)
        assert self.whole(make(), tmp_path)
        assert train(make(seed=1, warmup_epochs=5), tmp_path) == [4, 5, 6, 7]  # reading needs none

    def test_a_lock_that_outlives_its_owner_is_none(self, make, tmp_path, monkeypatch):
        monkeypatch.setattr(
            "nls_tune.training.warmup.SoftFileLock", FileLock
        )  # as filelock does where there is no flock
        assert self.whole(make(), tmp_path)
        assert (check_store(tmp_path) or "").endswith("has no locks, so CE warm-ups are not shared")

    def test_a_full_disk(self, make, tmp_path, monkeypatch):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
        assert self.whole(make(), tmp_path)
        assert sorted(p.name for p in only_folder(tmp_path).iterdir()) == [".lock"]

    def test_a_disk_that_fills_up(self, make, tmp_path, monkeypatch):
        def full(path: Path, content: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        first, second = make(), make(lr=0.2)
        trainer, waiting = (SharedWarmup(tmp_path, training, LENGTHS) for training in (first, second))
        assert (trainer.turn(), waiting.turn()) == ("train", "wait")
        monkeypatch.setattr("nls_tune.training.warmup.write_atomically", full)
        for _ in range(2):
            assert trainer.turn() == "train"
            first.run_epoch()
            trainer.trained()
        assert waiting.turn() == "train"  # nobody waits for a file that will not come
        waiting.close()
        assert train(second, tmp_path) == [1, 2, 3, 4, 5, 6, 7]


class TestCheckStore:
    def test_a_folder_that_can_be_used(self, tmp_path):
        assert check_store(tmp_path / "a" / "b") is None
        assert list((tmp_path / "a" / "b").iterdir()) == []

    @pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
    def test_a_place_that_cannot_be_written(self, tmp_path, place):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="--warmup-store must be a folder that can be written") as caught:
            check_store(tmp_path / place)
        assert "\n" not in str(caught.value)
        assert place in str(caught.value)


def _race(store: Path, go: Path) -> dict[str, Any]:
    """Train warm-ups of three seeds as a trial does, and say which epochs were trained here."""
    torch.set_num_threads(1)
    dataset = small_dataset()
    trainings = [
        Training(dataset, settings_of(seed=seed, warmup_epochs=length)) for seed in (0, 1, 2) for length in (3, 5)
    ]
    (go.parent / f"ready-{os.getpid()}").touch()
    wait_until(go.exists, "the other one is ready")
    trained, losses = [], []
    for training in trainings:
        warmup = SharedWarmup(store, training, LENGTHS)
        while training.epoch < training.settings.warmup_epochs:
            if warmup.turn() == "train":
                trained.append((training.settings.seed, training.run_epoch().epoch))
                warmup.trained()
        warmup.close()
        losses.append([m.val_loss for m in training.history])
    return {"trained": trained, "losses": losses}


if __name__ == "__main__":
    print(json.dumps(_race(Path(sys.argv[1]), Path(sys.argv[2]))))
