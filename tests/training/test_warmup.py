"""The store of shared CE warm-ups: what shares one, what is read, who trains, and that the numbers stay the same."""

import errno
import io
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
from judged import correct_bits
from squares import squares

from nls_tune import InputError, TrainingSettings, load_dataset
from nls_tune.datasets import NoisyDataset
from nls_tune.metrics import Judging
from nls_tune.training.data import DeviceData
from nls_tune.training.training import Training
from nls_tune.training.warmup import SharedWarmup, check_store, warmup_key

#: Another value of every setting that shapes a warm-up, and of every other setting.
SHAPING = {
    "class_weights": "balanced",
    "model": "cnn9", "warmup_lr": 0.2, "warmup_milestones": (3,), "warmup_gamma": 0.3, "optimizer": "adamw",
    "momentum": 0.5, "nesterov": False, "weight_decay": 0.0, "batch_size": 50, "crop_padding": 2, "flip": True,
    "cutout": 3, "clip_norm": 1.0, "precision": "bfloat16", "seed": 1,
    "norm_bias_lr_factor": 64.0, "padding_mode": "reflect", "alternate_flip": True, "average_spans": (0.5,),
    "warmup_momentum": 0.0, "warmup_weight_decay": 0.1, "warmup_from": "best", "weights": "default", "freeze": True,
}  # fmt: skip
OTHER = SHAPING | {
    "epochs": 50, "smooth_rate": -4.0, "warmup_epochs": 3, "lr": 0.5, "schedule": "cosine", "milestones": (2,),
    "gamma": 0.7, "loss": "gce", "transition": "true_noise", "bootstrap_kind": "soft", "gce_q": 0.25, "sce_alpha": 0.25,
    "sce_beta": 0.25, "nce_rce_alpha": 0.25, "nce_rce_beta": 0.25, "elr_lambda": 0.25, "elr_beta": 0.25,
    "ce_eps_mae_alpha": 0.25, "ce_eps_mae_beta": 0.25, "ce_eps_mae_m": 0.25, "bootstrap_beta": 0.25,
}  # fmt: skip
LENGTHS = (2, 3, 5)


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
    @given(st.sets(st.sampled_from(sorted(OTHER))), st.sets(st.sampled_from(sorted(OTHER))))
    @hypothesis_settings(max_examples=hypothesis_settings.default.max_examples // 2)
    def test_two_configurations_share_a_warm_up_if_nothing_that_shapes_it_differs(self, first, second):
        # Unchecked: not every setting goes with every other one.
        one, two = (
            TrainingSettings().model_copy(update={name: OTHER[name] for name in names}).warmup_settings()
            for names in (first, second)
        )
        assert set(OTHER) == set(TrainingSettings.model_fields)
        # Where the warm-up has its own, those of the GLS phase do not count.
        without = {name for name in ("momentum", "weight_decay") if f"warmup_{name}" in first & second}
        assert (warmup_key(one) == warmup_key(two)) == (not SHAPING.keys() & (first ^ second) - without)

    def test_under_one_cycle_the_length_of_the_training_decides_too(self, make):
        cycle = {"schedule": "one_cycle", "epochs": 9}
        keys = [make(**{**cycle, **c}).warmup_identity() for c in ({}, {"lr": 1.0, "warmup_epochs": 5}, {"epochs": 10})]
        assert keys[0] == keys[1] != keys[2]

    def test_how_averages_and_mirror_images_are_judged_decides_where_they_are(self, dataset, data):
        def identity(*judging: Any, **changes: Any) -> dict[str, Any]:
            return Training(dataset, settings_of(**changes), data=data, judging=Judging(*judging)).warmup_identity()

        assert identity("best") == identity("last") == identity()
        spans = {"average_spans": (0.5,)}
        assert identity(**spans) == identity("best", **spans) != identity("last", **spans)
        assert len({str(identity(*judging)) for judging in [(), ("best", True), ("last", True)]}) == 3

    def test_what_else_decides(self, make, dataset, monkeypatch):
        def key(training: Training) -> str:
            return warmup_key(training.warmup_identity())

        first = key(make())
        assert key(make(precision="float32", lr=1.0)) == first  # what auto means here
        assert key(make(precision="bfloat16")) != first
        assert key(Training(replace(dataset, fingerprint="other"), settings_of())) != first
        module = "nls_tune.training.training"
        for name in (f"{module}.__version__", f"{module}._STATE_VERSION", "torch.__version__"):
            with monkeypatch.context() as patch:
                patch.setattr(name, "99")
                assert key(make()) != first, name
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
        assert key(make()) != first


class TestSameNumbers:
    @pytest.mark.slow
    @given(st.permutations([1, 2, 4, 4]), st.sampled_from(["sgd", "adamw"]))
    @hypothesis_settings(max_examples=3)
    def test_every_epoch_is_trained_once_and_the_numbers_are_those_without_a_store(
        self, dataset, data, tmp_path_factory, lengths, optimizer
    ):
        store, counts = tmp_path_factory.mktemp("store"), Counter()
        for number, length in enumerate(lengths):
            settings = settings_of(
                warmup_epochs=length, lr=0.01 + number / 1000, optimizer=optimizer, epochs=6 + number
            )
            shared, alone = (Training(dataset, settings, data=data) for _ in range(2))
            counts.update(e for e in train(shared, store, lengths=(1, 2, 4)) if e <= length)
            train(alone, None)
            assert outcome(shared) == outcome(alone)
            assert (alone.epochs_reused, shared.epochs_reused <= length) == (0, True)
        assert counts == dict.fromkeys(range(1, 5), 1)

    @pytest.mark.parametrize("rates", [(-0.5, 0.0), (0.0, -0.5)], ids=["ce takes over", "a rate takes over"])
    @pytest.mark.parametrize("objective", ["best", "last"])
    @pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
    def test_averages_and_mirror_images_of_a_warm_up_are_taken_over(self, tmp_path, rates, objective, schedule):
        """The images are of the fast networks; six steps per epoch, so that averages go on in mid-epoch."""
        data = squares(30, 12, 12, side=16)

        def make(smooth_rate: float, warmup_epochs: int) -> Training:
            settings = settings_of(
                model="fast_cnn_small", batch_size=5, epochs=5, warmup_epochs=warmup_epochs, smooth_rate=smooth_rate,
                schedule=schedule, average_spans=(1.0, 0.3), flip=True, alternate_flip=True, crop_padding=2,
                padding_mode="reflect", norm_bias_lr_factor=16.0, lr=1e-3, warmup_lr=2e-3, precision="float32",
            )  # fmt: skip
            return Training(data, settings, judging=Judging(objective, mirror=True))

        first, taken, alone = make(rates[0], 3), make(rates[1], 2), make(rates[1], 2)
        train(first, tmp_path)
        assert train(taken, tmp_path) == [3, 4, 5]
        train(alone, None)
        assert outcome(taken) == outcome(alone)
        for epochs in range(1, 6):
            scores = alone.readouts.scores(alone.history[:epochs])
            assert taken.readouts.scores(taken.history[:epochs]) == scores
            for score in filter(None, scores):
                assert taken.readouts.mirrored(score.epoch) == alone.readouts.mirrored(score.epoch)
        epoch = scores[1].epoch
        assert correct_bits(taken.readouts, epoch) == correct_bits(alone.readouts, epoch)
        for one, two in zip(taken.readouts.averages.models, alone.readouts.averages.models, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))

    def test_only_epochs_that_can_be_asked_for_are_stored(self, make, tmp_path):
        train(make(warmup_epochs=5), tmp_path, lengths=(3, 6))
        folder = only_folder(tmp_path)
        assert sorted(p.name for p in folder.iterdir()) == [".lock", "epoch-0003.pt", "epoch-0005.pt", "warmup.json"]
        assert json.loads((folder / "warmup.json").read_text())["settings"]["model"] == "mlp"
        state = torch.load(folder / "epoch-0003.pt", weights_only=True)["state"]
        assert len(state["history"]) == 3

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
    def test_another_warm_up_and_a_longer_one_are_refused(self, make):
        with pytest.raises(InputError, match="of another warm-up"):
            make().load_warmup(make(warmup_lr=0.5).state_dict())
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


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def with_another_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


