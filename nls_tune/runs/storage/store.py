"""A folder behind a URL, as files by name: what pyarrow's file systems do, in the way that a run needs it."""

from __future__ import annotations

import math
import os
import posixpath
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from nls_tune.errors import InputError
from nls_tune.machine.provenance import without_password
from nls_tune.runs.storage.opening import open_file_system, reason_of, resolved

#: Seconds within which a storage must answer before anything starts.
PATIENCE_SECONDS = 10.0
#: File systems in which a file appears whole when it is closed; elsewhere it gets its name afterwards.
_WHOLE = {"s3", "gcs", "abfs"}
_T = TypeVar("_T")


class StoredFile(NamedTuple):
    """The state of a stored file: ``mtime`` in seconds since 1970 by the clock of the storage, 0 where it has none."""

    size: int
    mtime: float


class Store:
    """A folder behind a URL. Names are paths below it; a file that is missing is a FileNotFoundError.

    Whatever else goes wrong is an OSError. The ``url`` may hold a password, and means the same on other machines;
    ``shown`` is as it was given, without passwords.

    Raises:
        InputError: If nobody knows the URL's scheme, or the region of its bucket cannot be found out.
    """

    def __init__(self, url: str) -> None:
        self.shown = without_password(url)

        def open_() -> tuple[str, Any, str]:
            found = resolved(url)
            return found, *open_file_system(found)

        try:
            self.url, self._fs, self._root = _within(PATIENCE_SECONDS, open_, self.shown)
        except InputError:
            raise
        except Exception as error:  # of many kinds: of pyarrow, of fsspec, of what fsspec imports
            reason, way_out = reason_of(error)
            raise InputError(
                f"the storage {self.shown} cannot be opened ({reason}); {way_out}, or give another URL"
            ) from None

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with _one_kind_of_error(), self._fs.open_input_stream(self._path(name)) as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes | bytearray | memoryview) -> None:
        """Write or replace a file, which is there whole or not at all."""
        path = self._path(name)
        with _one_kind_of_error():
            if self._fs.type_name in _WHOLE:
                self._put(path, content)
                return
            folder, base = posixpath.split(path)
            self._fs.create_dir(folder, recursive=True)
            temporary = f"{folder}/.{base}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
            try:
                self._put(temporary, content)
                self._fs.move(temporary, path)
            except BaseException:
                with suppress(Exception):
                    self._fs.delete_file(temporary)
                raise

    def _put(self, path: str, content: bytes | bytearray | memoryview) -> None:
        with self._fs.open_output_stream(path) as stream:
            stream.write(content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with _one_kind_of_error(), suppress(FileNotFoundError):
            self._fs.delete_file(self._path(name))

    def touch(self, name: str) -> None:
        """Give a file the present time."""
        self.write(name, self.read(name))

    def age(self, name: str) -> float:
        """Return the seconds since a file was written: by the storage's clock, or this one's.

        A storage that notes no times gives infinity.
        """
        probe = f".now.{secrets.token_hex(8)}"
        now = time.time()
        with suppress(OSError):
            self.write(probe, b"")
            now = self.state(probe).mtime
            self.remove(probe)
        written = self.state(name).mtime
        return now - written if written else math.inf

    def state(self, name: str) -> StoredFile:
        """Return the size and time of a file."""
        from pyarrow import fs

        with _one_kind_of_error():
            found = self._fs.get_file_info(self._path(name))
            if found.type != fs.FileType.File:
                raise FileNotFoundError(f"{self.shown} has no {name}")
            return _state(found)

    def files(self) -> dict[str, StoredFile]:
        """Return all files by name. Names come as they are stored: whoever makes paths of them checks them."""
        from pyarrow import fs

        with _one_kind_of_error():
            selector = fs.FileSelector(self._root, recursive=True, allow_not_found=True)
            found = self._fs.get_file_info(selector)
        # Some file systems give paths with a slash at their beginning, some without.
        root = self._root.strip("/") + "/"
        paths = {one.path.lstrip("/"): one for one in found if one.type == fs.FileType.File}
        return {path.removeprefix(root): _state(one) for path, one in paths.items() if path.startswith(root)}

    def check(self) -> None:
        """Write a file, read it and remove it.

        Raises:
            InputError: If that does not work, or takes too long.
        """
        probe, content = f".probe-{secrets.token_hex(8)}", secrets.token_bytes(8)

        def use() -> None:
            self.write(probe, content)
            same = self.read(probe) == content
            self.remove(probe)
            if not same:
                raise OSError("it gives back other bytes than were written")

        try:
            _within(PATIENCE_SECONDS, use, self.shown)
        except OSError as error:
            reason, way_out = reason_of(error)
            raise InputError(
                f"--storage must be a place that can be written and read, {self.shown} is not ({reason}); {way_out}, "
                "or give another URL"
            ) from None

    def look(self, work: Callable[[], _T]) -> _T:
        """Return what some reading returns; raise InputError if it does not work, or takes too long to begin."""
        try:
            return work()
        except FileNotFoundError:
            raise
        except OSError as error:
            reason, way_out = reason_of(error)
            raise InputError(f"{self.shown} cannot be read ({reason}); {way_out}, or give another URL") from None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _state(found: Any) -> StoredFile:
    return StoredFile(found.size or 0, found.mtime.timestamp() if found.mtime else 0.0)


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Turn what file systems raise, of any kind, into OSErrors."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {reason_of(error)[0]}") from error


def _within(seconds: float, work: Callable[[], _T], shown: str) -> _T:
    """Return what some work returns, in a thread of its own: a server that says nothing must not hold up everything.

    Raises:
        InputError: If it takes longer.
    """
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # it is raised again in the other thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise InputError(
            f"the storage {shown} does not answer within {seconds:g} s; see the network, or give another URL"
        )
    return results[0]
