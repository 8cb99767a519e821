"""The network with which a training starts."""

from __future__ import annotations

import torch
from torch import nn

from nls_tune.datasets import NoisyDataset
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.data import DeviceData
from nls_tune.training.fast_cnn import WHITENING_IMAGES, FastCNN, whitened_at_once
from nls_tune.training.last_layer import freeze
from nls_tune.training.models import build_model


def starting_network(dataset: NoisyDataset, settings: TrainingSettings, data: DeviceData) -> nn.Module:
    """Build a network, on the CPU; torch's generator decides its weights, and which images whiten its first layer.

    Raises:
        InputError: If the settings do not fit the data, or the last layer, which alone is to be trained, is not known.
    """
    network = build_model(
        settings.model, num_classes=dataset.num_classes, input_shape=dataset.input_shape, weights=settings.weights
    )
    if isinstance(network, FastCNN) and settings.weights is None:
        some = torch.randperm(dataset.num_train)[:WHITENING_IMAGES]
        network.whiten(data.normalised(torch.split(some, whitened_at_once(dataset.input_shape))))
    if settings.freeze:
        freeze(network)
    return network
