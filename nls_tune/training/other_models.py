"""Networks that are not of this package: those of torchvision and timm, a user's own, and those of plug-ins.

A function of a user's, ``module.path:function``, is imported from the current folder or from what is installed. It is
called with ``num_classes`` and ``input_shape``, the shape of one sample, and returns an ``nn.Module``. A plug-in is an
installed package with such a function as an entry point ``nls_tune.models``.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sys
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from nls_tune.errors import InputError, error_line, is_out_of_memory, unknown_name
from nls_tune.spaces.networks import FINGERPRINT_DIGITS, LIBRARIES, InputShape, plugged_in
from nls_tune.training.weights import fit_weights

#: Folders whose files are not what a user can mend.
_NOT_THEIRS = {"nls_tune", "torch", "torchvision", "timm", "importlib", "<frozen importlib._bootstrap>"}
_DEFAULT = "default"


def build_other(name: str, num_classes: int, input_shape: InputShape, weights: str | None = None) -> nn.Module:
    """Build a network of a library, with random weights or its default ones; or a user's own.

    Raises:
        InputError: If there is no such network, it cannot be built, or its weights cannot be had; in one line.
    """
    library, _, rest = name.partition(":")
    try:
        if library == "torchvision":
            return _torchvision(rest, num_classes, weights)
        if library == "timm":
            return _timm(rest, num_classes, input_shape, weights)
        network = _function(name)(num_classes=num_classes, input_shape=tuple(input_shape))
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever others' code raises
        if is_out_of_memory(error):
            raise
        raise InputError(f"model {name!r} cannot be built: {blame(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"model {name!r} must be an nn.Module, got {type(network).__name__}; return the network")
    return network


def default_weights(name: str, network: nn.Module) -> str:
    """Return what ``default`` means for a network of a library: the word and the name of these weights."""
    if name.startswith("torchvision:"):
        return f"{_DEFAULT}@{_weights_of_torchvision(name.partition(':')[2], _DEFAULT).name}"
    return f"{_DEFAULT}@{_timm_tag(network)}"


def fingerprint(name: str, network: nn.Module) -> str:
    """Return a digest of what a network is: its modules, the shapes of its weights, and the code of a user's module.

    Comments and the form of the code do not count, nor does code that the module imports.
    """
    parts = [f"{where} {type(module).__qualname__}" for where, module in network.named_modules()]
    parts += [f"{where} {tuple(value.shape)} {value.dtype}" for where, value in network.state_dict().items()]
    if name.partition(":")[0] not in LIBRARIES:
        parts.append(_source(_place(name)[0]))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:FINGERPRINT_DIGITS]


def blame(error: BaseException) -> str:
    """Return type and message of an error in one line, with the last line of a user's file that led to it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _NOT_THEIRS & set(Path(f.filename).parts)]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{error_line(error)}{where}"


# A user's own


def _place(name: str) -> tuple[str, str]:
    """Return module and function of a network of a user's or a plug-in's."""
    if ":" not in name:
        point = plugged_in().get(name)
        if point is None:
            raise InputError(f"model {name!r} is of a plug-in that is not installed here; install it")
        return point.module, point.attr
    module, _, function = name.partition(":")
    return module, function


def _function(name: str) -> Any:
    module_name, function = _place(name)
    here = str(Path.cwd())
    if module_name not in sys.modules and sys.path[:1] != [here]:
        sys.path.insert(0, here)  # as ``python -m`` does, and Ray in its workers
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # of something that the module itself imports
        raise InputError(
            f"model {name!r}: there is no module {error.name!r} in {here}, nor is one installed; correct the name, or "
            "go to the folder that has it"
        ) from None
    _source(module_name)  # of what has been imported, whatever becomes of the file
    found = getattr(module, function, None)
    if found is None:
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"model {name!r}: {unknown_name(f'function of {module_name}', function, functions)}")
    if not callable(found):
        raise InputError(f"model {name!r} must be a function, got {type(found).__name__}")
    return found


@lru_cache
def _source(module_name: str) -> str:
    """Return the code of a module that is imported, without comments; nothing where it is not Python."""
    try:
        return ast.unparse(ast.parse(inspect.getsource(sys.modules[module_name])))
    except (OSError, TypeError, SyntaxError):
        return ""


# Libraries


def _torchvision(name: str, num_classes: int, weights: str | None) -> nn.Module:
    from torchvision import models  # slow to import

    if name not in (known := models.list_models(module=models)):
        raise unknown_name("model of torchvision", name, known)
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
    if weights is not None:
        chosen = _weights_of_torchvision(name, weights)
        try:
            values = chosen.get_state_dict(check_hash=True, progress=False)
        except (OSError, RuntimeError) as error:
            raise _not_downloaded(f"torchvision:{name}", chosen.url, error) from None
        fit_weights(network, values, str(chosen))
    return network


def _weights_of_torchvision(name: str, weights: str) -> Any:
    from torchvision import models

    _, _, wanted = weights.partition("@")
    known = models.get_model_weights(name)
    if wanted and wanted not in known.__members__:
        raise InputError(f"this torchvision has no weights {wanted} of {name}; install the version that the search had")
    return known[wanted] if wanted else known.DEFAULT


def _timm(name: str, num_classes: int, input_shape: InputShape, weights: str | None) -> nn.Module:
    try:
        timm: Any = importlib.import_module("timm")
    except ModuleNotFoundError:
        raise InputError(
            f"model 'timm:{name}' needs the package timm, which is not installed: pip install 'nls-tune[timm]'"
        ) from None
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.partition('.')[0][:6]}*") or timm.list_models()
        raise unknown_name("model of timm", name, near[:20])
    try:
        network: nn.Module = timm.create_model(
            name, pretrained=weights is not None, num_classes=num_classes, in_chans=input_shape[0]
        )
    except (OSError, RuntimeError) as error:
        if weights is None:
            raise
        raise _not_downloaded(f"timm:{name}", "the Hugging Face hub", error) from None
    wanted = (weights or "").partition("@")[2]
    if wanted and wanted != _timm_tag(network):
        raise InputError(f"this timm has no weights {wanted} of {name}; install the version that the search had")
    return network


def _timm_tag(network: Any) -> str:
    return str(dict(network.pretrained_cfg).get("tag") or "pretrained")


def _not_downloaded(name: str, place: str, error: Exception) -> InputError:
    return InputError(
        f"the default weights of {name} cannot be downloaded from {place} ({error_line(error)}); give the file with "
        "--weights FILE"
    )
