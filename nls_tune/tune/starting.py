"""Starting Ray for one search, private and silent, or joining a cluster.

A private Ray listens on this machine only, has a token of its own in a folder of its own, and writes nothing into the
user's home. Its processes do not heed the signals that end a whole job (SIGTERM, SIGHUP): the search ends them when
everything is saved. They end with the search, however that ends.
"""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from nls_tune.errors import InputError
from nls_tune.tune.authentication import check_authentication, reset_authentication
from nls_tune.tune.cluster import local_resources

#: A resource that marks a Ray which a search has started for itself, so that no other search joins it.
_PRIVATE = "nls_tune_private"
#: The most bytes of a socket's path, and those that Ray puts below its folder.
_LONGEST_SOCKET, _BELOW = 107, len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store_0")
#: Ray waits 30 s for its processes. A machine that is busy, or reads its programs from a slow disk, needs longer.
_TRIES = 3
_JOB_SIGNALS = {signal.SIGTERM, signal.SIGHUP}
#: Users' own values win. The first two are read once, when Ray is imported.
_ALWAYS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Tune's snapshots are never read: results are the truth. One at the start and one at the end remain.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
}
#: For a private Ray only.
_PRIVATELY = {"RAY_USAGE_STATS_ENABLED": "0"}
#: Ends Ray's agents when its input ends, with the search: by themselves they look for their head for a minute.
_REAPER = 'read line; for pid; do grep -qa Agent "/proc/$pid/cmdline" 2>/dev/null && kill -9 "$pid"; done'
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
#: Time for the main thread to leave a Ray that has ended, which gives up by itself after 60 s and ends this process.
_STUCK_SECONDS = 20.0


@contextmanager
def ray_session(address: str | None) -> Iterator[dict[str, float]]:
    """Start Ray on this machine, or connect to the cluster at an address, and yield its resources.

    Ray is silent, and shut down at the end. A session that the caller has opened is used and left open.

    Raises:
        InputError: If there is no cluster at the address, it wants other tokens, or it is another search's own Ray.
        RuntimeError: If Ray does not start on this machine.
    """
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)
    if address is None:
        _check_names()
    import ray

    # A trial that fails has its error in its row and in a line on the screen.
    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune", "ray.train")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with ExitStack() as stack:
            if not ray.is_initialized():
                stack.enter_context(_quiet())
                stack.enter_context(_private_ray() if address is None else _joined(address))
            yield _resources()
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's messages from its own processes, pages of them where one dies, out of the search's output."""
    worker: Any = importlib.import_module("ray._private.worker")
    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *arguments, **options: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


# Ray of one search


@contextmanager
def _private_ray() -> Iterator[None]:
    import ray

    with tempfile.TemporaryDirectory(prefix="nls-", ignore_cleanup_errors=True) as folder, _own_settings(Path(folder)):
        _start()
        helpers = _processes()
        with _deaf_children():
            reaper = subprocess.Popen(  # noqa: S603 - our own program
                ["/bin/sh", "-c", _REAPER, "sh", *(str(process.pid) for process in helpers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            yield
        finally:
            ray.shutdown()
            _end(helpers)
            reaper.communicate()


@contextmanager
def _own_settings(folder: Path) -> Iterator[None]:
    """Set the environment of a private Ray: on loopback, with a token of its own unless the user has one there."""
    from ray._private import ray_constants

    wanted = {name: value for name, value in _PRIVATELY.items() if name not in os.environ}
    # Ray sets the mode in this process when it starts, and that stays when it has ended: it is no user's wish.
    if os.environ.get("RAY_AUTH_MODE", "token") == "token" and not any(name in os.environ for name in _TOKENS):
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        wanted |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    reset_authentication()
    ray_constants.ENABLE_RAY_CLUSTER = False  # as Ray itself does on Windows and macOS: all its servers on 127.0.0.1
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})
        reset_authentication()


def _start() -> None:
    """Start Ray, if need be more than once: its processes have 30 s, which a busy machine may not keep."""
    import ray

    resources = local_resources()
    arguments: dict[str, Any] = {
        "address": "local",  # and not None, which would join whatever cluster runs here
        "num_cpus": int(resources["CPU"]),  # as the plan has seen
        "num_gpus": int(resources["GPU"]),
        "resources": {_PRIVATE: 1},
        "include_dashboard": False,
        "_temp_dir": str(ray_folder()),
    }
    for tried in range(1, _TRIES + 1):
        try:
            with _deaf_children():
                ray.init(**arguments, log_to_driver=False, logging_level=logging.ERROR)
            break
        except Exception as error:  # Ray raises many kinds, some of them plain Exceptions
            with suppress(Exception):
                ray.shutdown()
            if tried == _TRIES or isinstance(error, OSError | ValueError):
                raise RuntimeError(_not_started(error)) from None
    _shut_down_at_once()


def _not_started(error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    slow = any(sign in reason.lower() for sign in ("timed out", "timeout", "failed to connect", "not found in"))
    way_out = (
        "the machine may be busy: give the same command again, or wait until it is less so"
        if slow
        else f"its messages are in {ray_folder()}/session_latest/logs"
    )
    return f"Ray does not start on this machine: {reason}; {way_out}"


def ray_folder() -> Path:
    """Return the folder of a private Ray's sessions: in RAY_TMPDIR or TMPDIR, or where their paths are too long, /tmp.

    Raises:
        RuntimeError: If there is no folder that can be written and has a path short enough for sockets.
    """
    wanted = [os.environ[name] for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)][:1]
    for base in [*wanted, "/tmp", "/var/tmp", "/dev/shm"]:  # noqa: S108 - Ray makes folders of its own there
        long = len(os.fsencode(base)) + _BELOW > _LONGEST_SOCKET
        if not long and _is_utf8(base) and os.access(base, os.W_OK | os.X_OK):
            return Path(base) / "ray"
    raise RuntimeError(
        f"Ray needs a folder for its sockets that can be written, with a path of at most {_LONGEST_SOCKET - _BELOW} "
        f"bytes in UTF-8; {wanted[0] if wanted else '/tmp'!r} is none: set RAY_TMPDIR to one"  # noqa: S108
    )


def _check_names() -> None:
    check_path("the current folder", os.getcwd())  # noqa: PTH109 - the text itself
    for path in sys.path:
        check_path("a folder of PYTHONPATH or sys.path", path)


def check_path(what: str, path: str | Path) -> None:
    """Check a path that Ray hands to its processes as a text.

    Raises:
        InputError: If it is not valid UTF-8.
    """
    if not _is_utf8(str(path)):
        raise InputError(f"{what} must be a path in UTF-8, which Ray needs, got {str(path)!r}; give another place")


def _is_utf8(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Let the processes that start meanwhile, and those that they start, not heed signals to a whole job.

    A blocked signal stays blocked in them; to this process it comes when they have started. Ray does the same with
    Ctrl-C. What Ray sets as this process's own handlers is undone.
    """
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in _JOB_SIGNALS} if in_main else {}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _JOB_SIGNALS)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shut_down_at_once() -> None:
    """Let Ray's shutdown end its processes by SIGKILL: it would first wait for what they do not heed, 5 s in all."""
    import ray

    node: Any = ray._private.worker._global_node
    if node is not None:
        node.kill_all_processes = partial(_kill_all, type(node).kill_all_processes, node)


