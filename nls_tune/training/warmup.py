"""The store of shared CE warm-ups: every warm-up epoch is trained once.

The trials of a search have one seed, so those whose settings agree in all that shapes a warm-up epoch have warm-ups
that are prefixes of one another. The store holds, for each such set, the state of a training after the epochs at
which a trial may want to go on. It is content-addressed:

    <store>/<key>/warmup.json     what it is, for people
    <store>/<key>/epoch-0007.pt   the state after epoch 7, from which a longer warm-up can be continued
    <store>/<key>/.lock           held by the trial that trains

The lock is the operating system's: when its holder is killed, it is free.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, SoftFileLock, Timeout

from nls_tune.errors import InputError, error_line, is_out_of_memory
from nls_tune.files import write_atomically
from nls_tune.runs.checkpoint import read_state, sealed_state

if TYPE_CHECKING:
    from nls_tune.training.training import Training

#: What a trial should do next: train an epoch, look at what it took over, or wait for another trial.
Turn = Literal["train", "taken", "wait"]

_LOCK = ".lock"
_EPOCH_FILE = re.compile(r"epoch-(\d{4,})\.pt")
#: A state is network, gradient averages (two with AdamW), the network of the best epoch, and small change.
_STATE_PER_NETWORK = 5


def warmup_key(identity: Mapping[str, Any]) -> str:
    """Return the name of a warm-up: a hash of ``Training.warmup_identity``, 32 hexadecimal digits."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def check_store(folder: Path) -> str | None:
    """Make the folder of a store, or raise InputError; return why it cannot be used, None if it has locks."""
    probe = folder / f".probe-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
    except OSError as error:
        raise InputError(
            f"--warmup-store must be a folder that can be written, {folder} is not ({error.strerror}); "
            "give another one, or none"
        ) from None
    lock = FileLock(probe)
    try:
        lock.acquire(blocking=False)
        usable = _is_real(lock)
    except (OSError, NotImplementedError, Timeout):
        usable = False
    finally:
        lock.release(force=True)
        probe.unlink(missing_ok=True)
    return None if usable else f"the file system of {folder} has no locks, so CE warm-ups are not shared"


