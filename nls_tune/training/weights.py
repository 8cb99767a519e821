"""Weights that a network starts from: read from a file, without running any of its code, and fitted to the network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nls_tune.errors import InputError
from nls_tune.spaces.networks import FINGERPRINT_DIGITS, split_fingerprint
from nls_tune.training.last_layer import last_layer_name

#: The entries under which training programs keep the weights among other things.
_WRAPPED = ("state_dict", "model")


def with_fingerprint(path: str) -> str:
    """Return the absolute path of a file of weights, and behind it the fingerprint of its content."""
    file = Path(split_fingerprint(path)[0]).expanduser().absolute()
    return f"{file}@{_fingerprint(file)}"


def load_weights_file(network: nn.Module, path: str) -> None:
    """Give a network the weights of a file.

    The last layer may have another shape in the file, where there were other classes, or be missing there: it then
    keeps what it has.

    Raises:
        InputError: If the file cannot be read, has another fingerprint than stands behind the path, or does not fit.
    """
    name, expected = split_fingerprint(path)
    file = Path(name).expanduser()
    if expected is not None and _fingerprint(file) != expected:
        raise InputError(f"--weights {file} has been changed since the search began; give it back, or search anew")
    fit_weights(network, _read(file), str(file))


def fit_weights(network: nn.Module, values: Mapping[str, Tensor], source: str) -> None:
    """Give a network weights by their names; InputError where others than the last layer's lack or do not fit."""
    own, last = network.state_dict(), last_layer_name(network)
    fits = {name: value for name, value in values.items() if name in own and own[name].shape == value.shape}
    # Early versions of batch norm did not count.
    rest = [name for name in [*own, *values] if name not in fits and not name.endswith("num_batches_tracked")]
    if others := [name for name in rest if last is None or not name.startswith(f"{last}.")]:
        name = others[0]
        what = "has no" if name not in values else "has an unknown" if name not in own else "has another shape of"
        raise InputError(f"--weights {source} does not fit the network: it {what} {name!r}; give weights of this one")
    network.load_state_dict(fits, strict=False)


def _fingerprint(file: Path) -> str:
    try:
        stat = file.stat()
        return _digest(file, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise _cannot_read(file, error.strerror or str(error)) from None


@lru_cache
def _digest(file: Path, changed: int, size: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:FINGERPRINT_DIGITS]


def _read(file: Path) -> dict[str, Tensor]:
    try:
        content: Any = _load(file)
    except Exception as error:  # a file of another kind fails in many ways
        reason = getattr(error, "strerror", None) or str(error)
        raise _cannot_read(file, " ".join(reason.split())[:150]) from None
    for key in _WRAPPED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise _cannot_read(file, "it holds other things than tensors by name")
    return dict(content)


def _load(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _cannot_read(file: Path, reason: str) -> InputError:
    return InputError(f"--weights must be a file of weights (.pth or .safetensors), {file} cannot be read ({reason})")
