"""The results on disk: Parquet schemas, the part files of a run, run.json, and their readers.

One trial is one row in ``trials/``, one epoch one row in ``epochs/``. Every trial has a part file of its own in
each, replaced whole by rename, so that readers never see half a file and nothing is lost with a killed process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, SoftFileLock, Timeout

from nls_tune.errors import InputError
from nls_tune.json_text import json_text
from nls_tune.parts import VERSION_KEY
from nls_tune.parts_copy import COPY, make_copy, read_folder
from nls_tune.settings import OWN_COLUMNS, TrainingSettings

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
#: How a trial can end.
STATUSES = ("completed", "stopped", "diverged", "out_of_memory", "failed", "interrupted")
#: The stage of trials that a confirmation trains on all labels; they have no validation samples left.
ON_ALL_LABELS = "confirm_all"
_EMPTY_PART = "empty.parquet"
_LOCK = ".lock"

_TIME = pa.timestamp("us", tz="UTC")


def _field(name: str, kind: pa.DataType, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


def _config_fields() -> list[pa.Field]:
    """One column for every training setting that has none of its own, with the type of its annotation."""
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    fields = []
    for name, info in TrainingSettings.model_fields.items():
        if name in OWN_COLUMNS:
            continue
        origin = typing.get_origin(info.annotation)
        if origin is tuple:
            kind: pa.DataType = pa.list_(pa.int64())
        elif origin is typing.Literal:
            kind = pa.string()
        else:
            kind = kinds[typing.cast("type", info.annotation)]
        fields.append(_field(f"config_{name}", kind))
    return fields


@cache
def trial_schema() -> pa.Schema:
    """Return the schema of ``trials/``; columns are nullable only where a value can be unknown."""
    text, whole, real = pa.string(), pa.int64(), pa.float64()
    fields = [
        _field("run_id", text),
        _field("trial_id", text),
        _field("stage", text),
        _field("arm", text),
        _field("dataset", text),
        _field("num_classes", whole),
        _field("noise_level", text),
        _field("noise_rate", real, nullable=True),
        _field("estimated_noise_rate", real, nullable=True),
        _field("noise_cancelling_rate", real, nullable=True),
        _field("smooth_rate", real),
        _field("warmup_epochs", whole),
        _field("lr", real),
        *_config_fields(),
        _field("seed", whole),
        _field("noise_seed", whole),
        _field("status", text),
        _field("error", text, nullable=True),
        _field("epochs", whole),
        _field("epochs_reused", whole),
        _field("best_epoch", whole, nullable=True),
        _field("best_val_accuracy", real, nullable=True),
        _field("test_accuracy_at_best", real, nullable=True),
        _field("last_val_accuracy", real, nullable=True),
        _field("last_test_accuracy", real, nullable=True),
        # How many samples the bits stand for: packing rounds up to whole bytes.
        _field("num_val", whole),
        _field("num_test", whole),
        _field("val_correct_at_best", pa.binary(), nullable=True),
        _field("test_correct_at_best", pa.binary(), nullable=True),
        _field("train_seconds", real),
        _field("wall_seconds", real),
        _field("device", text),
        _field("node", text),
        _field("started_at", _TIME),
        _field("finished_at", _TIME),
    ]
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION)})


@cache
def epoch_schema() -> pa.Schema:
    """Return the schema of ``epochs/``."""
    text, whole, real = pa.string(), pa.int64(), pa.float64()
    fields = [
        _field("run_id", text),
        _field("trial_id", text),
        _field("noise_level", text),
        _field("arm", text),
        _field("smooth_rate", real),
        _field("node", text),
        _field("device", text),
        _field("epoch", whole),
        _field("phase", text),
        _field("lr", real),
        _field("train_loss", real),
        _field("train_accuracy", real),
        _field("val_loss", real),
        _field("val_accuracy", real),
        _field("test_accuracy", real, nullable=True),
        _field("diverged", pa.bool_()),
        _field("seconds", real),
        _field("peak_memory_bytes", whole),
    ]
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION)})


def trial_id(fingerprint: str, noise_level: str, noise_seed: int, settings: TrainingSettings, stage: str) -> str:
    """Return the name of a trial: a hash of what it is, the same on every machine.

    Args:
        fingerprint: Of the noisy dataset.
        noise_level: In its stored spelling.
        noise_seed: Of the labels.
        settings: Configuration and seed.
        stage: ``search``, ``confirm`` or ``confirm_all``.

    Returns:
        16 hexadecimal digits.
    """
    identity = [fingerprint, noise_level, noise_seed, settings.model_dump(mode="json"), stage]
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class RunDirectory:
    """The folder of a run: where everything is, and how it is written.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        # Absolute, because worker processes have other working directories.
        self.path = Path(path).expanduser().absolute()
        self.trials = self.path / "trials"
        self.epochs = self.path / "epochs"
        self.checkpoints = self.path / "checkpoints"
        self.warmups = self.path / "warmups"
        self.tune = self.path / "tune"
        self.tensorboard = self.path / "tensorboard"
        self.run_json = self.path / "run.json"

    def create(self) -> None:
        """Make the folders and the empty parts that carry the schemas.

        Raises:
            InputError: If the place is a file, cannot be written, or holds something that is no run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out must be a folder, {self.path} is a file; give another place")
        ours = {self.trials.name, self.epochs.name, self.checkpoints.name, self.warmups.name}
        try:
            # Hidden files are ours as well: what a process that was killed left of its first write.
            found = [p.name for p in self.path.iterdir()] if self.path.is_dir() else []
        except OSError as error:
            raise InputError(f"--out cannot be read, {self.path} ({error.strerror}); give another place") from None
        foreign = [name for name in found if name not in ours and not name.startswith(".")]
        if foreign and not self.run_json.exists():
            raise InputError(f"--out must be empty or a run, {self.path} is neither; give another place")
        try:
            for folder in (self.trials, self.epochs, self.checkpoints):
                folder.mkdir(parents=True, exist_ok=True)
            for folder, schema in ((self.trials, trial_schema()), (self.epochs, epoch_schema())):
                if not (folder / _EMPTY_PART).exists():
                    _write_table(folder / _EMPTY_PART, schema.empty_table())
        except OSError as error:
            raise InputError(
                f"--out must be a place that can be written, {self.path} is not ({error.strerror}); give another place"
            ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run: two searches must not write to one folder.

        Raises:
            InputError: If another process holds it; without the system's locks also if one that was killed did.
        """
        lock = FileLock(self.path / _LOCK)
        try:
            # A reader that asks whether the run goes on (``is_held``) holds it for a moment.
            lock.acquire(timeout=0.5)
        except Timeout:
            stale = f"; if no search runs, remove {self.path / _LOCK}" if isinstance(lock, SoftFileLock) else ""
            message = f"another search is writing to {self.path}; wait for it, stop it, or give another --out{stale}"
            raise InputError(message) from None
        try:
            yield
        finally:
            lock.release()

    def is_held(self) -> bool:
        """Return whether a process of this machine, or one that shares its locks, holds the run.

        Nothing is written: the run may lie on a medium that cannot be. A lock file that is missing, or that cannot be
        asked, is held by nobody that we could know of.
        """
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            # Shared, so that two readers who ask at once do not take each other for a search.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
                return os.fstat(descriptor).st_size > 0  # the file is the lock, and names its owner
            return error.errno in (errno.EAGAIN, errno.EACCES)
        finally:
            os.close(descriptor)  # gives it back
        return False

    def remove_warmups(self) -> None:
        """Remove the store of shared warm-ups: whoever needed them is finished."""
        shutil.rmtree(self.warmups, ignore_errors=True)

    def write_trial(self, row: Mapping[str, Any]) -> None:
        """Write or replace the row of a finished trial."""
        _write_rows(self.trials / f"{row['trial_id']}.parquet", [row], trial_schema())

    def write_epochs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write or replace the epochs of one trial."""
        _write_rows(self.epochs / f"{rows[0]['trial_id']}.parquet", rows, epoch_schema())

    def copy_parts(self) -> None:
        """Copy the parts of each folder into one file that is quicker to read; the parts stay."""
        for folder, schema in ((self.trials, trial_schema()), (self.epochs, epoch_schema())):
            with suppress(OSError):  # a full disk, for example: it was only to save time
                if (content := make_copy(folder, schema)) is not None:
                    write_atomically(folder / COPY, content)

    def write_json(self, content: Mapping[str, Any]) -> None:
        """Write or replace run.json."""
        write_atomically(self.run_json, (json_text(content) + "\n").encode())

    def read_json(self) -> dict[str, Any]:
        """Read run.json.

        Raises:
            InputError: If it is missing, torn, or of a newer schema than this version knows.
        """
        try:
            content = json.loads(self.run_json.read_text(encoding="utf-8"))
            version = content["schema_version"]
            if not isinstance(version, int):
                raise TypeError(f"schema_version is {version!r}")
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{self.path} is no run: it has no run.json") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{self.run_json} cannot be read ({error}); restore it or give another run") from None
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{self.run_json} has schema version {version}, this nls_tune reads up to {SCHEMA_VERSION}; "
                "update nls_tune"
            )
        return typing.cast("dict[str, Any]", content)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power failure.

    The temporary name starts with a dot and has no ending that a reader looks for.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    for row in rows:
        if wrong := set(schema.names) ^ set(row):
            raise ValueError(f"a row must have the columns of the schema, differs in {sorted(wrong)}")
    _write_table(path, pa.Table.from_pylist(list(rows), schema=schema))


def _write_table(path: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    # For some rows dictionaries and statistics are most of the file, and help no reader.
    pq.write_table(table, sink, use_dictionary=False, write_statistics=False)
    write_atomically(path, sink.getvalue().to_pybytes())


def read_trials(run: str | Path) -> pd.DataFrame:
    """Return the trials of a run, one row each, in the order in which they started.

    It works while the run goes on and after a crash.

    Args:
        run: The run directory.

    Returns:
        The columns of ``trial_schema``.

    Raises:
        InputError: If the folder is no run or a part file cannot be read.
    """
    return trial_frame(_read_parts(RunDirectory(run).trials, trial_schema()))


def read_epochs(run: str | Path) -> pd.DataFrame:
    """Return the epochs of a run, one row each, trial by trial.

    Args:
        run: The run directory.

    Returns:
        The columns of ``epoch_schema``.

    Raises:
        InputError: If the folder is no run or a part file cannot be read.
    """
    return epoch_frame(_read_parts(RunDirectory(run).epochs, epoch_schema()))


def trial_frame(table: pa.Table) -> pd.DataFrame:
    """Return rows of ``trial_schema`` in the order in which the trials started."""
    return _frame(table.sort_by([("started_at", "ascending"), ("trial_id", "ascending")]))


def epoch_frame(table: pa.Table) -> pd.DataFrame:
    """Return rows of ``epoch_schema`` trial by trial, epoch by epoch."""
    trial_ids, epochs = table["trial_id"], table["epoch"]
    before, after = slice(0, -1), slice(1, None)
    same = pc.equal(trial_ids[before], trial_ids[after])
    rising = pc.or_(pc.less(trial_ids[before], trial_ids[after]), pc.and_(same, pc.less(epochs[before], epochs[after])))
    # Parts are read by name, which is mostly this order already; sorting a million names takes a second.
    ordered = pc.all(rising).as_py() is not False
    return _frame(table if ordered else table.sort_by([("trial_id", "ascending"), ("epoch", "ascending")]))


def _frame(table: pa.Table) -> pd.DataFrame:
    return typing.cast("pd.DataFrame", table.to_pandas())


def _read_parts(folder: Path, schema: pa.Schema) -> pa.Table:
    if not folder.is_dir():
        raise InputError(f"{folder.parent} is no run: it has no folder {folder.name}")
    found = read_folder(folder, schema)
    if found.unread:
        name, reason, remedy = found.unread[0]
        raise InputError(f"{folder / name} {reason}; {remedy}")
    return found.table


def settings_of(row: Mapping[Any, Any]) -> TrainingSettings:
    """Return the training settings that a row of ``trials/`` stands for."""
    values = {name: row[name if name in OWN_COLUMNS else f"config_{name}"] for name in TrainingSettings.model_fields}
    plain = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in values.items()}
    return TrainingSettings(**plain)


def config_columns(settings: TrainingSettings) -> dict[str, Any]:
    """Return the columns of ``trials/`` that hold the settings of a trial."""
    values = settings.model_dump(mode="json")
    return {name if name in OWN_COLUMNS else f"config_{name}": value for name, value in values.items()}


def unpack_correct(bits: bytes, num_samples: int) -> np.ndarray:
    """Return which samples were right, shape (num_samples,), bool, from the packed bits of a row."""
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=num_samples).astype(bool)
