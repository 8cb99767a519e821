"""What a device can do, and what a training has taken of it."""

from __future__ import annotations

import resource
from typing import Literal

import torch

from nls_tune.errors import InputError


def resolve_precision(
    precision: Literal["auto", "float32", "bfloat16"], device: torch.device
) -> Literal["float32", "bfloat16"]:
    """Return the precision to compute in; ``auto`` is bfloat16 on CUDA devices that have it, else float32.

    Raises:
        InputError: If bfloat16 is asked of a GPU that has it not.
    """
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" and _has_bf16() else "float32"
    if precision == "bfloat16" and device.type == "cuda" and not _has_bf16():
        raise InputError("precision bfloat16 needs a GPU that has it, this one has not; use float32 or auto")
    return precision


def _has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak of allocated device memory (CUDA) or of the process's memory (CPU)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
