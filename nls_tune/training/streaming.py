"""Images that are read from their file batch by batch, where they do not fit into memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nls_tune.datasets.mapped import STREAM_VARIABLE, MappedImages, small_bytes
from nls_tune.machine.limits import memory

#: Images that take more than this share of the memory are streamed: networks and their steps need some as well.
_SHARE = 0.25
#: Bytes that are copied to a device at once.
_BLOCK_BYTES = 1 << 25


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Mapped images that stand for a uint8 tensor (N, C, H, W) on a device; ``mirrored`` ones are flipped there.

    Batches are read by a thread, one ahead of what is computed. Those for a GPU come through pinned memory, so that
    the copies do not hold up the next step.
    """

    images: MappedImages
    device: torch.device
    mirrored: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The type of a pixel: uint8."""
        return torch.uint8

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size(self.images.shape)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self._put(self._read(index.cpu()))

    def flip(self, dim: int) -> StreamedImages:
        """Return the images mirrored left and right, in dimension 3."""
        if dim != 3:
            raise ValueError(f"streamed images are mirrored left and right, in dimension 3, not {dim}")
        return StreamedImages(self.images, self.device, not self.mirrored)

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield the images in their order, so many at a time."""
        return self.batches(torch.split(torch.arange(len(self)), size))

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the images of one index tensor, on the CPU, after the other."""
        with ThreadPoolExecutor(1, thread_name_prefix="images") as reader:
            ahead = None
            for index in indices:
                reading = reader.submit(self._read, index)
                if ahead is not None:
                    yield self._put(ahead.result())
                ahead = reading
            if ahead is not None:
                yield self._put(ahead.result())

    def _read(self, index: Tensor) -> Tensor:
        shape = (len(index), *self.images.image_shape)
        read = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        self.images[index.numpy()].read(read.numpy())
        return read

    def _put(self, read: Tensor) -> Tensor:
        images = read.to(self.device, non_blocking=True)
        return images.flip(3) if self.mirrored else images


#: What is trained on or evaluated: a tensor on a device, or images that are streamed to it.
Inputs = Tensor | StreamedImages


def place_images(images: MappedImages, device: torch.device, *, stream: bool) -> Inputs:
    """Return mapped images on a device, or what streams them to it."""
    if stream:
        return StreamedImages(images, device)
    held = torch.empty(images.shape, dtype=torch.uint8, device=device)
    block = max(1, _BLOCK_BYTES // math.prod(images.image_shape))
    for start in range(0, len(images), block):
        held[start : start + block] = torch.from_numpy(np.asarray(images[start : start + block]))
    return held


def must_stream(num_bytes: int, device: torch.device, sharing: int) -> bool:
    """Return whether images are too large for the memory of a device of which ``sharing`` processes hold a copy.

    Too large is more than a quarter of a GPU's memory, or of the memory that is available to the processes of this
    machine or container; or as many bytes as the variable NLS_TUNE_STREAM_BYTES says.
    """
    if STREAM_VARIABLE in os.environ:
        return num_bytes >= small_bytes()
    if device.type == "cuda":
        available = torch.cuda.mem_get_info(device)[1]
    elif (found := memory()) is not None:
        available = found.total - found.used
    else:
        return True
    return num_bytes * sharing > _SHARE * available
