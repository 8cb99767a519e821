"""Prints as JSON which GPUs torch sees: a program of its own, for `nls_tune.hardware`.

Torch and CUDA take hundreds of MB in the process that loads them, and a context on a GPU. Here both are gone when the
question is answered.
"""

from __future__ import annotations

import json
import warnings
from typing import Any


def probe() -> dict[str, Any]:
    """Ask torch for the GPUs that this process may use.

    Returns:
        ``gpus``: of each its ``name``, and whether it computes ``bfloat16`` itself and is new enough for ``triton``;
        ``problem``: why there is none, as far as torch tells, else None.
    """
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    problem = None
    if not count:
        built = torch.version.cuda or torch.version.hip
        problem = (
            str(caught[0].message) if caught else None if built else f"torch {torch.__version__} is built for CPUs"
        )
    # Asking for bfloat16 makes a context, which takes a while: once a kind.
    bfloat16: dict[tuple[str, int], bool] = {}
    gpus = []
    for index in range(count):
        found = torch.cuda.get_device_properties(index)
        kind = (found.name, found.major)
        if kind not in bfloat16:
            with torch.cuda.device(index):
                bfloat16[kind] = bool(torch.cuda.is_bf16_supported(including_emulation=False))
        triton = torch.version.hip is not None or found.major >= 7  # as torch._inductor has it
        gpus.append({"name": found.name, "bfloat16": bfloat16[kind], "triton": triton})
    return {"gpus": gpus, "problem": problem}


if __name__ == "__main__":
    print(json.dumps(probe()))