def _kill_all(kill: Any, node: Any, check_alive: bool = True, allow_graceful: bool = False, wait: bool = False) -> None:
    kill(node, check_alive=check_alive, allow_graceful=False, wait=wait)


def head_processes() -> Mapping[str, int]:
    """Return the processes without which a private Ray cannot go on, by name; none where it runs elsewhere."""
    import ray

    node: Any = ray._private.worker._global_node
    started: Mapping[str, Any] = {} if node is None else node.all_processes
    return {name: each[0].process.pid for name, each in started.items() if name in ("raylet", "gcs_server")}


def _processes() -> list[Any]:
    """All processes of a private Ray that run now."""
    psutil = _psutil()
    found = []
    with suppress(psutil.Error):
        for pid in head_processes().values():
            head = psutil.Process(pid)
            found += [head, *head.children(recursive=True)]
    return found


def end_processes() -> None:
    """End a private Ray from any thread, whatever the main thread does."""
    _end(_processes())


def _end(processes: list[Any]) -> None:
    """End what is left of a private Ray: its agents would look for it for a while."""
    psutil = _psutil()
    for process in processes:
        with suppress(psutil.Error):
            process.kill()  # which checks that the number has not gone to another process


def _psutil() -> Any:
    """Return the psutil that Ray brings."""
    return importlib.import_module("psutil")


@contextmanager
def watched_head(died: Callable[[str], None], hangs: Callable[[str], None]) -> Iterator[None]:
    """Call ``died`` from another thread if a process without which a private Ray cannot go on ends meanwhile.

    Ray itself takes half a minute to see it, and then ends this process on the spot, or waits for ever. ``hangs`` is
    called if the block does not end after ``died``: the main thread waits in Ray's own code, deaf to signals.
    """
    names: dict[int, str] = {}
    with suppress(OSError, AttributeError):  # a system without such descriptors: nothing is watched
        names = {os.pidfd_open(pid): name for name, pid in head_processes().items()}
    end, over = os.pipe()
    poll = select.poll()
    for descriptor in [*names, end]:
        poll.register(descriptor, select.POLLIN | select.POLLHUP)

    def watch() -> None:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if end not in ready:
            what = f"Ray's {names[ready[0]]} on this machine has ended, from outside or by a crash"
            died(what)
            if not select.select([end], [], [], _STUCK_SECONDS)[0]:
                hangs(what)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(over)
        thread.join()
        for descriptor in [*names, end]:
            os.close(descriptor)


# A cluster


@contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    _check_reachable(address)
    check_authentication(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, " ".join(str(error).split())[:200]) from None
    try:
        # Where no cluster was started, "auto" is any Ray of this machine, and that of a search ends with it.
        if _PRIVATE in _resources():
            raise InputError(
                f"--address must be a cluster, {address!r} is another search's own Ray, which ends with that search; "
                "start one with 'ray start --head', or leave out --address"
            )
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Say within seconds that no program answers at HOST:PORT; Ray itself keeps trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto" and the like: Ray knows what they mean
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, reason: str) -> InputError:
    return InputError(
        f"no Ray cluster answers at {address!r} ({reason}); start one with 'ray start --head' or leave out --address"
    )


def _resources() -> dict[str, float]:
    import ray

    return cast("dict[str, float]", ray.cluster_resources())  # type: ignore[no-untyped-call] # Ray's
