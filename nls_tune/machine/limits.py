"""The CPUs and the memory that this process may use: those of the machine, or less where a container has limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: What cgroup v1 says where there is no limit: the largest number of whole pages, whatever the size of a page.
_NO_LIMIT = 2**60
_ROOT = Path("/")


@dataclass(frozen=True)
class Memory:
    """The memory of this machine or container in bytes, of all its processes."""

    used: int
    total: int

    def __str__(self) -> str:
        return f"{self.used / 1e9:.1f} of {self.total / 1e9:.1f} GB"


def usable_cpus(root: Path = _ROOT) -> int:
    """Return the CPUs that this process may use at once, at least 1: its affinity, or its container's quota if less.

    A quota of two and a half CPUs counts as two: three busy processes would wait for each other.
    """
    quotas = [quota for folder in _groups(root, "cpu") if (quota := _cpu_quota(folder)) is not None]
    return max(1, int(min([len(os.sched_getaffinity(0)), *quotas])))


def memory(root: Path = _ROOT) -> Memory | None:
    """Return used and total memory of the container where it has a limit, else of the machine; None where unknown."""
    found = [one for folder in _groups(root, "memory") if (one := _group_memory(folder)) is not None]
    if (machine := _machine_memory(root)) is not None:
        found.append(machine)
    # The narrowest limit is the one that is reached first.
    return min(found, key=lambda one: one.total - one.used, default=None)


def oom_kills(root: Path = _ROOT) -> int:
    """Return how many processes of this process's group the kernel has ended for want of memory; 0 where unknown."""
    for folder in _groups(root, "memory"):
        facts = _facts(_read(folder / "memory.events") or _read(folder / "memory.oom_control"))
        if (kills := _number(facts.get("oom_kill", ""))) is not None:
            return kills  # the groups around it count those of others too
    return 0


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups and of those around them, of both versions.

    In a container the path that the kernel tells is often that of the host, and only the root is mounted.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        tops = [mounted / controllers, mounted / controller] if controllers else [mounted, mounted / "unified"]
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for top in dict.fromkeys(tops):
            yield from (top.joinpath(*parts[:count]) for count in range(len(parts), -1, -1))


def _cpu_quota(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split() or [
        _read(folder / "cpu.cfs_quota_us"),
        _read(folder / "cpu.cfs_period_us"),
    ]
    quota, period = (_number(word) for word in [*words, ""][:2])
    return quota / period if quota and period and quota > 0 else None  # v1 says -1 for no limit


def _group_memory(folder: Path) -> Memory | None:
    total = _number(_read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes"))
    used = _number(_read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes"))
    if total is None or used is None or not 0 < total < _NO_LIMIT:
        return None
    # Files that were read stay in memory until it is wanted for something else: they are not in use.
    facts = _facts(_read(folder / "memory.stat"))
    cached = _number(facts.get("inactive_file", facts.get("total_inactive_file", "0"))) or 0
    return Memory(max(0, used - cached), total)


def _facts(text: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def _machine_memory(root: Path) -> Memory | None:
    facts = dict(line.split(":", 1) for line in _read(root / "proc/meminfo").splitlines() if ":" in line)
    total, free = (_number(facts.get(name, "").removesuffix(" kB")) for name in ("MemTotal", "MemAvailable"))
    return None if total is None or free is None else Memory((total - free) * 1024, total * 1024)


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None  # "max", or nothing


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
