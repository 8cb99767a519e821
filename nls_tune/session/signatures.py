"""Functions that take the settings of a search: their signatures, for help and completion, and their arguments."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any, TypeVar

from nls_tune.datasets import Data
from nls_tune.plan.settings import DATA_SETTINGS, SearchSettings, check_search_settings, flags_of_settings

_Search = TypeVar("_Search", bound=Callable[..., Any])


def with_settings(search: _Search) -> _Search:
    """Give a function the fields of ``SearchSettings`` in place of its ``**settings``, for help and completion."""
    own = [p for p in signature(search).parameters.values() if p.kind != Parameter.VAR_KEYWORD]
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(SearchSettings, name), annotation=type_)
        for name, (type_, _) in flags_of_settings().items()
        if name not in {*(p.name for p in own), *DATA_SETTINGS}
    ]
    search.__signature__ = Signature([*own, *options])  # type: ignore[attr-defined]
    return search


def settings_of_call(
    dataset: str | Data,
    noise: str | Sequence[str] | None,
    space: str | Path | None,
    overrides: Mapping[str, Any] | Sequence[str],
    more: Mapping[str, Any],
) -> tuple[SearchSettings, Data | None]:
    """Return the settings that the arguments of ``run_search`` ask for, and the user's own data.

    Raises:
        InputError: For an unknown name or a value outside its range.
    """
    if isinstance(noise, str):
        noise = tuple(part.strip() for part in noise.split(","))
    if isinstance(overrides, Mapping):
        overrides = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    own = dataset if isinstance(dataset, Data) else None
    # In memory they have no place among the settings.
    which = {"dataset": dataset} if own is None else own.settings() if own.is_on_disk else {}
    checked = check_search_settings(
        **which,
        noise=None if noise is None else tuple(noise),
        space=None if space is None else str(space),
        overrides=tuple(overrides),
        **more,
    )
    return checked, own
