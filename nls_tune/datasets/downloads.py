"""Downloads that survive broken connections, other processes, and wrong files."""

from __future__ import annotations

import hashlib
import http.client
import logging
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from nls_tune.datasets.progress import Progress, show_progress
from nls_tune.errors import InputError

_logger = logging.getLogger(__name__)
_ATTEMPTS = 5
_BACKOFF_SECONDS = 0.5
_BLOCK_BYTES = 1 << 18
#: So long a process waits for another one without a word.
_SILENT_SECONDS = 5.0
#: Hardly anything takes longer to make.
_LONGEST_HOURS = 3.0


class DownloadError(InputError):
    """A file could not be downloaded or written; the message names it, the address and the reason."""


class _BrokenError(Exception):
    """A transfer that is worth another attempt."""


class _NoConnectionError(_BrokenError):
    """The server did not answer at all."""


def download(url: str, path: Path, *, checksum: str, timeout: float = 10.0, progress: Progress = True) -> None:
    """Download a file, unless it is there already; one with another checksum is replaced.

    The file appears under its name only when it is complete and right. The part that a broken transfer got stays
    beside it under a hidden name and is continued, by this call or a later one, if the server can do that. Of
    several processes that want the same file, one downloads it and the others wait for it.

    The folder of ``path`` is made. ``checksum`` is an algorithm and a hexadecimal digest, such as ``"sha256:9f86..."``,
    and ``timeout`` the seconds to wait for the server's first answer, and then for each piece.

    Raises:
        DownloadError: The file did not come, is another one, or cannot be written; the message says why.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"a download needs an http or https address, not {url!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            if not path.is_file() or digest_of(path, checksum) != checksum:
                _fetch(url, path, checksum, timeout, progress)
    except OSError as error:  # network errors were turned into DownloadError where they arose
        raise DownloadError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes of this program from making the same file; wait if one is making it.

    The lock is a hidden file beside ``path``. An OSError is raised where the folder cannot be written to, and, where
    the system has no locks, for a file that is so old that a killed process must have left it.
    """
    import filelock  # not needed unless something is downloaded

    file = path.with_name(f".{path.name}.lock")
    lock = filelock.FileLock(file)
    said = False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_SILENT_SECONDS)
        except filelock.Timeout:
            if isinstance(lock, filelock.SoftFileLock):
                _refuse_old(file, path)
            if not said:
                _logger.warning("waiting for another process that is making %s and holds %s", path, file)
                said = True
    try:
        yield
    finally:
        lock.release()


def _refuse_old(lock: Path, path: Path) -> None:
    """Raise an OSError if a lock that is only a file is old: it stays when its process is killed."""
    with suppress(FileNotFoundError):  # it has just been released
        hours = (time.time() - lock.stat().st_mtime) / 3600
        if hours > _LONGEST_HOURS:
            raise OSError(f"{lock} is {hours:.0f} hours old; if no process is making {path.name}, remove it")


def digest_of(path: Path, checksum: str) -> str:
    """Return the checksum of a file (``"algorithm:digest"``), with the algorithm of the one given."""
    algorithm = checksum.partition(":")[0]
    with path.open("rb") as file:
        # Published MD5 sums tell whether a file is whole; they are no protection, and need not be.
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{digest.hexdigest()}"


def _fetch(url: str, path: Path, checksum: str, timeout: float, progress: Progress) -> None:
    """Transfer a file, in several attempts if need be, and give it its name if its checksum is right."""
    part = path.with_name(f".{path.name}.part")
    problem: object = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_BACKOFF_SECONDS * 2 ** (attempt - 1))
        continued = part.exists()
        try:
            _transfer(url, part, timeout, progress, path.name)
        except _BrokenError as error:
            problem = error
            if attempt == 0 and isinstance(error, _NoConnectionError):
                break  # there may be no network at all: say so at once
            continue
        got = digest_of(part, checksum)
        if got == checksum:
            part.replace(path)
            return
        part.unlink()
        problem = f"its checksum is {got} and not {checksum}, so it is another file or was damaged on the way"
        if not continued:
            break
        # What an earlier call left may have belonged to another file: once more, from the start.
    raise DownloadError(f"cannot download {path.name} from {url}: {problem}")


def _transfer(url: str, part: Path, timeout: float, progress: Progress, name: str) -> None:
    """Bring `part` to its full length, continuing what it holds."""
    start = part.stat().st_size if part.exists() else 0
    with _answer(url, part, start, timeout) as response:
        if not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            start = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None else None
        done = start
        with (
            part.open("ab" if start else "wb") as file,
            show_progress(progress, f"downloading {name}", total, unit="bytes") as update,
        ):
            while block := _read(response):
                file.write(block)
                done += len(block)
                update(done)
    if total is not None and done != total:
        raise _BrokenError(f"the connection broke off after {done:,} of {total:,} bytes")


def _answer(url: str, part: Path, start: int, timeout: float) -> http.client.HTTPResponse:
    """Return the answer to a request for the bytes from ``start`` on; errors are sorted by what may help."""
    headers = {"User-Agent": "nls_tune"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        return _open(urllib.request.Request(url, headers=headers), timeout)  # noqa: S310 - checked in download()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)  # longer than the file, so not a part of it
            raise _BrokenError("what was there is not a part of the file") from error
        if error.code >= 500 or error.code in (408, 429):
            raise _BrokenError(f"the server answered {error.code} {error.reason}") from error
        raise DownloadError(f"cannot download {url}: the server answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        found = f"within {timeout:g} s" if isinstance(reason, TimeoutError) else f"({reason})"
        raise _NoConnectionError(f"no connection {found}") from error


def _open(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
    """Open an address, waiting `timeout` seconds in all.

    The timeout of ``urlopen`` does not cover the resolution of names, which can hang for minutes without a
    network, and counts anew for each address of a host. Hence the thread.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=timeout))  # noqa: S310 - checked in download()
        except Exception as error:
            answers.put(error)

    threading.Thread(target=work, name="download", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return cast("http.client.HTTPResponse", answer)


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(f"the connection broke off ({error or type(error).__name__})") from error
