"""Machines of their own on this one: network namespaces on a common switch, each with an address."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from commands import Program
from ray_programs import ENVIRONMENT, RAY

PORT = 6379


def can_make_namespaces() -> bool:
    """Whether this user may make network namespaces here."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"nls{os.getpid()}"
    if subprocess.run(("ip", "netns", "add", name), capture_output=True, check=False).returncode:
        return False
    _ip("netns", "del", name)
    return True


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), capture_output=True, check=True)


class Machines:
    """Machines by their numbers: each has the address 10.77.0.NUMBER, and a Ray of its own if it is asked for one."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._prefix = folder, f"nls{os.getpid() % 10000}"
        self._made: list[str] = []
        self._rays: list[Program] = []
        self._switch = self._add("switch")
        _ip("-n", self._switch, "link", "add", "lan", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "lan", "up")

    def _add(self, name: str) -> str:
        name = f"{self._prefix}-{name}"
        _ip("netns", "add", name)
        self._made.append(name)
        _ip("-n", name, "link", "set", "lo", "up")
        return name

    def add(self, number: int) -> None:
        """Make a machine and connect it."""
        name = self._add(str(number))
        port = f"port{number}"
        _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("-n", self._switch, "link", "set", port, "master", "lan", "up")
        _ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")

    def on(self, number: int, *command: str) -> tuple[str, ...]:
        """Return the command that runs another one on a machine."""
        return ("ip", "netns", "exec", f"{self._prefix}-{number}", *command)

    def start_ray(self, number: int, *, head: bool = False, cpus: int = 1) -> Program:
        """Start Ray on a machine, as the head, or as a node of the cluster of machine 1."""
        role = ("--head", f"--port={PORT}", "--include-dashboard=false") if head else (f"--address=10.77.0.1:{PORT}",)
        temporary = ("--temp-dir", f"{os.environ['RAY_TMPDIR']}/{number}")
        common = ("--block", f"--node-ip-address=10.77.0.{number}", f"--num-cpus={cpus}", "--disable-usage-stats")
        program = Program(self.on(number, RAY, "start", *role, *common, *temporary), self._folder, ENVIRONMENT)
        self._rays.append(program)
        return program

    def cut_off(self, number: int) -> None:
        """Pull the cable of a machine: what runs there goes on, and nobody hears of it."""
        _ip("-n", self._switch, "link", "set", f"port{number}", "down")

    def remove(self) -> None:
        """Stop every Ray and remove the machines."""
        for program in self._rays:
            if program.running:
                program.stop()
        for name in reversed(self._made):
            _ip("netns", "del", name)


@contextmanager
def machines(folder: Path) -> Iterator[Machines]:
    """Yield a switch without machines; what was added is removed at the end."""
    made = Machines(folder)
    try:
        yield made
    finally:
        made.remove()