class SharedWarmup:
    """One trial's part in its warm-up: takes it over where it is stored, else trains it, or waits for who does.

    Ask ``turn`` before every epoch, tell ``trained`` after it, and ``close`` at the end. Whatever goes wrong with the
    store, the trial trains its warm-up itself. ``epochs`` are the warm-up lengths that any trial may ask for: they are
    stored. ``warning`` says in one line why a stored warm-up could not be taken over.
    """

    def __init__(self, store: Path | None, training: Training, epochs: Collection[int] = ()) -> None:
        self._training = training
        self._target = training.settings.warmup_epochs
        self._epochs = frozenset(epochs) | {self._target}
        self._alone = store is None or self._target == 0
        self._stored = 0
        self.warning: str | None = None
        self._read: dict[str, tuple[int, int, int]] = {}
        if store is not None:
            identity = training.warmup_identity()
            self._identity, self._key = identity, warmup_key(identity)
            self._folder = store / self._key
            self._lock = FileLock(self._folder / _LOCK, thread_local=False)

    def turn(self) -> Turn:
        """Say what the trial should do next; returns at once.

        ``train``: the next epoch, with ``run_epoch``. ``taken``: the training has just been moved on to a stored epoch,
        and may be finished. ``wait``: another trial trains this warm-up; ask again soon. If there is no memory for a
        stored epoch, the error is raised (see ``nls_tune.errors.is_out_of_memory``).
        """
        if self._alone or self._training.epoch >= self._target or self._lock.is_locked:
            return "train"
        if self._take(self._target):
            return "taken"
        try:
            self._acquire()
        except Timeout:
            return "wait"
        except (OSError, NotImplementedError):
            self._alone = True  # no locks, or a store that can only be read
        taken = any(self._take(epoch) for epoch in self._newest_first())
        self._release_when_done()
        return "taken" if taken else "train"

    def trained(self) -> None:
        """Take note of an epoch that the trial has trained; store it if a trial may ask for it."""
        if not self._holds():
            return
        if self._training.epoch in self._epochs or self._training.finished:
            self._store()
        self._release_when_done()

    def close(self) -> None:
        """Let others train on: the trial ends or is stopped. What it has trained of the warm-up is stored."""
        if self._holds():
            if self._training.epoch > self._stored:
                self._store()
            self.abandon()

    def abandon(self) -> None:
        """Let others train on, without storing anything."""
        if self._holds():
            self._lock.release(force=True)

    # The lock

    def _holds(self) -> bool:
        return not self._alone and self._lock.is_locked

    def _acquire(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock.acquire(blocking=False)
        try:
            if not _is_real(self._lock):
                raise OSError("the file system has no locks")
            if not self._has_room():
                raise OSError("the disk is full")
            for torn in self._folder.glob(".*.tmp"):  # of a process that was killed; nobody else writes here now
                torn.unlink(missing_ok=True)
            if not (self._folder / "warmup.json").exists():
                text = json.dumps(self._identity, indent=2) + "\n"
                write_atomically(self._folder / "warmup.json", text.encode())
        except OSError:
            self._lock.release(force=True)
            raise

    def _has_room(self) -> bool:
        """Whether a state fits on the disk: if none does, waiting for others would gain nothing."""
        network = sum(t.numel() * t.element_size() for t in self._training.model.state_dict().values())
        return bool(shutil.disk_usage(self._folder).free > _STATE_PER_NETWORK * network)

    def _release_when_done(self) -> None:
        if self._training.epoch >= self._target or self._training.finished:
            self.abandon()

    # Files

    def _path(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch:04d}.pt"

    def _newest_first(self) -> list[int]:
        """The stored epochs that would bring this training forward."""
        try:
            matches = [_EPOCH_FILE.fullmatch(path.name) for path in self._folder.iterdir()]
        except OSError:
            return []
        found = {int(match[1]) for match in matches if match}
        return sorted((e for e in found if self._training.epoch < e <= self._target), reverse=True)

    def _store(self) -> None:
        """Write the state of the training; on a full disk the trial goes on without the store."""
        epoch = self._training.epoch
        content = sealed_state({"key": self._key, "epoch": epoch, "state": self._training.state_dict()})
        try:
            write_atomically(self._path(epoch), content)
            self._stored = epoch
        except OSError:
            self.abandon()
            self._alone = True

    def _take(self, epoch: int) -> bool:
        """Take over a stored epoch; False if there is none, or its file cannot be used."""
        path = self._path(epoch)
        try:
            stat = path.stat()
            mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if self._read.get(path.name) == mark:
                return False  # read before; whoever trains this warm-up will replace it
            content = path.read_bytes()
        except FileNotFoundError:
            return False
        except OSError as error:
            return self._cannot_use(path, error)
        self._read[path.name] = mark
        try:
            found = read_state(content, self._training.device)
            state = found["state"]
            if (found["key"], found["epoch"], len(state["history"])) != (self._key, epoch, epoch):
                raise InputError("the file is of another warm-up")
            self._training.load_warmup(state)
        except Exception as error:  # a torn file fails in many ways, and all mean: train it
            if is_out_of_memory(error):
                raise  # the file is good
            return self._cannot_use(path, error)
        self._stored = epoch
        return True

    def _cannot_use(self, path: Path, error: Exception) -> Literal[False]:
        self.warning = f"the stored warm-up {path} cannot be used and is trained anew ({error_line(error)})"
        return False


def _is_real(lock: FileLock | SoftFileLock) -> bool:
    """Whether a lock is the system's: filelock falls back to files that stay when their owner is killed."""
    return lock.is_locked and not isinstance(lock, SoftFileLock)