#: What may stand in the place of a good file.
DAMAGE = {
    "empty": lambda file: b"",
    "half": lambda file: file.read_bytes()[: file.stat().st_size // 2],
    "no end": lambda file: file.read_bytes()[:-30],
    "another bit": lambda file: with_another_bit(file.read_bytes()),
    "evil pickle": lambda file: pickle.dumps(Evil()),
    "evil": lambda file: saved(Evil()),
    "no state": lambda file: saved({"key": 1}),
    "a list": lambda file: saved([1, 2]),
    "another epoch": lambda file: file.with_name("epoch-0002.pt").read_bytes(),
    "another warm-up": lambda file: next(file.parents[2].glob("other/*/epoch-0003.pt")).read_bytes(),
}


@pytest.fixture(scope="module")
def stores(dataset, data, tmp_path_factory) -> tuple[Path, tuple[Any, ...]]:
    """A folder with the stores of a training and of one with another warm-up; the outcome of the first."""
    folder = tmp_path_factory.mktemp("stores")
    first, other = (Training(dataset, settings_of(warmup_lr=lr), data=data) for lr in (0.1, 0.5))
    train(first, folder / "store")
    train(other, folder / "other", epochs=3)
    return folder, outcome(first)


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
    def test_it_is_not_taken_over_nor_executed(self, make, stores, tmp_path, damage, monkeypatch):
        monkeypatch.chdir(shutil.copytree(stores[0], tmp_path, dirs_exist_ok=True))
        file = only_folder(tmp_path / "store") / "epoch-0003.pt"
        file.write_bytes(damage(file))
        again = make()
        assert train(again, tmp_path / "store")[0] == 3  # from epoch 2, which is whole
        assert outcome(again) == stores[1]
        assert train(make(), tmp_path / "store", epochs=4) == [4]  # it was replaced
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
        first.close()
        torn = only_folder(tmp_path) / ".epoch-0002.pt.999999.tmp"
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

    @pytest.mark.slow
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
        # As filelock does where there is no flock.
        monkeypatch.setattr("nls_tune.training.warmup.SoftFileLock", FileLock)
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
