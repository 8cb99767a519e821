"""Builds losses by name."""

from __future__ import annotations

import importlib
import keyword
from typing import Any, cast

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from nls_tune.errors import InputError, unknown_name
from nls_tune.losses.base import NoisyLabelLoss
from nls_tune.losses.registry import loss_info


def make_loss(
    name: str,
    *,
    num_classes: int | None = None,
    num_samples: int | None = None,
    matrix: ArrayLike | None = None,
    class_weights: ArrayLike | None = None,
    **settings: object,
) -> nn.Module:
    """Return a loss: a module that takes logits (N, K), labels (N,) and the indices of the samples.

    Args:
        name: A name of ``nls_tune.losses.LOSSES``, or ``module.path:Class``, a class of your own that is made with
            ``num_classes`` and ``num_samples``.
        num_classes: The number of classes, where the loss remembers something per sample (``elr``).
        num_samples: The number of training samples, likewise.
        matrix: The transition matrix (K, K), rows: clean class, where the loss corrects for it.
        class_weights: One weight per class (K,), which a sample's loss counts with by its label, in a mean that is
            divided by the sum of the weights; ``balanced_weights`` gives those that make up for the sizes of classes.
        settings: The loss's settings by their names as training settings, such as ``gce_q``; defaults for the others.

    Raises:
        InputError: A loss or setting that does not exist, or something that the loss needs and was not given.
    """
    info = loss_info(name)
    given: dict[str, object] = {}
    for setting, value in settings.items():
        if setting not in info.settings:
            raise unknown_name(f"setting of loss {name}", setting, info.settings or ["(it has none)"])
        short = setting.removeprefix(f"{name}_")
        given[f"{short}_" if keyword.iskeyword(short) else short] = value
    if info.needs == "indices":
        if num_classes is None or num_samples is None:
            raise InputError(f"loss {name} needs num_classes and num_samples")
        given |= {"num_classes": num_classes, "num_samples": num_samples}
    if info.needs == "matrix":
        if matrix is None:
            raise InputError(
                f"loss {name} needs a transition matrix: estimate one (nls_tune.estimate_noise), or give your own"
            )
        given["matrix"] = torch.as_tensor(matrix, dtype=torch.float64)
    made = loss_class(name)(**given)
    if class_weights is not None:
        if not isinstance(made, NoisyLabelLoss) or ":" in name:
            raise InputError(f"class weights are for the losses of nls_tune.losses, {name} is your own; weigh in it")
        made.class_weights = torch.as_tensor(class_weights, dtype=torch.float32)
    return made


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return ``n / (K * n_c)`` of each class, float32 (K,), from labels (n,); 0 for a class without samples."""
    counts = torch.bincount(labels, minlength=num_classes).float()
    return torch.where(counts > 0, len(labels) / (num_classes * counts), 0.0)


def loss_class(name: str) -> type[nn.Module]:
    """Return the class of a loss; InputError for one of your own that cannot be imported or is not a module."""
    module, _, attribute = loss_info(name).where.partition(":")
    if ":" not in name:
        return cast("type[nn.Module]", getattr(importlib.import_module(f"nls_tune.losses.{module}"), attribute))
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # an import runs code that may fail in any way
        raise InputError(
            f"loss {name!r} cannot be imported ({type(error).__name__}: {error}); its module must be found from here, "
            "for example through PYTHONPATH"
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(f"loss {name!r} must be a class of torch.nn.Module, such as nls_tune.losses.NoisyLabelLoss")
    return found
