"""What belongs to a device: a dataset as its tensors, its random generators, its precision and memory."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from nls_tune.errors import InputError
from nls_tune.machine.provenance import cpu_name

Precision = Literal["float32", "bfloat16"]
#: A trial may have a tenth more than its share of a GPU: peaks do not all come at once.
_MEMORY_SLACK = 1.1

#: Options of glibc's mallopt and their values: blocks below 1 GiB come from the heap, of which 2 GiB may lie free.
_KEEP = ((-3, 1 << 30), (-1, 2**31 - 1))  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD


def default_device() -> torch.device:
    """Return the device to train on where none is named: CUDA where there is a GPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside a ``with`` block and put them back afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def fastest_kernels(device: torch.device) -> Iterator[None]:
    """Let cuDNN look for the fastest kernel of each shape inside a ``with`` block: steps repeat their shapes."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def resolve_precision(
    precision: Literal["auto", "float32", "bfloat16"], device: torch.device, *, images: bool
) -> Precision:
    """Return the precision that ``auto`` stands for on a device.

    ``images`` says whether the inputs are images: flat inputs, small products, gain nothing from bfloat16 on a CPU.

    Raises:
        InputError: If the device lacks what was asked for.
    """
    if precision == "auto":
        if device.type == "cuda":
            return "bfloat16" if _gpu_has_bf16() else "float32"
        return "bfloat16" if device.type == "cpu" and images and _cpu_has_bf16() else "float32"
    if precision == "bfloat16" and device.type == "cuda" and not _gpu_has_bf16():
        raise InputError("precision bfloat16 needs a GPU that has it, this one has not; use float32 or auto")
    return precision


def _gpu_has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, bfloat16 is slower than float32."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than torch 2.11
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def limit_memory(device: torch.device, trials: int) -> None:
    """Keep this process to its share of a GPU: one trial must not starve those beside it.

    A soft cap: it counts what torch's allocator holds and not the few hundred MB of a process' CUDA context. One trial
    alone may have the whole GPU; on a CPU nothing happens.
    """
    if device.type == "cuda" and trials > 1:
        # Torch takes only devices with an index here; Ray shows a process one GPU, which is the current one.
        torch.cuda.set_per_process_memory_fraction(min(1.0, _MEMORY_SLACK / trials), device.index)


def empty_cache(device: torch.device) -> None:
    """Give the memory that torch keeps for later back to the GPU, where other processes can have it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak of allocated device memory (CUDA) or of the process (CPU)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next allocation; return whether the C library can.

    Every step of a training on the CPU asks for the same activations of many MB. By default glibc gives most of them
    back to the kernel when they are freed, and pays for zeroed pages again at the next step. No number changes; the
    peak of the memory stays about what it was, but the process holds it until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) for option, value in _KEEP)
