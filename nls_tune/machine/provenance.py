"""Where results come from: versions, commit, hardware, command."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from nls_tune._version import __version__
from nls_tune.machine.hardware import find_gpus

_PACKAGES = ("torch", "torchvision", "ray", "optuna", "numpy", "pandas", "pyarrow")
#: A password may hold a slash that should have been written as %2F; a port is none.
_PASSWORD = re.compile(r"(://[^/\s:@]*):(?!\d+/)[^\s@]*@")
_SECRET = re.compile(r"([?&][^=&\s]*(?:secret|password|token|key|sig|credential)[^=&\s]*=)[^&\s]*", re.IGNORECASE)


def provenance() -> dict[str, Any]:
    """Return versions, git commit, hardware and command as plain JSON values; None where unknown."""
    versions = {"python": platform.python_version(), "nls-tune": __version__}
    return {
        "versions": {**versions, **{name: _version(name) for name in _PACKAGES}},
        "git_commit": _git_commit(),
        "hardware": {"node": platform.node(), "cpu": cpu_name(), "cpus": os.cpu_count(), "gpus": _gpu_names()},
        "command": without_password(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
    }


def without_password(text: str) -> str:
    """Return a text without the secrets of its URIs: ``scheme://user:password@host``, ``?token=...`` and the like."""
    text = _PASSWORD.sub(r"\1:***@", text)
    return _SECRET.sub(r"\1***", text)


def cpu_name() -> str:
    """Return the processor's model where Linux tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the clone that this package is imported from, with ``+`` if its files were changed."""
    folder = Path(__file__).parents[1]
    try:
        # The program is looked up in PATH: there is no other place that is right everywhere.
        top = _git(folder, "rev-parse", "--show-toplevel")
        if Path(top) != folder.parent:
            return None  # installed inside somebody else's repository
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--", str(folder)) else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]  # see _git_commit
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603


def _gpu_names() -> list[str]:
    try:
        return [gpu.name for gpu in find_gpus().found]
    except RuntimeError:
        return []  # where this matters it has been said
