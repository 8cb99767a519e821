"""Convolutional networks that train in few epochs: one size after the other of the same design.

The design is that of Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), without its lookahead and its
label smoothing: a frozen first convolution that whitens patches, convolutions that begin as identities, batch norm
without scale, and logits divided by 9.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from torch import Tensor, nn

from nls_tune.spaces.networks import InputShape

#: Channels of the three groups, by name.
WIDTHS = {
    "fast_cnn_small": (32, 64, 64),
    "fast_cnn": (64, 256, 256),
    "fast_cnn_large": (128, 384, 384),
}
#: Training images whose patches are whitened.
WHITENING_IMAGES = 5000
#: Images whose patches are in memory at once, up to the side that own images keep; fewer of larger ones.
_AT_ONCE, _SIDE = 500, 64
_PATCH = 2
_EPS = 5e-4
_LOGIT_SCALE = 1 / 9
#: Share of a batch in batch norm's running statistics: an epoch has few steps.
_BATCH_NORM_MOMENTUM = 0.4


class FastCNN(nn.Module):
    """Whitening, three groups of two convolutions, a maximum over what is left of the image, and a linear layer.

    ``whiten`` must be called once with training images before the first step; until then the first layer keeps its
    random weights.
    """

    def __init__(self, widths: tuple[int, ...], num_classes: int, input_shape: InputShape) -> None:
        super().__init__()
        channels = 2 * _PATCH * _PATCH * input_shape[0]  # every direction and its negative
        self.whitening = nn.Conv2d(input_shape[0], channels, _PATCH)
        self.whitening.weight.requires_grad_(False)
        nn.init.zeros_(self.whitening.bias)  # type: ignore[arg-type] # there is one
        groups = []
        for width in widths:
            groups.append(_Group(channels, width))
            channels = width
        self.groups = nn.Sequential(*groups)
        self.head = nn.Linear(channels, num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of normalised images (N, C, H, W)."""
        features = self.groups(F.gelu(self.whitening(images))).amax((2, 3))
        logits: Tensor = self.head(features) * _LOGIT_SCALE
        return logits

    @torch.no_grad()
    def whiten(self, batches: Iterable[Tensor]) -> None:
        """Set the first layer to eigenvectors of the patches of images, and their negatives.

        The images come in ``batches`` (N, C, H, W), normalised. Each eigenvector is divided by the root of its
        eigenvalue, so that every output has about the same variance.
        """
        # On the CPU in float64: a decomposition must not depend on the device.
        covariance, count = torch.zeros((), dtype=torch.float64), 0
        for images in batches:
            patches = F.unfold(images.cpu(), _PATCH).transpose(1, 2).flatten(0, 1).double()
            covariance, count = covariance + patches.T @ patches, count + len(patches)
        values, vectors = torch.linalg.eigh(covariance / count)
        directions = (vectors / (values + _EPS).sqrt()).T.flip(0)
        weight = self.whitening.weight
        weight.copy_(torch.cat([directions, -directions]).view(weight.shape))


def whitened_at_once(input_shape: InputShape) -> int:
    """Return the size of the batches of images for ``whiten``."""
    return max(1, min(_AT_ONCE, _AT_ONCE * _SIDE * _SIDE // math.prod(input_shape[1:])))


class _Group(nn.Module):
    """Two convolutions; the image is halved after the first."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = _identity_conv(in_channels, channels)
        self.norm1 = _batch_norm(channels)
        self.conv2 = _identity_conv(channels, channels)
        self.norm2 = _batch_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


def _identity_conv(in_channels: int, channels: int) -> nn.Conv2d:
    """Return a 3 x 3 convolution that first copies its input into its first channels, as many as there are."""
    conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight[:in_channels])
    return conv


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, momentum=_BATCH_NORM_MOMENTUM)
    norm.weight.requires_grad_(False)
    return norm
