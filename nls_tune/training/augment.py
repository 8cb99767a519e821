"""Random crops, flips and cutout for a whole batch at once, on the device that holds the images.

What is random is drawn once per epoch, for every sample, from a seeded generator on the CPU. So CPU and CUDA
augment alike, an epoch can be drawn again from its seed alone, and the step loop never waits for the device:
nothing below reads a value back.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from torch import Tensor


@dataclass(frozen=True, eq=False)
class AugmentationDraws:
    """The random numbers of ``n`` samples, in the order of the epoch: each of shape (n,), int64 or bool.

    ``crop_y`` and ``crop_x``, 0 to ``2 * crop_padding``, are the top left corner of the crop in the padded image;
    ``flip`` says whether to mirror left and right; ``cut_y`` and ``cut_x`` are the pixel that cutout is centred at.
    """

    crop_y: Tensor
    crop_x: Tensor
    flip: Tensor
    cut_y: Tensor
    cut_x: Tensor

    def __len__(self) -> int:
        return self.flip.shape[0]

    def __getitem__(self, index: slice | Tensor) -> AugmentationDraws:
        """Return the draws of some samples: a slice (a view, free) or an index tensor on the same device."""
        return AugmentationDraws(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> AugmentationDraws:
        """Return the draws on another device: five small copies, so once per epoch and not once per step."""
        return AugmentationDraws(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True)
class Augmentation:
    """What to do to training images; the default is nothing.

    ``crop_padding`` is the number of pixels added on every side before a window of the old size is cut out at random:
    black ones, or with ``reflect`` the image mirrored at its border. ``flip`` mirrors half of the images left and
    right; ``cutout`` is the side of the square that is blanked, in pixels (DeVries and Taylor, "Improved
    Regularization of Convolutional Neural Networks with Cutout", 2017).
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    reflect: bool = False

    def draw(self, num_samples: int, height: int, width: int, generator: torch.Generator) -> AugmentationDraws:
        """Draw the random numbers of an epoch from a generator on the CPU.

        Every number is drawn even where its part is off, so that switching one part on or off leaves the
        draws of the others as they were.
        """

        def below(limit: int) -> Tensor:
            return torch.randint(limit, (num_samples,), generator=generator)

        offsets = 2 * self.crop_padding + 1
        return AugmentationDraws(
            crop_y=below(offsets),
            crop_x=below(offsets),
            flip=below(2).bool(),
            cut_y=below(height),
            cut_x=below(width),
        )

    def apply(self, images: Tensor, draws: AugmentationDraws) -> Tensor:
        """Return a batch ``(B, C, H, W)``, uint8 or float, cropped and flipped by the draws of its samples.

        Made for uint8 images, before `normalise`: the padding is 0, which there is black, as with
        torchvision's ``RandomCrop`` before its ``Normalize``.
        """
        if self.crop_padding == 0 and not self.flip:
            return images
        padding = 0 if self.reflect else self.crop_padding
        batch, channels, height, width = images.shape
        padded = F.pad(images, (padding, padding, padding, padding)) if padding else images
        row = torch.arange(height, device=images.device)
        column = torch.arange(width, device=images.device).expand(batch, width)
        if self.flip:
            column = torch.where(draws.flip[:, None], width - 1 - column, column)
        rows = draws.crop_y[:, None] + row
        columns = draws.crop_x[:, None] + column
        if self.reflect:  # by positions: torch pads no bytes like this
            rows = _reflected(rows - self.crop_padding, height)
            columns = _reflected(columns - self.crop_padding, width)
        # One gather of flat pixel positions, shared by the channels, does both. It was the fastest way to
        # index on the CPU: 0.25 ms for 128 x 3 x 32 x 32, where advanced indexing takes 1 ms or more.
        flat = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
        flat = flat.reshape(batch, 1, height * width).expand(batch, channels, height * width)
        return padded.flatten(2).gather(2, flat).view(batch, channels, height, width)

    def apply_cutout(self, images: Tensor, draws: AugmentationDraws) -> Tensor:
        """Return a batch ``(B, C, H, W)`` of floats with a square at 0 in every image, in the same memory format.

        Made for images after `normalise`, where 0 is the mean colour, as in the paper. The square is centred
        at a random pixel (an even side reaches one pixel further up and left) and clipped at the border.
        """
        if self.cutout == 0:
            return images
        in_rows = _in_interval(draws.cut_y, self.cutout, images.shape[2])
        in_columns = _in_interval(draws.cut_x, self.cutout, images.shape[3])
        blank = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
        # Not `masked_fill`, which gives up channels_last.
        return torch.where(blank, images.new_zeros(()), images)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return inputs ``(N, D)`` or ``(N, C, ...)`` as float32, less ``mean``, over ``std``, in the same memory format.

    ``mean`` and ``std``, positive, have shape ``(D,)`` or ``(C,)``. uint8 images are first scaled to [0, 1], so theirs
    are those of that scale.
    """
    per_channel = (-1,) + (1,) * (images.ndim - 2)
    mean, std = mean.view(per_channel), std.view(per_channel)
    if images.dtype == torch.uint8:
        # (x / 255 - mean) / std as one multiply-add, which also converts: one pass over the images.
        return torch.addcmul(-mean / std, images, 1 / (255 * std)).to(torch.float32)
    # Not a multiply-add: where the mean is large against the deviation, that would lose digits.
    return ((images - mean) / std).to(torch.float32)


def _reflected(position: Tensor, size: int) -> Tensor:
    """Return positions, however far outside of an image, mirrored at its first and last pixel."""
    last = size - 1
    return last - (last - position.remainder(max(1, 2 * last))).abs()


def _in_interval(centre: Tensor, side: int, size: int) -> Tensor:
    """Return which positions lie in an interval of length ``side`` around each centre, bool ``(n, size)``."""
    offset = torch.arange(size, device=centre.device) - (centre[:, None] - side // 2)
    return (offset >= 0) & (offset < side)
