"""The losses that trainings may use after their warm-up, one file per loss, and their registry.

Names are imported when they are first used: the registry is plain data, so that planning a search needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nls_tune.losses.base import NoisyLabelLoss as NoisyLabelLoss
    from nls_tune.losses.building import balanced_weights as balanced_weights
    from nls_tune.losses.building import make_loss as make_loss
    from nls_tune.losses.gls import GLSLoss as GLSLoss
    from nls_tune.losses.gls import gls_loss as gls_loss
    from nls_tune.losses.registry import LOSSES as LOSSES

_HOME = {
    "NoisyLabelLoss": "base",
    "balanced_weights": "building",
    "make_loss": "building",
    "GLSLoss": "gls",
    "gls_loss": "gls",
    "LOSSES": "registry",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
