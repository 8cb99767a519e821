"""Real ``ray`` programs: a head of a cluster, and whether it answers."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from commands import Program, environment, wait_until

RAY = str(Path(sys.executable).with_name("ray"))
#: A cluster with tokens would refuse workers that have none, see Ray's documentation of RAY_AUTH_MODE.
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def is_healthy(address: str) -> bool:
    """Whether a cluster answers."""
    command = (RAY, "health-check", "--address", address)
    done = subprocess.run(command, env=environment(ENVIRONMENT), capture_output=True, timeout=60, check=False)
    return done.returncode == 0


@contextlib.contextmanager
def heads(folder: Path) -> Iterator[Callable[[], tuple[str, Program]]]:
    """Yield what starts a head with two CPUs, always at the same address; the last one is stopped at the end.

    Each is the head of a process group of its own.
    """
    port = free_port()
    made: list[Program] = []
    command = (
        RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false",
        "--disable-usage-stats", f"--temp-dir={os.environ['RAY_TMPDIR']}/cluster",
    )  # fmt: skip

    def start() -> tuple[str, Program]:
        address = f"127.0.0.1:{port}"
        made.append(Program(command, folder, ENVIRONMENT))
        wait_until(lambda: is_healthy(address) or not made[-1].running, "the head answers", 200)
        assert made[-1].running, made[-1].wait()
        return address, made[-1]

    try:
        yield start
    finally:
        if made and made[-1].running:
            made[-1].stop()
