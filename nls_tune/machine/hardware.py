"""Finds out, without importing torch, which GPUs this machine has and whether they are enough for a search.

The process of a search only plans, asks and writes. Torch would be half of its memory, so where there may be a GPU,
torch is asked in a short process of its own (`nls_tune.machine.gpu_probe`), and where there is none, not at all.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nls_tune.errors import InputError

#: Any of these means that there may be a GPU: NVIDIA's devices, also below WSL and on Jetson, and AMD's.
_DEVICE_FILES = ("nvidia[0-9]*", "dxg", "nvhost-gpu", "nvgpu", "kfd")
#: NVIDIA's number in every PCI device, and the class of display controllers: device files can appear at the first use.
_NVIDIA, _DISPLAY = "0x10de", "0x03"
#: What decides which GPUs a process sees, apart from the machine.
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
#: Importing torch from a cold network drive takes a minute.
_PATIENCE_SECONDS = 180.0
_NO_COMPILE = "leave --compile out or use off"


@dataclass(frozen=True)
class Gpu:
    """A GPU, as torch sees it: whether it computes bfloat16 itself, and is new enough for the kernels of compiling."""

    name: str
    bfloat16: bool
    triton: bool


@dataclass(frozen=True)
class Gpus:
    """The GPUs that this process may use, in torch's order, or the problem where the machine seems to have some."""

    found: tuple[Gpu, ...] = ()
    problem: str | None = None

    def note(self) -> str | None:
        """Return the note for a plan; None if nothing is wrong."""
        note = f"torch sees no GPU here, though the machine seems to have one: {self.problem}"
        return note if self.problem is not None else None


def find_gpus() -> Gpus:
    """Return the GPUs that this process may use; torch is asked once, and RuntimeError raised if it cannot be."""
    if not _may_have_gpu(Path("/dev"), Path("/sys/bus/pci/devices")):
        return Gpus()
    return _ask_torch(tuple(os.environ.get(name) for name in _VISIBLE))


def _may_have_gpu(devices: Path, pci: Path) -> bool:
    """Whether there is any trace of a GPU; on other systems than Linux there may always be one."""
    if not sys.platform.startswith("linux"):
        return True
    if any(next(devices.glob(pattern), None) for pattern in _DEVICE_FILES):
        return True
    return any(
        _read(device / "vendor") == _NVIDIA and _read(device / "class").startswith(_DISPLAY) for device in pci.glob("*")
    )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


@lru_cache(maxsize=8)
def _ask_torch(visible: tuple[str | None, ...]) -> Gpus:
    """Run the probe, once for each ``visible``: the environment may change."""
    # -P: the folder of the script is this package, whose modules must not be taken for those of others.
    command = [sys.executable, "-P", str(Path(__file__).with_name("gpu_probe.py"))]
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"it ended with {done.returncode}")
        answer = json.loads(done.stdout.strip().rpartition("\n")[2])
        problem = answer["problem"] and " ".join(answer["problem"].split())[:300]
        return Gpus(tuple(Gpu(**gpu) for gpu in answer["gpus"]), problem)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RuntimeError(
            f"torch cannot be asked which GPUs this machine has ({reason}); mend torch or the driver, "
            "or set CUDA_VISIBLE_DEVICES to nothing to search on the CPU"
        ) from None


def check_precision(precisions: Sequence[str], gpus: Sequence[Gpu]) -> None:
    """Raise an InputError if a GPU lacks a precision that trials may have; without GPUs the CPU computes in any."""
    lacking = next((gpu.name for gpu in gpus if not gpu.bfloat16), None)
    if lacking is not None and "bfloat16" in precisions:
        raise InputError(
            f"precision bfloat16 needs GPUs that compute it, got {lacking}, which does not; "
            "use --precision float32 or auto"
        )


def check_compile(mode: str, gpus: Sequence[Gpu]) -> None:
    """Raise an InputError if training steps must be compiled, in mode ``on``, and something for it is missing.

    Torch needs a C++ compiler on the CPU, and on GPUs Triton and a C compiler: no need to try.
    """
    if mode != "on":
        return
    if gpus:
        old = next((gpu.name for gpu in gpus if not gpu.triton), None)
        if old is not None:
            raise InputError(f"--compile on needs GPUs of compute capability 7.0 or more, got {old}; {_NO_COMPILE}")
        if importlib.util.find_spec("triton") is None:
            raise InputError(f"--compile on needs the package triton for GPUs, it is not installed; {_NO_COMPILE}")
        compilers, what = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"], "C"
    else:
        if os.environ.get("TORCH_INDUCTOR_INSTALL_GXX"):
            return  # torch gets one itself
        compilers, what = [os.environ.get("CXX") or "g++"], "C++"
    # The variables may also hold arguments.
    if not any(words and shutil.which(words[0]) for words in map(shlex.split, compilers)):
        raise InputError(
            f"--compile on needs a {what} compiler, {' or '.join(compilers)} is not there; install one, "
            f"or name yours in {'CC' if gpus else 'CXX'}, or {_NO_COMPILE}"
        )
