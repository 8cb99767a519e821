"""The doctor's checks of this machine: Python, packages, GPUs, memory, limits, and the folders that a search needs."""

from __future__ import annotations

import os
import platform
import resource
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import platformdirs
from filelock import FileLock, SoftFileLock

from nls_tune._version import __version__
from nls_tune.errors import error_line
from nls_tune.machine.check import Check, CheckFunction
from nls_tune.machine.hardware import find_gpus
from nls_tune.machine.limits import memory, usable_cpus
from nls_tune.machine.provenance import cpu_name

_DISTRIBUTION = "nls-tune"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Ray keeps what workers share
_DRIVER = Path("/proc/driver/nvidia/version")
_GB = 10**9
#: The archive of CIFAR-100, its files and the cached arrays take 0.5 GB together.
_DISK_BYTES = _GB
#: With this share of the memory in use Ray ends workers; its own default and variable.
_MOST_MEMORY, _MOST_MEMORY_VARIABLE = 0.95, "RAY_memory_usage_threshold"
#: A search of the default dataset with two workers took 1.6 GB, all its processes together.
_MEMORY_BYTES = 1.6 * _GB
#: Ray wants this share of the free memory for its objects, and never minds more room than so many bytes.
_STORE_SHARE, _STORE_BYTES = 0.3, 10 * _GB
#: A search with so few open files per process was complete.
_OPEN_FILES = 256


def machine_checks(folders: Mapping[str, Path]) -> dict[str, CheckFunction]:
    """Return the checks of this machine, by name; ``folders`` are those that a search writes to, by what they are."""
    return {
        "python": check_python,
        "packages": check_packages,
        "gpu": check_gpus,
        "cpus": check_cpus,
        "memory": check_memory,
        "open files": check_open_files,
        "folders": lambda: check_folders(folders),
    }


def written_folders(run: Path | None) -> dict[str, Path]:
    """Return the folders that a search writes to, by what they are; the run's is by default ``runs`` here."""
    return {
        "run": (run or Path("runs")).absolute(),
        "cache": platformdirs.user_cache_path("nls_tune"),
        "Ray": Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()),
    }


def check_python() -> Iterator[Check]:
    """Check the version of Python against that of the installed package."""
    from packaging.specifiers import SpecifierSet

    here = f"{platform.python_version()}, nls_tune {__version__}, in {sys.prefix}"
    wanted = _wanted_python()
    if wanted is not None and not SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        yield Check("python", "failure", here, f"make an environment with Python {wanted}")
    else:
        yield Check("python", "ok", here)


def check_packages() -> Iterator[Check]:
    """Check that what the installed package requires is installed, each in a version that it can use."""
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in _required()]
    if not requirements:
        yield Check("packages", "ok", "this clone is not installed: its requirements were not compared")
        return
    wrong = False
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong = True
            has = "is not installed" if version is None else f"has version {version}"
            yield Check(
                "packages",
                "failure",
                f"{requirement.name} {has}, needed is {requirement}",
                f"pip install '{requirement}'",
            )
    if not wrong:
        main = ", ".join(f"{name} {_version(name)}" for name in ("torch", "ray", "optuna", "pyarrow"))
        yield Check("packages", "ok", f"{main}, and all others that are needed")


def check_gpus() -> Iterator[Check]:
    """Check that torch sees the GPUs of this machine."""
    gpus = find_gpus()  # says itself what to do where torch cannot be asked
    driver = _driver()
    if gpus.problem is not None:
        way_out = "install a torch and a driver that fit each other, or search on the CPU"
        yield Check("gpu", "warning", f"torch sees no GPU, though there seems to be one: {gpus.problem}", way_out)
    elif not gpus.found:
        yield Check("gpu", "ok", "none: trials run on the CPU")
    else:
        names = [gpu.name for gpu in gpus.found]
        counted = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
        yield Check("gpu", "ok", f"{counted}{f', driver {driver}' if driver else ''}")


def check_cpus() -> Iterator[Check]:
    """Say which CPUs there are, and how many of them may be used."""
    usable, there = usable_cpus(), os.cpu_count() or 1
    limited = f", of {there}: the container or the affinity of this process allows no more" if usable < there else ""
    yield Check("cpus", "ok", f"{usable} x {cpu_name()}{limited}")


