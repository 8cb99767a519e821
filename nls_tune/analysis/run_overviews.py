"""The runs below a folder: their status, and what each says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nls_tune.analysis.rows import search_trials
from nls_tune.analysis.verdicts import Finding, find
from nls_tune.errors import InputError
from nls_tune.runs import Run
from nls_tune.runs.reading import load_trials
from nls_tune.runs.run_json import RunStatus


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
        path: The folder.
        name: Its path below the folder that was searched, or the name of that folder if it is the run itself.
        status: The run's status; None, like the fields that follow, for a damaged run.
        dataset: The dataset's name.
        num_ended: Search trials that have ended.
        num_planned: Search trials that are planned.
        levels: In the order of the run.
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
    """Return the runs below a folder, the newest first, damaged ones last.

    Args:
        folder: Searched to any depth, but not inside of runs and of hidden folders; it may be a run itself.

    Raises:
        InputError: If the folder does not exist.
    """
    top = Path(folder).expanduser()
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
    return RunOverview(
        path=str(path),
        name=name,
        status=run.status,
        dataset=_dataset(run),
        num_ended=int((search["status"] != "interrupted").sum()),
        num_planned=sum(planned.values()),
        levels=_levels(run),
        created_at=run.content.created_at,
        problem=f"{run.problems[0]}{more}" if run.problems else None,
    )


def _levels(run: Run) -> tuple[LevelOverview, ...]:
    found = {one.noise_level: one for one in find(run).verdicts}
    levels = []
    for level in run.levels:
        verdict = found.get(level)
        use = None if verdict is None else verdict.use
        rate = None if use is None else use.config["smooth_rate"]
        accuracy = None if use is None else use.val_accuracy
        levels.append(LevelOverview(level, rate, accuracy, None if verdict is None else verdict.finding))
    return tuple(levels)


def _dataset(run: Run) -> str | None:
    found = run.content.identity.settings.get("dataset")
    return found if isinstance(found, str) else None
