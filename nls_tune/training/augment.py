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

from nls_tune.errors import InputError


@dataclass(frozen=True, eq=False)
class AugmentationDraws:
    """The random numbers of ``n`` samples, in the order in which the epoch visits them.

    Attributes:
        crop_y: Top row of the crop in the padded image, int64 ``(n,)``, 0 to ``2 * crop_padding``.
        crop_x: Left column of the crop in the padded image, int64 ``(n,)``, 0 to ``2 * crop_padding``.
        flip: Whether to mirror left and right, bool ``(n,)``.
        cut_y: Row of the pixel that cutout is centred at, int64 ``(n,)``, below the image's height.
        cut_x: Column of that pixel, int64 ``(n,)``, below the image's width.
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

    Attributes:
        crop_padding: Pixels of black added on every side before a window of the old size is cut out at
            random.
        flip: Whether to mirror half of the images left and right.
        cutout: Side of the square that is blanked, in pixels (DeVries and Taylor, "Improved Regularization of
            Convolutional Neural Networks with Cutout", 2017).

    Raises:
        InputError: ``crop_padding`` or ``cutout`` is negative.
        TypeError: One of them is not an integer.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for name in ("crop_padding", "cutout"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is a whole number of pixels, got {value!r}: give 0 to turn it off")
            if value < 0:
                raise InputError(f"{name} is 0 pixels or more, got {value}: give 0 to turn it off")

    def draw(self, num_samples: int, height: int, width: int, generator: torch.Generator) -> AugmentationDraws:
        """Draw the random numbers of an epoch.

        Every number is drawn even where its part is off, so that switching one part on or off leaves the
        draws of the others as they were.

        Args:
            num_samples: How many samples the epoch visits.
            height: Rows of an image.
            width: Columns of an image.
            generator: A seeded generator on the CPU; it moves on.

        Returns:
            The draws, on the CPU.

        Raises:
            ValueError: The generator is not on the CPU, or a size is out of its range.
        """
        if generator.device.type != "cpu":
            raise ValueError(
                "draws come from a CPU generator so that every device gets the same, got one on "
                f"{generator.device}: draw on the CPU and move the draws with .to(device)"
            )
        if num_samples < 0 or height < 1 or width < 1:
            raise ValueError(
                "draws need num_samples >= 0, height >= 1 and width >= 1, "
                f"got {num_samples}, {height} and {width}: pass the number of samples, then the image size"
            )

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
        """Crop and flip a batch.

        Made for uint8 images, before `normalise`: the padding is 0, which there is black, as with
        torchvision's ``RandomCrop`` before its ``Normalize``.

        Args:
            images: ``(B, C, H, W)``, uint8 or float.
            draws: The draws of these ``B`` samples, on the same device, made by an equal `Augmentation`.

        Returns:
            The augmented images, same shape and dtype, contiguous; ``images`` itself where both parts are
            off.

        Raises:
            ValueError: ``images`` is not a batch of images, or ``draws`` has another length.
        """
        if self.crop_padding == 0 and not self.flip:
            return images
        _check_batch(images, draws)
        padding = self.crop_padding
        batch, channels, height, width = images.shape
        padded = F.pad(images, (padding, padding, padding, padding)) if padding else images
        row = torch.arange(height, device=images.device)
        column = torch.arange(width, device=images.device).expand(batch, width)
        if self.flip:
            column = torch.where(draws.flip[:, None], width - 1 - column, column)
        rows = draws.crop_y[:, None] + row
        columns = draws.crop_x[:, None] + column
        # One gather of flat pixel positions, shared by the channels, does both. It was the fastest way to
        # index on the CPU: 0.25 ms for 128 x 3 x 32 x 32, where advanced indexing takes 1 ms or more.
        flat = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
        flat = flat.reshape(batch, 1, height * width).expand(batch, channels, height * width)
        return padded.flatten(2).gather(2, flat).view(batch, channels, height, width)

    def apply_cutout(self, images: Tensor, draws: AugmentationDraws) -> Tensor:
        """Blank a square in every image of a batch.

        Made for images after `normalise`, where 0 is the mean colour, as in the paper. The square is centred
        at a random pixel (an even side reaches one pixel further up and left) and clipped at the border.

        Args:
            images: ``(B, C, H, W)``, normalised floats.
            draws: The draws of these ``B`` samples, on the same device.

        Returns:
            The images with their squares at 0, same shape, dtype and memory format; ``images`` itself where
            cutout is off.

        Raises:
            ValueError: ``images`` is not a batch of images, or ``draws`` has another length.
        """
        if self.cutout == 0:
            return images
        _check_batch(images, draws)
        in_rows = _in_interval(draws.cut_y, self.cutout, images.shape[2])
        in_columns = _in_interval(draws.cut_x, self.cutout, images.shape[3])
        blank = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
        # Not `masked_fill`, which gives up channels_last.
        return torch.where(blank, images.new_zeros(()), images)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return inputs as float32 with the given mean removed and divided by the given deviation.

    uint8 images are first scaled to [0, 1], so their ``mean`` and ``std`` are those of that scale.

    Args:
        images: uint8 ``(N, C, ...)``, or floats ``(N, D)`` or ``(N, C, ...)``.
        mean: ``(C,)`` or ``(D,)``, on the device of ``images``.
        std: Same shape, positive. The values are not checked here, as reading them would stall the step loop.

    Returns:
        float32, same shape and memory format.

    Raises:
        TypeError: ``images`` is neither uint8 nor float.
        ValueError: ``mean`` or ``std`` does not have one value per channel.
    """
    channels = images.shape[1]
    for name, value in (("mean", mean), ("std", std)):
        if value.shape != (channels,):
            raise ValueError(
                f"{name} has one value per channel of the inputs, shape ({channels},), "
                f"got {tuple(value.shape)}: compute it from the training split of this dataset"
            )
    per_channel = (channels,) + (1,) * (images.ndim - 2)
    mean, std = mean.view(per_channel), std.view(per_channel)
    if images.dtype == torch.uint8:
        # (x / 255 - mean) / std as one multiply-add, which also converts: one pass over the images.
        return torch.addcmul(-mean / std, images, 1 / (255 * std)).to(torch.float32)
    if not images.is_floating_point():
        raise TypeError(f"inputs are uint8 or float, got {images.dtype}: convert them when the dataset is loaded")
    # Not a multiply-add: where the mean is large against the deviation, that would lose digits.
    return ((images - mean) / std).to(torch.float32)


def _check_batch(images: Tensor, draws: AugmentationDraws) -> None:
    if images.ndim != 4:
        raise ValueError(
            f"augmentation takes image batches of shape (B, C, H, W), got {tuple(images.shape)}: "
            "turn it off for inputs that are not images"
        )
    if len(draws) != images.shape[0]:
        raise ValueError(
            f"augmentation needs one draw per image, got {len(draws)} draws for {images.shape[0]} images: "
            "index the draws as the batch was"
        )


def _in_interval(centre: Tensor, side: int, size: int) -> Tensor:
    """Return which positions lie in an interval of length ``side`` around each centre, bool ``(n, size)``."""
    offset = torch.arange(size, device=centre.device) - (centre[:, None] - side // 2)
    return (offset >= 0) & (offset < side)
