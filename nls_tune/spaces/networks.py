"""Which networks there are and what inputs they take: plain data, so that planning a search needs no torch.

A network is named in one of four ways: by a name of `NETWORKS`, which `nls_tune.training.models` builds; as
``torchvision:NAME`` or ``timm:NAME``; as ``module.path:function``, a function of the user's own; or by the name of an
entry point ``nls_tune.models`` that an installed package has. The plan of a search writes a fingerprint behind a name
that is not of `NETWORKS`, ``mymodels:build@1f3a9c2e``: another network under the same name is another setting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from nls_tune.errors import InputError, unknown_name

InputShape = tuple[int, ...]

#: The packages whose networks are known by ``PACKAGE:NAME``.
LIBRARIES = ("torchvision", "timm")
#: The group of entry points with which an installed package brings networks.
ENTRY_POINTS = "nls_tune.models"
#: Digits of a fingerprint that stands behind a name.
FINGERPRINT_DIGITS = 8
_FINGERPRINT = re.compile(rf"(?P<name>.+)@(?P<fingerprint>[0-9a-f]{{{FINGERPRINT_DIGITS}}})")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True)
class Network:
    """The smallest side in pixels of an image that a network takes, and why; 0 for inputs of any shape, also flat."""

    min_side: int
    reason: str = ""


_THREE_STRIDES = "it halves the image three times"
_WHITENED = "it is made for images of this size"
NETWORKS = {
    "resnet18": Network(8, _THREE_STRIDES),
    "resnet34": Network(8, _THREE_STRIDES),
    "resnet50": Network(8, _THREE_STRIDES),
    "preact_resnet18": Network(8, _THREE_STRIDES),
    "cnn9": Network(12, "two poolings must leave 3 x 3 pixels for an unpadded convolution"),
    "small_cnn": Network(8, "three poolings must leave a pixel"),
    "fast_cnn_small": Network(16, _WHITENED),
    "fast_cnn": Network(16, _WHITENED),
    "fast_cnn_large": Network(16, _WHITENED),
    "mlp": Network(0),
    "linear": Network(0),
}
"""The networks of this package by name."""

MODEL_NAMES: tuple[str, ...] = tuple(NETWORKS)
"""The names of the networks of this package."""


def split_fingerprint(text: str) -> tuple[str, str | None]:
    """Return a name or a path without the fingerprint that a plan has written behind it, and that fingerprint."""
    found = _FINGERPRINT.fullmatch(text)
    return (found["name"], found["fingerprint"]) if found else (text, None)


def is_own(model: str) -> bool:
    """Whether a network is the user's or a plug-in's: neither of this package, nor of one of `LIBRARIES`."""
    name, _ = split_fingerprint(model)
    return name not in NETWORKS and name.partition(":")[0] not in LIBRARIES


def plugged_in() -> dict[str, EntryPoint]:
    """Return the entry points of installed packages that build networks, by name; nothing is imported."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def check_model(model: str, input_shape: InputShape) -> None:
    """Raise an InputError unless a network can exist and take samples of this shape: (C, H, W), or (features,).

    What a library or a function says of its own network shows when it is built.
    """
    name, _ = split_fingerprint(model)
    shape = tuple(input_shape)
    if not shape or min(shape) < 1:
        raise InputError(f"an input shape has sizes of 1 or more, got {shape}: check the dataset")
    if name in NETWORKS:
        _check_shape(name, shape)
    elif ":" not in name:
        if name not in (known := plugged_in()):
            raise unknown_name("model", name, [*MODEL_NAMES, *known])
    elif name.partition(":")[0] not in LIBRARIES and not _FUNCTION.fullmatch(name):
        raise InputError(
            f"model {name!r} must be one of {', '.join(MODEL_NAMES)}, torchvision:NAME, timm:NAME, or "
            "module.path:function, a function of your own"
        )


def _check_shape(name: str, shape: InputShape) -> None:
    network = NETWORKS[name]
    if network.min_side == 0:
        return
    if len(shape) != 3:
        raise InputError(
            f"model {name!r} takes images of shape (channels, height, width), got inputs of shape {shape}: "
            "use model 'mlp', which takes any shape"
        )
    if min(shape[1:]) < network.min_side:
        raise InputError(
            f"model {name!r} takes images of {network.min_side} x {network.min_side} pixels or more "
            f"({network.reason}), got {shape[1]} x {shape[2]}: use model 'mlp', which takes any shape"
        )
