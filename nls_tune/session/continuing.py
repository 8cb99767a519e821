"""How a run goes on: what may differ from before, budgets that grow, and the settings to go on with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from nls_tune.errors import InputError
from nls_tune.machine.provenance import without_password
from nls_tune.plan.plan import SearchPlan
from nls_tune.plan.settings import SearchSettings, check_search_settings, flag_name, flags_of_settings
from nls_tune.report.text import amount
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.run_json import RunJson
from nls_tune.spaces.settings import TrainingSettings

_HIDDEN = "***"
#: Differences from a run that a message names.
_DIFFERENCES_SHOWN = 4


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List what differs between two nested mappings, as ``key: before -> now``."""
    found = []
    for key in [*before, *(k for k in now if k not in before)]:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old} -> {new}")
    return found


def refusals(content: RunJson, plan: SearchPlan) -> list[str]:
    """List what keeps a run from going on with a plan; the number of trials may grow."""
    identities = (content.identity, plan.identity())
    before, now = (_without_defaults(one.model_dump(mode="json")) for one in identities)
    if growth(content, plan) is not None:
        for identity in (before, now):
            identity["space"]["budget"].pop("trials")
    if not plan.info.own:
        return differences(before, now)
    # A user's own data may have moved, and have another name: their content is what counts.
    for identity in (before, now):
        identity["settings"].pop("dataset", None)
    found = differences(before, now)
    if moved := [line for line in found if line.startswith("fingerprints.")]:
        found = [line for line in found if line not in moved]
        found.insert(0, f"the data, their labels or the split are others ({moved[0]})")
    return found


def _without_defaults(identity: dict[str, Any]) -> dict[str, Any]:
    """Leave out the fixed settings at their defaults: a space may have come to name them, or ``--set`` does."""
    space = identity.get("space") or {}
    defaults = {name: field.default for name, field in TrainingSettings.model_fields.items()}
    fixed = {
        name: value
        for name, value in (space.get("fixed") or {}).items()
        if name not in defaults or (tuple(value) if isinstance(value, list) else value) != defaults[name]
    }
    return {**identity, "space": {**space, "fixed": fixed}}


def first_of(differences: Sequence[str]) -> str:
    """Write the first differences and the number of the others: another dataset brings dozens along."""
    shown, more = differences[:_DIFFERENCES_SHOWN], len(differences) - _DIFFERENCES_SHOWN
    return "; ".join([*shown, f"and {amount(more, 'other difference')}"] if more > 0 else shown)


def growth(content: RunJson, plan: SearchPlan) -> tuple[int, int] | None:
    """Return the trials per noise level of a run and of a plan that has more; None if it has not."""
    before, now = (identity.space.budget.get("trials") for identity in (content.identity, plan.identity()))
    if isinstance(before, int) and isinstance(now, int) and now > before:
        return before, now
    return None


def grow(content: RunJson, plan: SearchPlan) -> None:
    """Take over the larger budget of a plan: the run is unfinished again, and keeps its estimates of the noise."""
    known = {level.noise_level: level for level in content.plan}
    levels = plan.run_levels()
    for level in levels:
        before = known.get(level.noise_level)
        if before is not None and before.estimate is not None:
            level.estimate, level.start = before.estimate, before.start
    content.identity, content.plan = plan.identity(), levels
    content.status, content.ended_by = "interrupted", None


def standing(plan: SearchPlan, run: RunDirectory) -> str | None:
    """Return what a search with this plan would do in its run directory, in a line; None if there is no run yet."""
    if not run.run_json.exists():
        return None
    content = run.read_json()
    if found := refusals(content, plan):
        return f"{run.path} is a run with other settings, and would be refused: {first_of(found)}"
    line = f"{run.path} is a run with these settings ({content.status}), and would go on"
    grown = growth(content, plan)
    return line if grown is None else f"{line}, with {grown[1]} trials per noise level in place of {grown[0]}"


def stored_settings(settings: SearchSettings, *, in_memory: bool = False) -> dict[str, Any]:
    """Return what run.json keeps of a session's settings: all but the defaults, as plain values without passwords.

    The current ``folder`` comes with them, and whether the user's own data were only in memory.
    """
    found: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name == "out" or value == field.default:
            continue
        if isinstance(value, str | Path):
            value = without_password(str(value))
        found[field.name] = list(value) if isinstance(value, tuple) else value
    return {"settings": found, "folder": str(Path.cwd()), "data_in_memory": in_memory}


def settings_of_run(run: RunDirectory, given: Mapping[str, Any]) -> SearchSettings:
    """Return the settings with which a run goes on: those of its last session, and what is given now.

    By default it goes on in its own folder.

    The current folder becomes that session's, if it can still be entered: its paths may be relative.

    Raises:
        InputError: If the run does not know its settings, or a password that it was not to keep is wanted.
    """
    # The current folder changes.
    given = {n: v.expanduser().absolute() if isinstance(v, Path) else v for n, v in given.items()}
    content = run.read_json()
    session = next((one for one in reversed(content.sessions) if one.settings is not None), None)
    if session is None or session.settings is None:
        command = next((one.command for one in reversed(content.sessions) if one.command), None)
        again = f": {command}" if command else ""
        raise InputError(
            f"{run.path} does not know its settings, an earlier version wrote it; give the command of its search "
            f"again, with --out {run.path}{again}"
        )
    if session.data_in_memory:
        raise InputError(
            f"the data of {run.path} were given in memory, from Python: call run_search again with the same data and "
            f"out={str(run.path)!r}"
        )
    kept = session.settings
    if sources := {"images", "table", "arrays"} & given.keys():  # the data lie elsewhere now
        kept = {name: value for name, value in kept.items() if name not in {"images", "table", "arrays"} - sources}
    values = {**kept, **given}
    if not {"dataset", "images", "table", "arrays"} & values.keys():  # defaults are not kept, and that one has changed
        values["dataset"] = content.identity.settings["dataset"]
    for name, value in values.items():
        if isinstance(value, str) and _HIDDEN in value:
            flag = flag_name(name, flags_of_settings()[name][1])
            raise InputError(f"{run.path} keeps no passwords: give {flag} again, with the one of {value}")
    checked = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    settings = check_search_settings(**{"out": run.path, **checked})
    if session.folder is not None:
        with suppress(OSError):  # it may be gone, or another user's
            os.chdir(session.folder)
    return settings
