"""A run seen from outside while it goes on: from run.json and part files alone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from nls_tune.errors import InputError
from nls_tune.runs.changing_parts import ChangingParts, Row
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.progress import LevelProgress, RunningTrial, SearchProgress
from nls_tune.runs.reading import read_status, row_runs_again
from nls_tune.runs.schemas import Stage, epoch_schema, trial_schema
from nls_tune.runs.time_budget import TimeBudget
from nls_tune.spaces.settings import OWN_COLUMNS, TrainingSettings

_TRIAL_COLUMNS = (
    *("trial_id", "stage", "arm", "noise_level", "smooth_rate", "warmup_epochs", "lr", "seed", "status", "error"),
    *("epochs", "best_epoch", "best_val_accuracy", "test_accuracy_at_best", "last_test_accuracy"),
    *("train_seconds", "wall_seconds", "started_at", "finished_at"),
)
_EPOCH_COLUMNS = ("trial_id", "noise_level", "arm", "smooth_rate", "epoch", "val_accuracy", "seconds")
#: Statuses of a run in which there is no more to come from what runs.
_OVER = ("finished", "interrupted", "failed")


@dataclass(frozen=True)
class _Stage:
    """What runs, as run.json says it.

    Attributes:
        name: Which stage.
        totals: Trials by noise level.
        epochs: Of a full trial; 0 where unknown.
        started_at: None where unknown.
        time_budget: In seconds; None for no limit.
    """

    name: Stage
    totals: dict[str, int]
    epochs: int
    started_at: datetime | None = None
    time_budget: float | None = None


class WatchedRun:
    """A run directory that is looked at again and again, and never written to.

    Args:
        path: The folder.

    Attributes:
        status: Where the run stands.
        progress: The counts of the stage that runs; of an ended run, those of the search.
        names: The settings that are searched.
        new_rows: Rows of ``trials/`` that have come since the look before, in the order of their ends.

    Raises:
        InputError: If the folder is no run.
    """

    def __init__(self, path: str | Path) -> None:
        self._run = RunDirectory(path)
        self.path = self._run.path
        content, self.status = read_status(self._run)
        self._content = content.model_dump(mode="json")
        self.names = _searched(self._content)
        columns = [name if name in OWN_COLUMNS else f"config_{name}" for name in self.names]
        self._trials = ChangingParts(self._run.trials, trial_schema(), [*dict.fromkeys([*_TRIAL_COLUMNS, *columns])])
        self._epochs = ChangingParts(self._run.epochs, epoch_schema(), _EPOCH_COLUMNS)
        self._ends: dict[str, datetime] | None = None
        self.new_rows: list[Row] = []
        self.progress = SearchProgress({}, 1, 0)
        self.refresh()

    def refresh(self) -> None:
        """Look at the run again.

        Raises:
            InputError: If run.json is gone.
        """
        try:
            content, self.status = read_status(self._run)
        except InputError:
            if not self._run.run_json.exists():
                raise
            return  # torn, on a file system that cannot replace a file in one step: the next look sees it whole
        self._content = content.model_dump(mode="json")
        # Epochs first: a trial that ends between the two looks has ended, and does not run for ever.
        self._epochs.look()
        self._trials.look()
        rows = {row["trial_id"]: row for row in sorted(self._trials.all_rows(), key=lambda row: row["started_at"])}
        ends = {name: row["finished_at"] for name, row in rows.items()}
        before, self._ends = ends if self._ends is None else self._ends, ends
        new = [row for name, row in rows.items() if before.get(name) != ends[name]]
        self.new_rows = sorted(new, key=lambda row: row["finished_at"])
        self.progress = self._make_progress(rows)

    @property
    def num_read(self) -> int:
        """How many part files have been read so far, again ones included."""
        return self._trials.num_read + self._epochs.num_read

    @property
    def num_unread(self) -> int:
        """How many parts of ``trials/`` cannot be read."""
        return self._trials.num_unread()

    @property
    def ended_by(self) -> str | None:
        """What ended the search: ``trials`` or ``time_budget``; None where run.json does not say."""
        found = self._content.get("ended_by")
        return found if isinstance(found, str) else None

    def elapsed(self) -> float:
        """Return the seconds since the stage began; of a run that has ended, those of all its sessions."""
        if self.status == "running":
            began = self._stage().started_at or _time(self._session().get("started_at"))
            return 0.0 if began is None else max(0.0, time.time() - began.timestamp())
        total = 0.0
        for session in self._content.get("sessions", ()):
            began, ended = _time(session.get("started_at")), _time(session.get("finished_at"))
            if began is not None:
                # A process that was killed did not say when; what it wrote last does.
                total += max(0.0, (ended or self._last_write()).timestamp() - began.timestamp())
        return total

    def _last_write(self) -> datetime:
        parts = [*self._trials.signatures.values(), *self._epochs.signatures.values()]
        return datetime.fromtimestamp(max((part.mtime_ns for part in parts), default=0) / 1e9, UTC)

    def _session(self) -> Mapping[str, Any]:
        sessions = self._content.get("sessions", ())
        return sessions[-1] if sessions else {}

    def _stage(self) -> _Stage:
        planned = {level["noise_level"]: sum(level["trials"].values()) for level in self._content.get("plan", ())}
        epochs = _dig(self._content, "identity", "space", "budget", "epochs")
        search = _Stage("search", planned, epochs if isinstance(epochs, int) else 0)
        if self.status in _OVER:
            return search
        try:
            stage = self._session()["stage"]
            if stage["name"] not in get_args(Stage):
                return search
            return _Stage(
                name=stage["name"],
                totals={str(name): int(total) for name, total in stage["trials"].items()},
                epochs=int(stage["epochs"]),
                started_at=_time(stage["started_at"]),
                time_budget=None if stage["time_budget"] is None else float(stage["time_budget"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return search  # the noise is still being estimated, or an earlier version wrote the run

    def _make_progress(self, rows: Mapping[str, Row]) -> SearchProgress:
        stage, slots = self._stage(), _dig(self._session(), "slots", "count")
        levels = {name: LevelProgress(total) for name, total in stage.totals.items()}
        progress = SearchProgress(levels, slots if isinstance(slots, int) else 1, stage.epochs, stage.name)
        progress.budget = self._budget(stage)
        counted = {name: row for name, row in rows.items() if self._counts(row, stage)}
        shown = _best(counted.values())
        for name, row in counted.items():
            levels.setdefault(row["noise_level"], LevelProgress(0))
            progress.ended(
                row["noise_level"],
                row["arm"],
                name,
                row["status"],
                row["best_val_accuracy"],
                adopted=True,
                smooth_rate=row["smooth_rate"],
                # Of all the curves only those that are shown are read.
                accuracies=_accuracies(self._curve(name)) if name in shown else (),
            )
            if row["epochs"]:
                progress.measured(name, row["epochs"], row["train_seconds"])
        self._add_running(progress, rows)
        return progress

    def _budget(self, stage: _Stage) -> TimeBudget:
        if stage.name != "search" or stage.time_budget is None or stage.started_at is None:
            return TimeBudget()
        earlier = [session.get("search_seconds", 0.0) for session in self._content["sessions"][:-1]]
        used = sum(seconds for seconds in earlier if isinstance(seconds, int | float))
        return TimeBudget(stage.time_budget, used + max(0.0, time.time() - stage.started_at.timestamp()))

    def _counts(self, row: Row, stage: _Stage) -> bool:
        """Whether a row is a trial of the stage that has ended for good."""
        if row["stage"] != stage.name:
            return False
        again = self.status not in _OVER and row_runs_again(self._run, row["trial_id"], row["status"])
        if again and row["status"] == "out_of_memory":
            return False  # it waits until fewer share a GPU
        if stage.name != "search" and stage.started_at is not None:
            return bool(row["started_at"] >= stage.started_at)  # earlier sessions have confirmed others
        began = _time(self._session().get("started_at"))
        return not (again and began is not None and row["finished_at"] < began)

    def _add_running(self, progress: SearchProgress, rows: Mapping[str, Row]) -> None:
        """Add the trials whose epochs were written in this session, and after their row if they run once more."""
        began = _time(self._session().get("started_at"))
        if self.status in _OVER or began is None:
            return
        parts, before = self._epochs.signatures, self.progress.running
        names = [
            name
            for name, part in parts.items()
            if part.mtime_ns / 1e9 >= began.timestamp() and (name not in rows or self._runs_again(rows[name]))
        ]
        # Those that ran before keep their slots; the others take what is free, the oldest first.
        for name in sorted(names, key=lambda name: (name not in before, parts[name].mtime_ns)):
            curve = self._curve(name)
            if not curve:
                continue
            last = curve[-1]
            level, arm, rate = last["noise_level"], last["arm"], last["smooth_rate"]
            progress.levels.setdefault(level, LevelProgress(0))
            slot = before[name].slot if name in before else None
            progress.started(RunningTrial(name, level, arm, rate, progress.epochs), slot)
            progress.reported(name, last["epoch"], sum(row["seconds"] for row in curve), _accuracies(curve))

    def _runs_again(self, row: Row) -> bool:
        name = row["trial_id"]
        parts, ended = self._epochs.signatures, self._trials.signatures
        again = row_runs_again(self._run, name, row["status"])
        return again and name in ended and parts[name].mtime_ns > ended[name].mtime_ns

    def _curve(self, name: str) -> list[Row]:
        return [row for row in self._epochs.rows(name) if row["trial_id"] == name]


def _best(rows: Iterable[Row]) -> set[str]:
    """The names of the trials whose curves are shown: of each level the first with the highest objective."""
    best: dict[str, Row] = {}
    for row in rows:
        if row["status"] == "completed" and row["best_val_accuracy"] is not None:
            before = best.get(row["noise_level"])
            if before is None or row["best_val_accuracy"] > before["best_val_accuracy"]:
                best[row["noise_level"]] = row
    return {row["trial_id"] for row in best.values()}


def _accuracies(curve: Iterable[Row]) -> tuple[float, ...]:
    return tuple(row["val_accuracy"] for row in curve)


def _searched(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the space; rate, warm-up and learning rate where it cannot be read."""
    space = _dig(content, "identity", "space", "space")
    found = [name for name in space if name in TrainingSettings.model_fields] if isinstance(space, Mapping) else []
    return tuple(dict.fromkeys(["smooth_rate", *(found or ["warmup_epochs", "lr"])]))


def _dig(content: Any, *keys: str) -> Any:
    """What stands under keys of mappings in one another; None where nothing does."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _time(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
