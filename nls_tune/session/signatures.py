"""Signatures of functions that take the settings of a search, for help and completion."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar

from nls_tune.plan.settings import SearchSettings, flags_of_settings

_Search = TypeVar("_Search", bound=Callable[..., Any])


def with_settings(search: _Search) -> _Search:
    """Give a function the fields of ``SearchSettings`` in place of its ``**settings``, for help and completion."""
    own = [p for p in signature(search).parameters.values() if p.kind != Parameter.VAR_KEYWORD]
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(SearchSettings, name), annotation=type_)
        for name, (type_, _) in flags_of_settings().items()
        if name not in {p.name for p in own}
    ]
    search.__signature__ = Signature([*own, *options])  # type: ignore[attr-defined]
    return search
