"""The mirror of a run behind a URL: what is written into the run directory is uploaded from another thread.

Files appear in a run directory by rename, so whatever is found there is whole. The mirror looks for what has changed
and uploads it in an order in which the storage can be gone on from at any moment: epochs before rows, rows before
run.json, and a checkpoint is removed after the row of its trial was uploaded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from nls_tune.runs.parts import PartState
from nls_tune.runs.storage.copies import remove_home
from nls_tune.runs.storage.files import RUN_JSON, at_once, home_of, local_files, part_of
from nls_tune.runs.storage.opening import reason_of
from nls_tune.runs.storage.store import Store

#: Seconds between two looks, between two tries while the storage is away, and for the last tries.
_LOOK, _AGAIN, _LAST_TRIES = 1.0, 10.0, 20.0
#: What is uploaded together, in this order.
_ORDER = (("epochs",), ("trials",), (RUN_JSON,), ("checkpoints", "warmups", "report.html"))


class Mirror:
    """Uploads what changes in a run directory, until it is closed.

    Training never waits for it. Where the storage is lost ``say`` is told once, and what is missing is uploaded when
    the storage answers again. ``known`` are the names of files that agree with the storage at the beginning.
    """

    def __init__(self, folder: Path, store: Store, say: Callable[[str], None], known: Iterable[str] = ()) -> None:
        self._folder, self._store, self._say = folder, store, say
        here = local_files(folder)
        self._done: dict[str, PartState] = {name: here[name] for name in known if name in here}
        self._has_said = False
        self._problem: OSError | None = None
        self._ending, self._now = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to upload."""
        self._thread.start()

    def close(self) -> list[str]:
        """Upload what is missing and stop; return the names of the files that could not be uploaded.

        The last tries end after some seconds.
        """
        self._ending.set()
        self._now.set()
        self._thread.join()
        return self._missing()

    @property
    def reason(self) -> str:
        """Why the last upload failed; empty if it did not."""
        return "" if self._problem is None else reason_of(self._problem)[0]

    def _run(self) -> None:
        deadline = None
        while True:
            ending = self._ending.is_set()
            if ending and deadline is None:
                deadline = time.monotonic() + _LAST_TRIES
            self._try()
            if ending and (self._problem is None or (deadline is not None and time.monotonic() > deadline)):
                return
            if ending:
                time.sleep(_LOOK)
            else:
                self._now.wait(_LOOK if self._problem is None else _AGAIN)

    def _try(self) -> None:
        try:
            self.upload()
            self._problem = None
        except Exception as error:  # whatever it is, the search goes on
            self._problem = error if isinstance(error, OSError) else OSError(str(error))
            if not self._has_said:
                self._has_said = True
                with suppress(Exception):
                    self._say(
                        f"Note: {self._store.shown} lacks a part of this run ({self.reason}); the search goes on, and "
                        "what is missing is uploaded when the storage answers again"
                    )

    def upload(self) -> None:
        """Upload what has changed, and remove what has gone.

        Raises:
            OSError: If the storage is lost; what was uploaded until then stays.
        """
        found = local_files(self._folder)
        for parts in _ORDER:
            changed = [n for n, state in found.items() if part_of(n) in parts and self._done.get(n) != state]
            at_once(lambda name: self._upload(name, found[name]), changed)
        homes = {home_of(name) for name in found}
        for home in {home_of(name) for name in self._done} - homes - {None}:
            if home is not None and not (self._folder / home).exists():
                remove_home(self._store, home, self._done)
                self._done = {name: state for name, state in self._done.items() if home_of(name) != home}

    def _upload(self, name: str, state: PartState) -> None:
        try:
            content = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return  # it has gone since, and so it will from the storage
        self._store.write(name, content)
        self._done[name] = state

    def _missing(self) -> list[str]:
        return [name for name, state in local_files(self._folder).items() if self._done.get(name) != state]
