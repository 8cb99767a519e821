"""Prints as JSON which GPUs torch sees: a program of its own, for `nls_tune.machine.hardware`.

Torch and CUDA take hundreds of MB in the process that loads them, and a context on a GPU. Here both are gone when the
question is answered.
"""

from __future__ import annotations

import json
import warnings


def probe() -> dict[str, object]:
    """Return the fields of each of the ``gpus`` that this process may use, and why torch sees none, the ``problem``."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    problem = str(caught[0].message) if caught and not count else None
    if not (count or problem or torch.version.cuda or torch.version.hip):
        problem = f"torch {torch.__version__} is built for CPUs"
    gpus = []
    for index in range(count):
        found = torch.cuda.get_device_properties(index)
        # As torch.cuda.is_bf16_supported and torch._inductor have it; asking them would make a context, for which a GPU
        # may have no memory left.
        amd = torch.version.hip is not None
        gpus.append({"name": found.name, "bfloat16": amd or found.major >= 8, "triton": amd or found.major >= 7})
    return {"gpus": gpus, "problem": problem}


if __name__ == "__main__":
    print(json.dumps(probe()))
