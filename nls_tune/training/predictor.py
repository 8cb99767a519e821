"""Saved networks that predict."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nls_tune.datasets.inputs import check_inputs, prepare
from nls_tune.datasets.mapped import MappedImages
from nls_tune.errors import InputError, error_line
from nls_tune.runs.saved_model import WEIGHTS, SavedModel, model_folder, read_saved_model, read_weights
from nls_tune.training.augment import normalise
from nls_tune.training.data import DeviceData
from nls_tune.training.devices import default_device
from nls_tune.training.evaluation import Evaluator
from nls_tune.training.models import build_model
from nls_tune.training.streaming import Inputs, StreamedImages


class Predictor:
    """A trained network that takes inputs as they are: ``saved`` says which, and how it was trained.

    Images, uint8 of 0 to 255, and features are normalised here, with the constants of the training. Those of a user's
    own data are taken as they were given to the search, and go through the same preprocessing.
    """

    def __init__(self, saved: SavedModel, network: nn.Module, device: torch.device) -> None:
        self.saved, self._network, self._device = saved, network.to(device), device
        mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (saved.mean, saved.std))
        images = len(saved.input_shape) == 3
        memory_format = torch.channels_last if images else torch.contiguous_format
        self._network.to(memory_format=memory_format)
        self._evaluator = Evaluator(DeviceData.without_samples(mean, std), saved.precision, memory_format)

    def probabilities(self, inputs: Any, *, prepared: bool = False) -> np.ndarray:
        """Return class probabilities, float32 (N, K), of uint8 images (N, C, H, W) or (N, H, W, C), or features (N, D).

        With ``prepared`` they are what ``load_inputs`` returned, and need no preprocessing.

        Raises:
            InputError: For inputs of another shape or type, and for features that are not finite.
        """
        shape, steps = self.saved.input_shape, self.saved.preprocessing
        values: Inputs
        if isinstance(inputs, MappedImages):  # the test samples of a search, which are prepared
            values = StreamedImages(inputs, self._device)
        else:
            found = check_inputs(inputs, shape) if prepared else prepare(inputs, shape, steps)
            values = torch.from_numpy(found.copy()).to(self._device)
            data = self._evaluator.data
            values = values if values.dtype == torch.uint8 else normalise(values, data.mean, data.std)
        return self._evaluator.probabilities(self._network, values).cpu().numpy()

    def predict(self, inputs: Any, *, prepared: bool = False) -> np.ndarray:
        """Return the most probable class of each sample, int64 (N,); inputs and errors as in ``probabilities``."""
        return np.asarray(self.probabilities(inputs, prepared=prepared).argmax(axis=1), np.int64)


def load_predictor(path: str | Path, *, device: torch.device | str | None = None) -> Predictor:
    """Load a network that ``nls-tune train`` saved; nothing is unpickled.

    Args:
        path: The folder, or a file in it.
        device: Where to compute; by default CUDA where there is a GPU.

    Raises:
        InputError: For a folder without a model, damaged files, and weights that are not those of the model.
    """
    saved = read_saved_model(path)
    weights = read_weights(path, saved)
    network = load_network(saved, weights, str(model_folder(path) / WEIGHTS))
    return Predictor(saved, network, default_device() if device is None else torch.device(device))


def weights_of(network: nn.Module) -> bytes:
    """Return the weights and buffers of a network in the safetensors format."""
    from safetensors.torch import save

    # Copies: the format takes neither shared nor transposed memory.
    return save({name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()})


def load_network(saved: SavedModel, weights: bytes, where: str) -> nn.Module:
    """Return the network of ``model.json`` with the weights of a safetensors file, or raise InputError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if math.prod(saved.input_shape) <= 0:
        raise InputError(f"{where}: input_shape must be positive, got {saved.input_shape}")
    network = build_model(saved.model, num_classes=saved.num_classes, input_shape=saved.input_shape)
    try:
        found = load(weights)
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{where} cannot be read ({error_line(error)}); train the model again") from None
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in found.items()}
    if expected != given:
        name = next(name for name in [*expected, *given] if expected.get(name) != given.get(name))
        raise InputError(
            f"{where} does not fit {saved.model} with {saved.num_classes} classes and inputs of shape "
            f"{saved.input_shape}: {name} must be {expected.get(name, 'absent')}, is {given.get(name, 'absent')}; "
            "give weights and model.json of one model"
        )
    network.load_state_dict(found)
    return network
