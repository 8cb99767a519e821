"""The last layer of a network, which makes logits of features, and training it alone."""

from __future__ import annotations

from torch import nn

from nls_tune.errors import InputError

#: What the last layer is called in the networks of torchvision, of timm, and of most people.
_NAMES = ("head", "fc", "classifier", "heads")


def last_layer_name(network: nn.Module) -> str | None:
    """Return the name of the layer, or group of layers, that makes the logits; None if that is not known.

    It is what a network of timm says, the attribute ``head``, ``fc``, ``classifier`` or ``heads``, or the last one of
    an ``nn.Sequential``.
    """
    says = getattr(network, "get_classifier", None)
    said = says() if callable(says) else None
    names = dict(network.named_children())
    candidates: list[str] = [name for name, module in network.named_modules() if module is said]
    candidates += [name for name in _NAMES if name in names]
    candidates += list(names)[-1:] if isinstance(network, nn.Sequential) else []
    for name in candidates:
        if any(True for _ in network.get_submodule(name).parameters()):
            return name
    return None


def freeze(network: nn.Module) -> None:
    """Let training change the last layer alone.

    Raises:
        InputError: If it is not known which one that is.
    """
    name = last_layer_name(network)
    if name is None:
        raise InputError(
            f"--freeze trains the last layer alone, and {type(network).__name__} does not say which one that is: "
            "name it head, fc or classifier"
        )
    network.requires_grad_(False)
    network.get_submodule(name).requires_grad_(True)


def set_training(network: nn.Module, *, frozen: bool) -> None:
    """Set a network to training mode; of a frozen one the last layer alone, so that batch norm keeps its statistics."""
    network.train(not frozen)
    if frozen and (name := last_layer_name(network)) is not None:
        network.get_submodule(name).train()
