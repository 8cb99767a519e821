"""The runs below a folder: their status, and what each says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from nls_tune.analysis.rows import search_trials
from nls_tune.analysis.verdicts import Finding, Verdict, find
from nls_tune.errors import InputError
from nls_tune.machine.provenance import without_password
from nls_tune.runs.reading import load_trials
from nls_tune.runs.run_json import RunStatus
from nls_tune.runs.storage.copies import copy_of_runs
from nls_tune.runs.storage.opening import is_url


@dataclass(frozen=True)
class LevelOverview:
    """The verdict of a noise level in short; None where there is none, or nothing to use."""

    noise_level: str
    smooth_rate: float | None
    val_accuracy: float | None
    finding: Finding | None


@dataclass(frozen=True)
class RunOverview:
    """One run in a list.

    Attributes:
        name: Its path below the folder that was searched, or the name of that folder if it is the run itself.
        status: The run's status; None, like the fields that follow, for a damaged run.
        num_ended: The number of search trials that have ended.
        num_planned: The number of search trials that are planned.
        created_at: When it began; None where run.json does not say.
        problem: What is wrong with it, in one line; None if nothing is.
    """

    path: str
    name: str
    status: RunStatus | None
    dataset: str | None
    num_ended: int | None
    num_planned: int | None
    levels: tuple[LevelOverview, ...]
    created_at: datetime | None
    problem: str | None


def run_overviews(folder: str | Path) -> tuple[RunOverview, ...]:
    """Return the runs below a folder or a URL, the newest first, damaged ones last.

    The folder is searched to any depth, but not inside of runs and of hidden folders; it may be a run itself.

    Raises:
        InputError: If the folder does not exist, or the URL cannot be read.
    """
    if is_url(folder):
        top, shown = copy_of_runs(str(folder)), without_password(str(folder)).rstrip("/")
        return tuple(
            replace(one, path=f"{shown}/{one.name}" if one.path != str(top) else shown) for one in _overviews(top)
        )
    return _overviews(Path(folder).expanduser())


def _overviews(top: Path) -> tuple[RunOverview, ...]:
    if not top.is_dir():
        raise InputError(f"runs must lie below a folder, {top} is not one; give one, or start a search")
    found = [_overview(path, _name(path, top)) for path in _find(top)]
    oldest = datetime.min.replace(tzinfo=UTC)
    found.sort(key=lambda one: one.name)
    return tuple(sorted(found, key=lambda one: (one.status is not None, one.created_at or oldest), reverse=True))


def _find(top: Path) -> Sequence[Path]:
    found = []
    for place, folders, files in os.walk(top):
        if "run.json" in files:
            found.append(Path(place))
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".")]
    return found


def _name(path: Path, top: Path) -> str:
    return path.resolve().name if path == top else str(path.relative_to(top))


def _overview(path: Path, name: str) -> RunOverview:
    try:
        run = load_trials(path)
    except InputError as error:
        return RunOverview(str(path), name, None, None, None, None, (), None, str(error))
    planned = run.content.planned_trials
    search = search_trials(run.trials)
    more = f" (and {len(run.problems) - 1} more)" if len(run.problems) > 1 else ""
    dataset = run.content.identity.settings.get("dataset")
    found = {one.noise_level: one for one in find(run).verdicts}
    return RunOverview(
        path=str(path),
        name=name,
        status=run.status,
        dataset=dataset if isinstance(dataset, str) else None,
        num_ended=int((search["status"] != "interrupted").sum()),
        num_planned=sum(planned.values()),
        levels=tuple(_level(level, found.get(level)) for level in run.levels),
        created_at=run.content.created_at,
        problem=f"{run.problems[0]}{more}" if run.problems else None,
    )


def _level(level: str, verdict: Verdict | None) -> LevelOverview:
    finding = None if verdict is None else verdict.finding
    if verdict is None or verdict.use is None:
        return LevelOverview(level, None, None, finding)
    return LevelOverview(level, verdict.use.config["smooth_rate"], verdict.use.val_accuracy, finding)
