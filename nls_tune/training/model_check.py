"""Builds networks once and tries them on two samples: a program of its own, for ``plan.models``.

It reads a ``ModelQuestion`` from standard input and prints a ``ModelAnswer``, both as JSON.
"""

from __future__ import annotations

import copy
import json
import socket
import sys
from typing import Any, TypedDict

#: Seconds until a server that does not answer counts as not there.
_PATIENCE_SECONDS = 10.0


class ModelQuestion(TypedDict):
    """The networks to try, each with each of the weights, and what they are to classify."""

    models: list[str]
    weights: list[str | None]
    freeze: bool
    num_classes: int
    input_shape: tuple[int, ...]


class ModelAnswer(TypedDict, total=False):
    """The names of networks and weights with their fingerprints, by the names that were given; or the error."""

    models: dict[str, str]
    weights: dict[str, str]
    error: str


def check(question: ModelQuestion) -> ModelAnswer:
    """Build and try the networks; an error is one line."""
    import torch

    from nls_tune.errors import InputError
    from nls_tune.spaces.networks import NETWORKS, split_fingerprint
    from nls_tune.training.models import build_model
    from nls_tune.training.other_models import default_weights, fingerprint
    from nls_tune.training.weights import with_fingerprint

    torch.set_num_threads(1)
    found: ModelAnswer = {"models": {}, "weights": {}}
    shape, classes = tuple(question["input_shape"]), question["num_classes"]
    try:
        for model in question["models"]:
            name, _ = split_fingerprint(model)
            for weights in question["weights"]:
                network = build_model(model, num_classes=classes, input_shape=shape, weights=weights)
                if weights is not None:
                    is_default = weights.partition("@")[0] == "default"
                    resolved = default_weights(name, network) if is_default else with_fingerprint(weights)
                    found["weights"][weights] = resolved
                found["models"][model] = name if name in NETWORKS else f"{name}@{fingerprint(name, network)}"
                try_out(name, network, classes, shape, frozen=question["freeze"])
                try_out(name, copy.deepcopy(network), classes, shape, frozen=question["freeze"])
    except InputError as error:
        return {"error": str(error)}
    return found


def try_out(name: str, network: Any, num_classes: int, input_shape: tuple[int, ...], *, frozen: bool) -> None:
    """Train and evaluate a network on two samples as trials do, without a step; InputError where that cannot work."""
    import torch

    from nls_tune.errors import InputError
    from nls_tune.training.last_layer import freeze, set_training
    from nls_tune.training.other_models import blame

    torch.manual_seed(0)
    inputs = torch.randn(2, *input_shape)
    if len(input_shape) == 3:  # as in a trial: a network must not depend on the order in memory
        network.to(memory_format=torch.channels_last)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    if frozen:
        freeze(network)
    for training in (True, False):
        network.eval()
        if training:
            set_training(network, frozen=frozen)
        try:
            logits = network(inputs)
            if training and isinstance(logits, torch.Tensor):
                torch.autograd.backward(logits.float().sum())
        except Exception as error:  # whatever others' code raises
            raise InputError(f"model {name!r} cannot take samples of shape {input_shape}: {blame(error)}") from None
        if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
            got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise InputError(f"model {name!r} must return logits of shape (N, {num_classes}), got {got} for 2 samples")
        if not logits.isfinite().all():
            raise InputError(f"model {name!r} returns numbers that are not finite for 2 samples; correct its weights")


if __name__ == "__main__":
    socket.setdefaulttimeout(_PATIENCE_SECONDS)
    print(f"\n{json.dumps(check(json.load(sys.stdin)))}")
