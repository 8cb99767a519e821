"""The limits of a container, on fake trees of both versions of control groups."""

import os
from pathlib import Path

import pytest

from nls_tune.machine.limits import Memory, memory, oom_kills, usable_cpus

MACHINE = {"proc/meminfo": "MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: 12000000 kB\n"}
V2, V1 = "0::/pod/task\n", "5:memory:/pod\n4:cpu,cpuacct:/pod\n0::/\n"


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in {**MACHINE, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def group(name: str, text: str) -> dict[str, str]:
    return {f"sys/fs/cgroup/{name}": text}


@pytest.mark.parametrize(
    ("groups", "files", "cpus"),
    [
        ("", {}, 8),
        (V2, {}, 8),
        (V2, group("pod/task/cpu.max", "max 100000"), 8),
        (V2, group("pod/task/cpu.max", "50000 100000"), 1),
        (V2, group("pod/task/cpu.max", "250000 100000"), 2),
        (V2, group("pod/task/cpu.max", "max 100000") | group("pod/cpu.max", "300000 100000"), 3),
        (V2, group("cpu.max", "400000 100000"), 4),  # in a container only the root is there
        (V2, group("unified/cpu.max", "400000 100000"), 4),
        (V2, group("cpu.max", "1600000 100000"), 8),
        (V2, group("cpu.max", "nonsense"), 8),
        (V1, group("cpu,cpuacct/pod/cpu.cfs_quota_us", "-1") | group("cpu,cpuacct/pod/cpu.cfs_period_us", "100000"), 8),
        (V1, group("cpu/pod/cpu.cfs_quota_us", "50000") | group("cpu/pod/cpu.cfs_period_us", "100000"), 1),
        (V1, group("cpu,cpuacct/cpu.cfs_quota_us", "600000") | group("cpu,cpuacct/cpu.cfs_period_us", "100000"), 6),
    ],
)
def test_the_quota_of_cpus(tmp_path, groups, files, cpus):
    assert usable_cpus(tree(tmp_path, {"proc/self/cgroup": groups, **files})) == cpus


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, Memory(4_096_000_000, 16_384_000_000)),
        (
            V2,
            group("pod/task/memory.max", "2000000000")
            | group("pod/task/memory.current", "1500000000")
            | group("pod/task/memory.stat", "anon 1\ninactive_file 500000000"),
            Memory(1_000_000_000, 2_000_000_000),
        ),
        (
            V2,
            group("pod/task/memory.max", "max") | group("pod/task/memory.current", "5"),
            Memory(4_096_000_000, 16_384_000_000),
        ),
        (
            V1,
            group("memory/memory.limit_in_bytes", "1000000000") | group("memory/memory.usage_in_bytes", "600000000"),
            Memory(600_000_000, 1_000_000_000),
        ),
        (
            V1,
            group("memory/pod/memory.limit_in_bytes", "9223372036854771712")
            | group("memory/pod/memory.usage_in_bytes", "6"),
            Memory(4_096_000_000, 16_384_000_000),
        ),
    ],
)
def test_the_limit_of_memory(tmp_path, groups, files, expected):
    found = memory(tree(tmp_path, {"proc/self/cgroup": groups, **files}))
    assert found == expected


def test_memory_is_said_in_one_way_and_may_be_unknown(tmp_path):
    assert str(Memory(27_940_000_000, 28_800_000_000)) == "27.9 of 28.8 GB"
    assert memory(tmp_path) is None


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 0),
        (V2, group("pod/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0"), 2),
        (V2, group("pod/task/memory.events", "oom_kill 1") | group("pod/memory.events", "oom_kill 5"), 1),
        (V1, group("memory/pod/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4"), 4),
        (V1, group("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0"), 0),  # old kernels do not say it
    ],
)
def test_the_number_of_processes_that_the_kernel_ended(tmp_path, groups, files, expected):
    assert oom_kills(tree(tmp_path, {"proc/self/cgroup": groups, **files})) == expected
