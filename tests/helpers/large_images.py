"""Trains on more images than a limited process could hold: a program of its own, for ``test_large_images``.

    python large_images.py images.npy labels.npy BYTES

It lets itself have so many bytes of private memory (data segments, heap and anonymous maps: RLIMIT_DATA) on top of what
it has once everything is imported; an allocation beyond that fails. Maps of files do not count, as they are none of the
memory that a container or a machine runs out of: the kernel drops their pages when it needs the place. Prints as JSON
what it has used, and what the training has reached.
"""

import json
import resource
import sys
import threading
from pathlib import Path

import pandas  # noqa: F401 - imported before the limit, as all that is not data
import PIL.Image
import torch
from torch import nn

from nls_tune import Data, TrainingSettings
from nls_tune.datasets import load_own, make_noisy
from nls_tune.noise import parse_noise_level
from nls_tune.training.devices import keep_freed_memory
from nls_tune.training.training import Training

PIL.Image.init()


def tiny(num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """A network with little to compute, so that the time goes into the images."""
    channels, side, _ = input_shape
    return nn.Sequential(nn.AvgPool2d(side), nn.Flatten(), nn.Linear(channels, num_classes))


def status(name: str) -> int:
    """Return a size of this process in bytes, as the kernel counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


class Peak(threading.Thread):
    """Looks every 20 ms how much private memory this process holds: RssAnon."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.ended = 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.bytes = max(self.bytes, status("RssAnon"))


def main(images: str, labels: str, allowed: int) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as the trials of a search do
    before, anonymous = status("VmData"), status("RssAnon")
    resource.setrlimit(resource.RLIMIT_DATA, (before + allowed, before + allowed))
    peak = Peak()
    peak.start()
    side = 128
    data = Data(arrays=Path(images), label=labels, image_size=side, test=0.05, val=0.05)
    source = load_own(data, progress=False)
    dataset = make_noisy(source, parse_noise_level("given"))
    settings = TrainingSettings(model="large_images:tiny", epochs=1, warmup_epochs=0, lr=0.01, batch_size=256)
    metrics = Training(dataset, settings).run_epoch()
    peak.ended.set()
    peak.join()
    print(json.dumps({
        "kind": type(source.inputs).__name__,
        "image_bytes": dataset.inputs.nbytes + dataset.test_inputs.nbytes,
        "allowed": allowed,
        "used_above_imports": peak.bytes - anonymous,
        "mapped_files": status("RssFile"),
        "metrics": [metrics.train_loss, metrics.val_loss, metrics.test_accuracy],
        "fingerprint": dataset.fingerprint,
    }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
