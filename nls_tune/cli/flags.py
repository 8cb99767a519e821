"""Flags of a command from the fields of ``SearchSettings``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_origin

import typer

from nls_tune.plan.flag import Flag
from nls_tune.plan.settings import SearchSettings, check_search_settings, flag_name, flags_of_settings

_Command = TypeVar("_Command", bound=Callable[..., int])

#: Training settings that have a flag of their own, short for ``--set NAME=VALUE``.
_SHORT = {
    "model": "Name of the network: a built-in one, torchvision:NAME, timm:NAME, or module.path:function of your own; "
    "short for --set model=NAME.",
    "weights": "Weights that the network starts from: default (of torchvision and timm), or a file; short for "
    "--set weights=FILE.",
    "freeze": "Train the last layer alone, on features that are computed once; short for --set freeze=true and, unless "
    "set otherwise, crop_padding=0, flip=false and cutout=0.",
    "precision": "float32, bfloat16 or auto, what the hardware computes fast; short for --set precision=NAME.",
}

#: Those of them that take no value.
_SWITCHES = ("freeze",)
#: What changes an image from epoch to epoch, so that its features would have to be computed in each.
_NO_AUGMENTATION = ("crop_padding=0", "flip=false", "cutout=0")


def with_flags(*names: str, help_: Mapping[str, str] | None = None) -> Callable[[_Command], _Command]:
    """Replace the ``**flags`` of a command by the flags of settings, which Typer reads from its signature.

    The ``names`` are fields of ``SearchSettings`` and shorthands, by default all. ``help_`` says what a flag does in
    this command, where that is not the field's description.
    """

    def replace(command: _Command) -> _Command:
        parameters = {p.name: p for p in _parameters(help_ or {}, in_panels=not names) if not names or p.name in names}
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD]
        before = [p for p in own if p.kind != p.KEYWORD_ONLY]
        after = [p for p in own if p.kind == p.KEYWORD_ONLY]
        command.__signature__ = inspect.Signature([*before, *parameters.values(), *after])  # type: ignore[attr-defined]
        return command

    return replace


def settings_of_flags(flags: Mapping[str, Any]) -> SearchSettings:
    """Return the settings that flags ask for; a flag that was not given leaves the field its default.

    Raises:
        InputError: For a value outside its range.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    short = [f"{name}={given.pop(name)}" for name in _SHORT if name in given]
    set_ = given.get("overrides", ())
    if "freeze=True" in short:
        names = {text.partition("=")[0].strip() for text in set_}
        short += [text for text in _NO_AUGMENTATION if text.partition("=")[0] not in names]
    return check_search_settings(**{**given, "overrides": (*set_, *short)})


def _parameters(help_: Mapping[str, str], *, in_panels: bool) -> Iterator[inspect.Parameter]:
    for name, (type_, flag) in flags_of_settings().items():
        panel = flag.panel if in_panels else None
        declared = flag_name(name, flag)
        if type_ == bool | None:
            declared = f"{declared}/--no-{declared.removeprefix('--')}"
        option = typer.Option(declared, metavar=flag.metavar, help=help_.get(name, flag.help), rich_help_panel=panel)
        default = getattr(SearchSettings, name)
        # Whether a dataset was named matters: own data take its place.
        yield _parameter(
            name, None if default == () or name == "dataset" else default, Annotated[_given_as(type_, flag), option]
        )
        if name == "overrides":
            for short, text in _SHORT.items():
                option = typer.Option(f"--{short}", help=help_.get(short, text), rich_help_panel=panel)
                yield _parameter(short, None, Annotated[bool | None if short in _SWITCHES else str | None, option])


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _given_as(type_: Any, flag: Flag) -> Any:
    """Return the type that Typer reads: text where the settings read or check it and word the error."""
    if flag.read is not None or get_origin(type_) is Literal:
        return str | None
    return list[str] | None if get_origin(type_) is tuple else type_
