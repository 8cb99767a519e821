"""The run directory: where everything is, and how it is written.

One trial is one row in ``trials/``, one epoch one row in ``epochs/``. Every trial has a part file of its own in
each, replaced whole by rename: readers never see half a file, and nothing is lost with a killed process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, SoftFileLock, Timeout

from nls_tune.errors import InputError
from nls_tune.files import remove_abandoned, write_atomically
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.owner import living_owner, owned
from nls_tune.runs.parts import read_damaged, sealed_parquet, set_aside_damaged
from nls_tune.runs.parts_copy import COPY, make_copy
from nls_tune.runs.run_json import RunJson
from nls_tune.runs.schemas import epoch_schema, settings_of, trial_schema
from nls_tune.runs.trial_spec import TrialSpec

_EMPTY_PART = "empty.parquet"
_LOCK = ".lock"
#: What NFS without its lock service, and some file systems in user space, answer to a lock.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)


class RunDirectory:
    """The folder of a run; it need not exist yet."""

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
        """Make the folders and the empty parts with the schemas; raise InputError if the place cannot hold a run."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out must be a folder, {self.path} is a file; give another place")
        ours = {self.trials.name, self.epochs.name, self.checkpoints.name, self.warmups.name}
        try:
            # Hidden files are ours: a process that was killed during its first write leaves some.
            found = [path.name for path in self.path.iterdir()] if self.path.exists() else []
            if not self.run_json.exists() and any(name not in ours and not name.startswith(".") for name in found):
                raise InputError(f"--out must be empty or a run, {self.path} is neither; give another place")
            for folder in (self.trials, self.epochs, self.checkpoints):
                folder.mkdir(parents=True, exist_ok=True)
            self._write_empty_parts()
        except OSError as error:
            raise InputError(
                f"--out must be a place that can be written, {self.path} is not ({error.strerror}); give another place"
            ) from None

    def _write_empty_parts(self) -> None:
        for folder, schema in ((self.trials, trial_schema()), (self.epochs, epoch_schema())):
            if not (folder / _EMPTY_PART).exists():
                _write_table(folder / _EMPTY_PART, schema.empty_table())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run: two searches must not write to one folder.

        InputError is raised if another process holds it; where the system has no locks, also if a killed process did.
        On some file systems locks fail or hold nothing: a file that says who holds the run is asked as well.
        """
        lock = FileLock(self.path / _LOCK)
        try:
            # A reader that asks whether the run goes on (``is_held``) holds the lock for a moment.
            with warnings.catch_warnings():  # that the system has no locks; then a file stands in for one
                warnings.simplefilter("ignore", UserWarning)
                lock.acquire(timeout=0.5)
        except Timeout:
            stale = f"; if no search runs, remove {self.path / _LOCK}" if isinstance(lock, SoftFileLock) else ""
            message = f"another search is writing to {self.path}; wait for it, stop it, or give another --out{stale}"
            raise InputError(message) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        try:
            if (owner := living_owner(self.path)) is not None:
                raise InputError(
                    f"another search ({owner}) is writing to {self.path}; wait for it, stop it, or give another --out"
                )
            with owned(self.path):
                yield
        finally:
            lock.release()

    def is_held(self) -> bool:
        """Return whether a process of this machine, or of one that shares its locks, holds the run.

        Nothing is written: the medium may be read-only. A lock file that is missing or cannot be opened counts as free.
        """
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            # A shared lock: two readers who ask at once do not take each other for a search.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.ENOSYS:
                return os.fstat(descriptor).st_size > 0  # the file is the lock, and names its owner
            if error.errno not in _NO_LOCKS:
                return error.errno in (errno.EAGAIN, errno.EACCES)
        finally:
            os.close(descriptor)  # releases the lock
        return living_owner(self.path) is not None

    def tidy(self) -> list[str]:
        """Remove what killed processes left half-written, set damaged parts aside, and return a line for each of these.

        The run must be held.
        """
        for folder in (self.path, self.trials, self.epochs, *self.checkpoints.glob("*/")):
            remove_abandoned(folder)
        lost = {
            self.trials: "its trial is trained again, or another one if its settings cannot be read",
            self.epochs: "the epochs of its trial are missing",
        }
        aside = [(folder, name) for folder in lost for name in set_aside_damaged(folder)]
        for name in (name for folder, name in aside if folder == self.trials):
            self._begin_again(name)
        self._write_empty_parts()
        return [
            f"{folder.name}/{name} is not what was written and is set aside as .{name}.damaged: {lost[folder]}"
            for folder, name in aside
            if name != _EMPTY_PART
        ]

    def _begin_again(self, name: str) -> None:
        """Make the folder of the search trial whose row was set aside, if it still says which one it was.

        Whoever goes on from the folder compares the trial's name with its settings: it is the hash of them.
        """
        for row in read_damaged(self.trials / f".{name}.damaged", trial_schema()):
            checkpoint = TrialCheckpoint(self.checkpoints / Path(name).stem)
            with suppress(ValueError, OSError):
                spec = TrialSpec(Path(name).stem, row["noise_level"], row["stage"], settings_of(row))
                if spec.stage == "search" and not checkpoint.folder.exists():
                    checkpoint.start(spec)

    def remove_warmups(self) -> None:
        """Remove the store of shared warm-ups, which nothing needs any more."""
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
            with suppress(OSError):  # a full disk, for example: the copy only saves time
                if (content := make_copy(folder, schema)) is not None:
                    write_atomically(folder / COPY, content)

    def write_json(self, content: RunJson) -> None:
        """Write or replace run.json."""
        write_atomically(self.run_json, content.text().encode())

    def read_json(self) -> RunJson:
        """Read run.json; raise InputError if it is missing, torn, breaks a rule, or is of a newer schema."""
        try:
            text = self.run_json.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{self.path} is not a run: it has no run.json") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{self.run_json} cannot be read ({error}); restore it or give another run") from None
        return RunJson.parse(text, self.run_json)


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    for row in rows:
        if wrong := set(schema.names) ^ set(row):
            raise ValueError(f"a row must have the columns of the schema, differs in {sorted(wrong)}")
    _write_table(path, pa.Table.from_pylist(list(rows), schema=schema))


def _write_table(path: Path, table: pa.Table) -> None:
    # In small files dictionaries and statistics take more space than the rows, and help no reader.
    write_atomically(path, sealed_parquet(table, use_dictionary=False, write_statistics=False))