def check_memory() -> Iterator[Check]:
    """Check that there is memory for a search, also in /dev/shm, where Ray keeps the data that workers share."""
    found = memory()
    if found is None:
        yield Check("memory", "ok", "how much there is cannot be found out here")
        return
    most = _most_memory()
    left = most * found.total - found.used
    way_out = "end other programs, or search with fewer trials at once (--max-concurrent)"
    if left <= 0:
        yield Check("memory", "failure", f"{found} in use: Ray ends workers at {100 * most:.0f} %", way_out)
    elif left < _MEMORY_BYTES:
        yield Check("memory", "warning", f"{found} in use: a search needs {_MEMORY_BYTES / _GB:g} GB", way_out)
    else:
        yield Check("memory", "ok", f"{found} in use")
    if _SHARED_MEMORY.is_dir():
        free, wanted = shutil.disk_usage(_SHARED_MEMORY).free, _STORE_SHARE * (found.total - found.used)
        if free < min(wanted, _STORE_BYTES):
            way_out = "make room there, or start the container with a larger --shm-size"
            yield Check(
                "memory", "warning", f"{_SHARED_MEMORY} has {free / 1e6:.0f} MB left: Ray uses slower files", way_out
            )


def check_open_files() -> Iterator[Check]:
    """Check how many files a process may have open; Ray raises the soft limit to the hard one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= hard < _OPEN_FILES:
        yield Check("open files", "warning", f"a process may have {hard} open", f"ulimit -n {_OPEN_FILES}, or more")
    else:
        yield Check("open files", "ok", f"a process may have {'any number' if hard < 0 else hard} open")


def check_folders(folders: Mapping[str, Path]) -> Iterator[Check]:
    """Check each folder that a search writes to by a real write, and the room on its disk."""
    for what, folder in folders.items():
        name = f"{what} folder"
        place = next(one for one in (folder, *folder.parents) if one.exists())
        problem = write_problem(place)
        if problem is not None:
            yield Check(name, "failure", f"{place} cannot be written ({problem})", _elsewhere(what))
            continue
        usage = shutil.disk_usage(place)
        room = f"{folder}, {usage.free / _GB:.1f} of {usage.total / _GB:.1f} GB free"
        if what == "cache":
            room += f", it holds {_bytes_in(folder) / _GB:.1f} GB"
        # Ray stops to store objects where more than 95 % of a disk are in use.
        if usage.free < _DISK_BYTES or (what == "Ray" and usage.free < 0.05 * usage.total):
            yield Check(name, "warning", room, f"make room, or {_elsewhere(what)}")
        elif what == "run" and not _has_locks(place):
            found = f"{folder} lies on a file system without locks: two searches could write to one run"
            yield Check(name, "warning", found, _elsewhere(what))
        else:
            yield Check(name, "ok", room)


def _bytes_in(folder: Path) -> int:
    """Return the bytes of all files in a folder; what goes away meanwhile, or may not be read, counts nothing."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += Path(place, name).lstat().st_size
    return found


def write_problem(folder: Path) -> str | None:
    """Write a megabyte to a new file in a folder, read and remove it; return what went wrong, None if nothing did."""
    probe, content = folder / f".probe-{secrets.token_hex(8)}", secrets.token_bytes(1 << 20)
    try:
        with probe.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return None if probe.read_bytes() == content else "what was read is not what was written"
    except OSError as error:
        return error.strerror or error_line(error)
    finally:
        probe.unlink(missing_ok=True)


def _has_locks(folder: Path) -> bool:
    probe = folder / f".lock-{secrets.token_hex(8)}"
    lock = FileLock(probe)
    try:
        with lock.acquire(timeout=5):
            return not isinstance(lock, SoftFileLock)
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def _elsewhere(what: str) -> str:
    return {
        "run": "give another --out",
        "cache": "set XDG_CACHE_HOME to another folder",
        "Ray": "set RAY_TMPDIR to another folder",
    }.get(what, "give another folder")


def _most_memory() -> float:
    try:
        return float(os.environ.get(_MOST_MEMORY_VARIABLE, _MOST_MEMORY))
    except ValueError:
        return _MOST_MEMORY


def _driver() -> str | None:
    """Return the version of NVIDIA's driver, None without one."""
    try:
        words = _DRIVER.read_text(encoding="ascii").splitlines()[0].split()
    except (OSError, ValueError, IndexError):
        return None
    return next((word for word in words if word[0].isdigit() and "." in word), None)


def _wanted_python() -> str | None:
    try:
        return metadata.metadata(_DISTRIBUTION)["Requires-Python"]
    except (metadata.PackageNotFoundError, KeyError):
        return None


def _required() -> list[str]:
    try:
        return metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
