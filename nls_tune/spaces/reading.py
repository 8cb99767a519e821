"""Reads search spaces from YAML: finds the file, applies a preset and ``--set`` overrides, checks the result."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from nls_tune.errors import InputError, unknown_name
from nls_tune.spaces.parameters import ChoiceParameter, FloatParameter, IntParameter
from nls_tune.spaces.settings import TrainingSettings, describe_validation_error, unknown_setting
from nls_tune.spaces.space import Budget, SearchSpace
from nls_tune.spaces.yaml_text import parse_yaml

_SECTIONS = ("space", "arms", "fixed", "start", "budget")
#: The presets of a machine, with and without a GPU. A file that lacks them is taken as it stands.
MACHINE_PRESETS = ("gpu", "cpu")
_PRESET_NAME = re.compile(r"[a-z0-9_-]+")
#: What holds keys, by where pydantic says that one is unknown: the budget, or a parameter of a type.
_HOLDERS: dict[object, type[BaseModel]] = {
    "budget": Budget, "float": FloatParameter, "int": IntParameter, "choice": ChoiceParameter,
}  # fmt: skip


def shipped_folder() -> Path:
    """Return the folder of the shipped spaces: in the wheel inside the package, in a clone beside it."""
    package = Path(str(importlib.resources.files("nls_tune")))
    inside = package / "_search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def shipped_spaces() -> list[str]:
    """Return the names of the spaces that come with the package."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def load_space(
    name_or_path: str | Path,
    *,
    preset: str | None = None,
    epochs: int | None = None,
    overrides: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> SearchSpace:
    """Read and check a search space: a shipped one by its name, or a YAML file.

    Args:
        name_or_path: Name or file.
        preset: The preset to apply; by default, and where the file lacks ``gpu`` or ``cpu``, the file as it stands.
        epochs: Epochs per trial, to which the file's values are scaled; by default the file's own.
        overrides: ``KEY=VALUE`` each; the key is a training setting (``model=cnn9`` fixes it) or leads to a key
            of the space (``lr.low=1e-5``), the value is YAML. What is given here is not scaled.
        methods: Losses to compare with equal shares of the trials, by default the arms of the file.

    Raises:
        InputError: If the file cannot be read or breaks a rule; the message names file, key, value and rule.
    """
    path, content, presets = _read_checked(name_or_path)
    if preset is not None and find_preset(name_or_path, preset):
        _apply(content, presets[preset] or {})
    space = _build(path, content)
    if epochs is not None:
        space = space.with_epochs(epochs)
    if methods:
        space = space.with_methods(methods)
    # With every default written out, so that an override of one arm or budget key leaves the others alone.
    content = space.model_dump(exclude={"name"})
    _check_once(overrides)
    for override in overrides:
        _override(content, override)
    space = _build(path, content)
    try:
        space.check_settings()
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{space.name}: ')}") from None
    return space


def find_preset(name_or_path: str | Path, preset: str) -> str | None:
    """Return the preset if a space has it, and None if it is one of ``MACHINE_PRESETS`` and the space lacks it.

    Raises:
        InputError: For any other preset that the space lacks, or a space that cannot be read.
    """
    path, _, presets = _read_checked(name_or_path)
    if preset in presets:
        return preset
    if preset in MACHINE_PRESETS:
        return None
    names = [*presets, *(name for name in MACHINE_PRESETS if name not in presets)]
    raise InputError(f"{path}: {unknown_name('preset', preset, names)}")


def _build(path: Path, content: Mapping[str, Any]) -> SearchSpace:
    try:
        return SearchSpace(name=path.stem, **content)
    except ValidationError as error:
        for found in error.errors():  # an unknown key gets the nearest name, before what else is wrong
            if found["type"] == "extra_forbidden" and found["loc"][-2] in _HOLDERS:
                *where, kind, key = (str(part) for part in found["loc"])
                near = unknown_name("key", key, _HOLDERS[kind].model_fields)
                raise InputError(f"{path}: {'.'.join(where) or kind}: {near}") from None
        raise InputError(describe_validation_error(error, str(path), skip=("float", "int", "choice"))) from None


def _find(name: str) -> Path:
    """Return the file of a shipped space, or of a path."""
    if name in shipped_spaces():
        return shipped_folder() / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists() or len(path.parts) > 1:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise InputError(f"the search space must be a YAML file, {name} {what}")
        return path
    raise unknown_name("search space", name, shipped_spaces())


