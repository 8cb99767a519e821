"""The folder of an unfinished trial, from which any process can continue it."""

from __future__ import annotations

import io
import json
import logging
import shutil
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nls_tune.errors import InputError, error_line, is_out_of_memory
from nls_tune.files import BLANK_SEAL, parse_json, seal, seal_holds, sealed_json, write_atomically
from nls_tune.runs.trial_spec import TrialSpec

if TYPE_CHECKING:
    import torch

    from nls_tune.runs.storage.store import Store

_logger = logging.getLogger(__name__)
_SETTINGS = "trial.json"
_STATE = "state.pt"


def sealed_state(state: Mapping[str, Any]) -> memoryview:
    """Return the bytes that ``torch.save`` makes of a state, with a checksum behind them, which torch reads over."""
    import torch

    buffer, before = io.BytesIO(), torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)  # torch never compares its own checksums, which take as long as ours
    try:
        torch.save(state, buffer)
    finally:
        torch.serialization.set_crc32_options(before)
    at = buffer.tell()
    buffer.write(BLANK_SEAL)
    content = buffer.getbuffer()
    seal(content, at)
    return content


def read_state(content: bytes, device: torch.device) -> Any:
    """Return what ``sealed_state`` or ``torch.save`` wrote; raise any error for other bytes, InputError for damage.

    Files without a checksum, of early versions, have those of the zip archive that they are.
    """
    import torch

    holds = seal_holds(content)
    if holds is None:
        holds = zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    if not holds:
        raise InputError("the file is not what was written: its checksum differs")
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)


class TrialCheckpoint:
    """The folder of an unfinished trial, which holds what the trial is, and its newest state.

    It stands in the run directory and not in Tune's, so that a lost worker, a killed driver and an interrupted
    run all go on in the same way.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, trial: TrialSpec) -> None:
        """Write what the trial is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / _SETTINGS, sealed_json(json.dumps(trial.to_config())).encode())

    def read_trial(self) -> TrialSpec | None:
        """Return what ``start`` wrote; None if that is missing, damaged (a warning says so) or of another version."""
        try:
            content = (self.folder / _SETTINGS).read_bytes()
            if seal_holds(content) is False:
                raise ValueError("it is not what was written: its checksum differs")
            return TrialSpec.from_config(parse_json(content))
        except OSError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            _logger.warning("%s cannot be read (%s); the trial is trained anew", self.folder / _SETTINGS, reason)
            return None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state; without the folder, whose trial has ended, nothing is written."""
        if self.folder.is_dir():
            write_atomically(self.folder / _STATE, sealed_state(state))

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Return the newest state, None if there is none; raise InputError if the file holds something else."""
        try:
            state = read_state(self._read_state(), device)
        except FileNotFoundError:
            return None
        except Exception as error:  # a torn file fails in many ways
            if is_out_of_memory(error):
                raise  # the file is good
            raise InputError(f"the saved state cannot be read ({error_line(error)})") from error
        if not isinstance(state, dict):
            raise InputError(f"the saved state cannot be read (it is a {type(state).__name__})")
        return state

    def _read_state(self) -> bytes:
        return (self.folder / _STATE).read_bytes()

    @property
    def place(self) -> str:
        """Where the states of trials are saved."""
        return str(self.folder.parent)

    def remove(self) -> None:
        """Remove the folder: the trial has a row now."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Wait until what was saved is written."""


class StoredCheckpoint(TrialCheckpoint):
    """A checkpoint whose state lies behind a URL, for nodes that share no folder.

    What the trial is, the process of the search writes into the run directory, whose mirror brings it there. States
    are uploaded by another thread, so that training does not wait: the newest, where one comes before the last is done.
    """

    def __init__(self, store: Store, trial_id: str) -> None:
        super().__init__(Path("checkpoints") / trial_id)
        self._store, self._latest = store, list[memoryview]()
        self._error: OSError | None = None
        self._pool = ThreadPoolExecutor(1)

    def start(self, trial: TrialSpec) -> None:
        """Leave it to the process of the search."""

    def save(self, state: dict[str, Any]) -> None:
        """Begin to replace the state; raise the OSError of the upload before, if it failed."""
        before, self._error = self._error, None
        self._latest.append(sealed_state(state))
        self._pool.submit(self._upload)
        if before is not None:
            raise before

    def _upload(self) -> None:
        waiting = [self._latest.pop(0) for _ in range(len(self._latest))]
        name = (self.folder / _STATE).as_posix()
        try:
            if waiting and self._is_wanted():
                self._store.write(name, waiting[-1])
                if not self._is_wanted():
                    self._store.remove(name)  # the trial has ended meanwhile
        except OSError as error:
            self._error = error

    def _is_wanted(self) -> bool:
        """Return whether the trial has not ended."""
        try:
            self._store.state((self.folder / _SETTINGS).as_posix())
        except FileNotFoundError:
            return False
        return True

    def _read_state(self) -> bytes:
        return self._store.read((self.folder / _STATE).as_posix())

    @property
    def place(self) -> str:
        """Where the states of trials are saved."""
        return self._store.shown

    def close(self) -> None:
        """Wait until what was saved is written."""
        self._pool.shutdown()
