"""Networks by name, each for any number of classes and for the input shapes that it can take.

Which there are, and what inputs they take, stands in `spaces.networks`, which needs no torch. The image networks are
those that papers on noisy labels report: ResNets with a CIFAR stem, the pre-activation ResNet-18 and the 9-layer CNN.
``small_cnn``, ``mlp`` and ``linear`` are there so that a laptop can search as well. Initial weights come from torch's
global generator: seed it first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from torch import Tensor, nn

from nls_tune.errors import InputError
from nls_tune.spaces.networks import InputShape, check_model
from nls_tune.training.fast_cnn import WIDTHS, FastCNN

_SMALL_CNN_WIDTHS = (32, 64, 128)
_MLP_HIDDEN = (128, 128)


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    # No bias: the batch norm that follows subtracts it again.
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def _kaiming_init(module: nn.Module) -> None:
    """Initialise one convolution as torchvision's ResNets do; other layers keep torch's defaults."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _resnet(name: str, num_classes: int, input_shape: InputShape) -> nn.Module:
    """Return torchvision's ResNet with the stem for small images: ImageNet's would leave 8 x 8 of 32 x 32 pixels."""
    from torchvision.models import get_model  # slow to import, and only these networks need it

    model: nn.Module = get_model(name, weights=None, num_classes=num_classes)
    model.conv1 = _conv3x3(input_shape[0], 64)
    _kaiming_init(model.conv1)
    model.maxpool = nn.Identity()
    return model


class _PreActBlock(nn.Module):
    """A residual unit that normalises and activates before each convolution (He et al. 2016, figure 1b)."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, first: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _conv3x3(in_channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
        projects = stride != 1 or in_channels != channels
        self.shortcut: nn.Module = (
            nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False) if projects else nn.Identity()
        )
        # The paper's appendix: the first unit is activated before it splits into two paths, and so is the
        # input of a projection. Every other shortcut carries its input untouched.
        self.skips_from_activated = first or projects

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        skip: Tensor = self.shortcut(activated if self.skips_from_activated else x)
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return skip + residual


def _preact_resnet18(num_classes: int, input_shape: InputShape) -> nn.Module:
    """Return the pre-activation ResNet-18 with the stem for small images.

    From He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016. The last unit is followed by
    one more activation, as in the paper. A widely copied implementation leaves it and its batch norm out and
    has 1,024 parameters fewer (11,171,146 at 10 classes).
    """
    layers: list[nn.Module] = [_conv3x3(input_shape[0], 64)]
    in_channels = 64
    for stage, channels in enumerate((64, 128, 256, 512)):
        for unit in range(2):
            stride = 2 if stage > 0 and unit == 0 else 1
            first = stage == 0 and unit == 0
            layers.append(_PreActBlock(in_channels, channels, stride=stride, first=first))
            in_channels = channels
    layers += [nn.BatchNorm2d(512), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers.append(nn.Linear(512, num_classes))
    return nn.Sequential(*layers).apply(_kaiming_init)


def _leaky_conv(in_channels: int, out_channels: int, kernel: int, padding: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.01, inplace=True)]


def _cnn9(num_classes: int, input_shape: InputShape) -> nn.Module:
    """Return the CNN with nine convolutions of the noisy-label papers.

    The layout is that of Laine and Aila ("Temporal Ensembling", ICLR 2017), whose last two convolutions are
    1 x 1. The code published with Co-teaching (Han et al., NeurIPS 2018) differs: there they are 3 x 3,
    unpadded, with 1,310,720 weights more, and dropout drops whole channels, in evaluation too.
    """
    layers: list[nn.Module] = []
    in_channels = input_shape[0]
    for channels in (128, 256):
        for _ in range(3):
            layers += _leaky_conv(in_channels, channels, kernel=3, padding=1)
            in_channels = channels
        layers += [nn.MaxPool2d(2), nn.Dropout(0.25)]
    layers += _leaky_conv(256, 512, kernel=3, padding=0)
    layers += _leaky_conv(512, 256, kernel=1, padding=0)
    layers += _leaky_conv(256, 128, kernel=1, padding=0)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, num_classes)]
    return nn.Sequential(*layers)


def _small_cnn(num_classes: int, input_shape: InputShape) -> nn.Module:
    """Return three convolutions and a linear layer: 113,962 parameters for 10 classes of 3 x 32 x 32."""
    layers: list[nn.Module] = []
    in_channels, height, width = input_shape
    for channels in _SMALL_CNN_WIDTHS:
        layers += [_conv3x3(in_channels, channels), nn.BatchNorm2d(channels)]
        # Pooled first: the same numbers and gradients as the other way round, for a quarter of the ReLU's work.
        layers += [nn.MaxPool2d(2), nn.ReLU(inplace=True)]
        in_channels, height, width = channels, height // 2, width // 2
    layers += [nn.Flatten(), nn.Linear(in_channels * height * width, num_classes)]
    return nn.Sequential(*layers)


def _fast_cnn(widths: tuple[int, ...], num_classes: int, input_shape: InputShape) -> nn.Module:
    return FastCNN(widths, num_classes, input_shape)


def _mlp(num_classes: int, input_shape: InputShape) -> nn.Module:
    """Return two hidden layers of 128 on the flattened input.

    There is no batch norm: two layers train without it, and a sample's logits do not depend on its batch.
    """
    widths = (math.prod(input_shape), *_MLP_HIDDEN)
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-1], num_classes))
    return nn.Sequential(*layers)


def _linear(num_classes: int, input_shape: InputShape) -> nn.Module:
    """Return one linear layer on the flattened input, as embeddings of a trained network are often judged."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))


#: How to build each network of `nls_tune.spaces.networks.NETWORKS`, for a number of classes and an input shape.
_BUILDERS: dict[str, Callable[[int, InputShape], nn.Module]] = {
    "resnet18": partial(_resnet, "resnet18"),
    "resnet34": partial(_resnet, "resnet34"),
    "resnet50": partial(_resnet, "resnet50"),
    "preact_resnet18": _preact_resnet18,
    "cnn9": _cnn9,
    **{name: partial(_fast_cnn, widths) for name, widths in WIDTHS.items()},
    "small_cnn": _small_cnn,
    "mlp": _mlp,
    "linear": _linear,
}


def build_model(name: str, *, num_classes: int, input_shape: InputShape) -> nn.Module:
    """Build a network with fresh weights, on the CPU, in float32 and training mode.

    ``name`` is one of `nls_tune.spaces.networks.MODEL_NAMES`, and ``input_shape`` the shape of one sample. The module
    maps float inputs ``(N, *input_shape)`` to logits ``(N, num_classes)``. Training on a batch of one can fail: batch
    norm needs two values per channel, and of the smallest images a network keeps one.

    Raises:
        InputError: As in `check_model`, or ``num_classes`` is below 2.
    """
    check_model(name, input_shape)
    if num_classes < 2:
        raise InputError(f"num_classes is 2 or more, got {num_classes}: check the labels")
    return _BUILDERS[name](num_classes, tuple(input_shape))
