"""Runs as they are found on disk: finished, going on, interrupted, crashed or damaged."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa

from nls_tune.errors import InputError
from nls_tune.parts import read_parts
from nls_tune.results import RunDirectory, epoch_frame, epoch_schema, trial_frame, trial_schema

if TYPE_CHECKING:
    import pandas as pd

#: ``crashed``: run.json says that it goes on, but no process holds the run.
RunStatus = Literal["running", "finished", "interrupted", "failed", "crashed"]


@dataclass(frozen=True, eq=False)
class Run:
    """A run directory, read once.

    Attributes:
        path: The folder, absolute.
        name: The folder's name; several runs loaded together have different ones.
        status: Where the run stands.
        content: run.json.
        levels: The noise levels in the order of the command.
        trials: Rows of ``trials/``, as ``results.read_trials`` returns them.
        epochs: Rows of ``epochs/``, likewise.
        problems: What could not be read, one line each; nothing is left out silently.
    """

    path: Path
    name: str
    status: RunStatus
    content: dict[str, Any]
    levels: tuple[str, ...]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    problems: tuple[str, ...]

    @property
    def defaults(self) -> dict[str, Any]:
        """The default of each setting that was searched; empty where run.json does not say."""
        searched = self.content.get("identity", {}).get("space", {}).get("space", {})
        return {name: setting["default"] for name, setting in searched.items() if "default" in setting}


def load_run(path: str | Path) -> Run:
    """Read a run directory, whatever state it is in.

    Args:
        path: The folder.

    Returns:
        The run; part files that cannot be read are named in its ``problems``. A run that died before its first trial
        has frames without rows.

    Raises:
        InputError: If the folder is no run, or run.json cannot be read or is of a newer schema.
    """
    # Without the ``..`` of a path, so that the folder's name is a name; a link keeps its own.
    run = RunDirectory(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow the link
    content, status = read_status(run)
    trials, trial_problems = _read(run.trials, trial_schema(), "row", ["trial_id"])
    epochs, epoch_problems = _read(run.epochs, epoch_schema(), "epochs", ["trial_id", "epoch"])
    planned = [level["noise_level"] for level in content.get("plan", ())]
    return Run(
        path=run.path,
        name=run.path.name,
        status=status,
        content=content,
        levels=tuple(dict.fromkeys([*planned, *trials["noise_level"].to_pylist()])),
        trials=trial_frame(trials),
        epochs=epoch_frame(epochs),
        problems=(*trial_problems, *epoch_problems),
    )


def load_runs(paths: Sequence[str | Path]) -> tuple[Run, ...]:
    """Read several run directories; runs of the same folder name are told apart by their parents.

    Raises:
        InputError: As ``load_run``; also if a folder is given twice.
    """
    places = [Path(path).expanduser().resolve() for path in paths]
    for place in places:
        if places.count(place) > 1:
            raise InputError(f"every run can be given once, {place} is given twice; leave one of them out")
    runs = [load_run(path) for path in paths]
    names = _distinct([run.path for run in runs])
    return tuple(replace(run, name=name) for run, name in zip(runs, names, strict=True))


def _distinct(paths: Sequence[Path]) -> list[str]:
    """As many of the last parts of each path as tell it from the others."""
    lengths = [1] * len(paths)
    while True:
        names = ["/".join(path.parts[-length:]) for path, length in zip(paths, lengths, strict=True)]
        shared = [i for i, name in enumerate(names) if names.count(name) > 1]
        if not shared:
            return names
        for i in shared:
            lengths[i] += 1


def read_status(run: RunDirectory) -> tuple[dict[str, Any], RunStatus]:
    """Return run.json and where the run stands.

    A run that goes on according to run.json is asked for, because a killed process says nothing.

    Raises:
        InputError: As ``load_run``.
    """
    content = _read_json(run)
    if content["status"] != "running":
        return content, content["status"]
    if run.is_held():
        return content, "running"
    # It may have ended between the two looks; run.json says so before the run is given free.
    content = _read_json(run)
    return content, "crashed" if content["status"] == "running" else content["status"]


def _read_json(run: RunDirectory) -> dict[str, Any]:
    """run.json, if it has the parts that every reader needs."""
    content = run.read_json()
    plan, sessions = content.get("plan", ()), content.get("sessions", ())
    rules: dict[str, Callable[[], bool]] = {
        "status is not one": lambda: content.get("status") in get_args(RunStatus),
        "plan is no list of levels": lambda: all(
            isinstance(level["noise_level"], str) and all(isinstance(quota, int) for quota in level["trials"].values())
            for level in plan
        ),
        "sessions is no list of sessions": lambda: all(isinstance(session, Mapping) for session in sessions),
        "identity is not one": lambda: all(
            isinstance(setting, Mapping)
            for setting in content.get("identity", {}).get("space", {}).get("space", {}).values()
        ),
    }
    for wrong, holds in rules.items():
        try:
            if holds():
                continue
        except (TypeError, KeyError, AttributeError):
            pass
        raise InputError(f"{run.run_json} cannot be read ({wrong}); restore it or give another run")
    return content


def _read(folder: Path, schema: pa.Schema, what: str, key: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """The rows of a folder of parts, and one line for each part that gives none.

    Args:
        folder: ``trials/`` or ``epochs/``.
        schema: Of its parts.
        what: What a part holds of its trial.
        key: The columns in which no two rows agree.
    """
    if not folder.is_dir():
        return schema.empty_table(), [f"{folder.name}/ is missing, and so is the {what} of every trial"]
    table, unread = read_parts(folder, schema)
    problems = [
        _line(f"{folder.name}/{part.path.name} {part.reason}: the {what} of trial {part.path.stem} is missing")
        for part in unread
    ]
    rows = table.append_column("row", pa.array(range(len(table)), pa.int64()))
    first = rows.group_by(list(key), use_threads=False).aggregate([("row", "min")])["row_min"]
    if twice := len(table) - len(first):
        problems.append(f"{folder.name}/ has {twice} rows that another part has, too: the first of each counts")
        table = table.take(first)
    return table, problems


def _line(text: str) -> str:
    return " ".join(text.split())
