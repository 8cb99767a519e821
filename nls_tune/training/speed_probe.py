"""Prints as JSON how fast this machine trains a configuration: a program of its own, for ``session.forecast``.

It reads ``{"settings": ..., "num_classes": ..., "input_shape": ..., "threads": ...}`` from standard input, and trains
on random images: speed does not depend on what they show. Torch and its memory are gone when the question is answered.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

#: Images per step and steps per epoch: an image costs about the same in larger batches, and the answer comes sooner.
_BATCH, _STEPS = 64, 2
#: What is made once, in the first epoch, weighs little in one of so many seconds: it is not repeated.
_LONG_SECONDS = 5.0


def probe(question: dict[str, Any]) -> dict[str, float]:
    """Return seconds per training image, ``train``, and per evaluated image, ``evaluate``."""
    import numpy as np
    import torch

    from nls_tune.datasets import NoisyDataset
    from nls_tune.spaces.settings import TrainingSettings
    from nls_tune.training.devices import keep_freed_memory
    from nls_tune.training.training import Training

    torch.set_num_threads(question["threads"])
    keep_freed_memory()
    settings = TrainingSettings(**{**question["settings"], "batch_size": _BATCH, "epochs": 2, "warmup_epochs": 0})
    shape, classes = tuple(question["input_shape"]), question["num_classes"]
    random = np.random.default_rng(0)
    count = _STEPS * _BATCH
    images = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    labels = np.arange(count) % classes
    dataset = NoisyDataset(
        name="random", noise_level="given", noise_seed=0, num_classes=classes, inputs=images, noisy_labels=labels,
        clean_labels=None, train_indices=np.arange(count), val_indices=np.arange(_BATCH), test_inputs=None,
        test_labels=None, input_mean=np.full(shape[0], 0.5, np.float32), input_std=np.full(shape[0], 0.25, np.float32),
        noise_rate=None, fingerprint="random",
    )  # fmt: skip
    training = Training(dataset, settings)
    seconds = training.run_epoch().seconds
    begin = time.perf_counter()
    training.evaluator.judge(training.model, training.data.val_inputs, training.data.val_labels)
    evaluate = time.perf_counter() - begin
    if seconds < _LONG_SECONDS:  # the first one pays for what is made once
        seconds = training.run_epoch().seconds
    train = seconds - evaluate * (1 + len(settings.average_spans))
    return {"train": max(train, 0.0) / count, "evaluate": evaluate / _BATCH}


if __name__ == "__main__":
    print(json.dumps(probe(json.load(sys.stdin))))