def _read_checked(name_or_path: str | Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Return the file of a space, its content without presets, and the presets; all names in them are checked."""
    path = _find(str(name_or_path))
    content = _read(path)
    presets = content.pop("presets", None) or {}
    _check_names(path, content, presets)
    return path, content, presets


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise InputError(f"{path}: is not valid YAML ({error})") from None
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise InputError(f"{path}: must be a mapping with the keys {', '.join(_SECTIONS)}; it holds {found}")
    return content


def _check_names(path: Path, content: Mapping[str, Any], presets: object) -> None:
    """Check what pydantic would report without the nearest name: sections, presets and searched settings."""
    if not isinstance(presets, dict):
        raise InputError(f"{path}: presets must be a mapping of their names, for example cpu, got {presets!r}")
    for name in presets:
        if not isinstance(name, str) or not _PRESET_NAME.fullmatch(name) or name == "auto":
            raise InputError(
                f"{path}: presets: a name must be of lower-case letters, digits, _ and -, and not auto, got {name!r}"
            )
    places = [("", content)] + [(f"presets.{n}: ", values or {}) for n, values in presets.items()]
    for where, values in places:
        if not isinstance(values, dict):
            raise InputError(f"{path}: {where}must be a mapping, got {values!r}")
        for section in values:
            if section not in _SECTIONS:
                known = (*_SECTIONS, "presets")
                raise InputError(f"{path}: {where}{unknown_name('key', str(section), known)}")
        for section in ("space", "fixed"):
            if not isinstance(values.get(section) or {}, dict):
                raise InputError(f"{path}: {where}{section} must be a mapping, got {values[section]!r}")
            for name in values.get(section) or {}:
                if name not in TrainingSettings.model_fields:
                    raise InputError(f"{path}: {where}{section}: {unknown_setting(str(name))}")


def _apply(content: dict[str, Any], preset: Mapping[str, Any]) -> None:
    """Change a space by a preset, key by key. What the preset fixes is not searched, and the other way round."""
    searched, fixed = preset.get("space") or {}, preset.get("fixed") or {}
    _stop_searching(content, fixed)
    content["fixed"] = {name: value for name, value in (content.get("fixed") or {}).items() if name not in searched}
    for section, values in preset.items():
        content[section] = _merge(content.get(section), values)


def _stop_searching(content: dict[str, Any], names: Collection[str]) -> None:
    """Take settings out of what is searched, and out of the start points."""
    content["space"] = {name: value for name, value in (content.get("space") or {}).items() if name not in names}
    if isinstance(points := content.get("start"), list | tuple):
        content["start"] = [
            {k: v for k, v in point.items() if k not in names} if isinstance(point, dict) else point for point in points
        ]


def _merge(base: Any, update: Any) -> Any:
    """Mappings are merged key by key, everything else is replaced; so is a parameter by one of another type."""
    if isinstance(base, dict) and isinstance(update, dict) and update.get("type", (kind := base.get("type"))) == kind:
        merged = {key: _merge(base.get(key), value) for key, value in update.items()}
        return {**base, **merged}
    return update


def set_the_same(*overrides: str) -> bool:
    """Whether two overrides, ``KEY=VALUE``, change the same setting, as ``lr=0.1`` and ``lr.low=0.01`` do."""
    first, second = (f"{override.partition('=')[0].strip()}." for override in overrides)
    return first.startswith(second) or second.startswith(first)


def _check_once(overrides: Sequence[str]) -> None:
    """Refuse a setting that is changed twice."""
    keys = [override.partition("=")[0].strip() for override in overrides]
    for place, key in enumerate(keys):
        for other in keys[:place]:
            if set_the_same(key, other):
                again = f"{key} is given twice" if key == other else f"{key} and {other} set the same"
                raise InputError(f"--set: {again}; leave one of them out")


def _override(content: dict[str, Any], override: str) -> None:
    """Apply one ``KEY=VALUE`` to a space in which every section is written out."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise InputError(f"--set takes KEY=VALUE, got {override!r}; for example --set model=cnn9")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise InputError(f"--set {override[:60]}: the value is not valid YAML ({error})") from None
    head, *rest = key.split(".")
    if not rest:
        if head not in TrainingSettings.model_fields:
            raise InputError(f"--set: {unknown_setting(head)}")
        _stop_searching(content, [head])
        content["fixed"] = {**content["fixed"], head: value}
        return
    if head in content["space"]:
        target = content["space"][head]
    elif head in ("budget", "arms"):
        target = content[head]
    else:
        raise InputError(f"--set: {unknown_name('key of the space', head, [*content['space'], 'budget', 'arms'])}")
    if len(rest) != 1:
        raise InputError(f"--set {override}: the key has one dot at most, for example lr.low=1e-5")
    target[rest[0]] = value
