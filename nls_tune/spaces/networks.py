"""Which networks there are and what inputs they take: plain data, so that planning a search needs no torch.

`nls_tune.training.models` builds them.
"""

from __future__ import annotations

from dataclasses import dataclass

from nls_tune.errors import InputError, unknown_name

InputShape = tuple[int, ...]


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
"""The networks by name."""

MODEL_NAMES: tuple[str, ...] = tuple(NETWORKS)
"""The names that `nls_tune.training.models.build_model` knows."""


def check_model(name: str, input_shape: InputShape) -> None:
    """Raise an InputError unless a network exists and takes samples of this shape: images (C, H, W), or (features,)."""
    if name not in NETWORKS:
        raise unknown_name("model", name, MODEL_NAMES)
    network = NETWORKS[name]
    shape = tuple(input_shape)
    if not shape or min(shape) < 1:
        raise InputError(f"an input shape has sizes of 1 or more, got {shape}: check the dataset")
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
