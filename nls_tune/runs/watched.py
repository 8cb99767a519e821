"""A run seen from outside while it goes on: from run.json and part files alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from nls_tune.errors import InputError
from nls_tune.machine.provenance import without_password
from nls_tune.metrics import Metric
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.parts import PartState, part_states, read_parts
from nls_tune.runs.progress import LevelProgress, RunningTrial, SearchProgress
from nls_tune.runs.reading import read_status, row_runs_again
from nls_tune.runs.run_json import RunSession, RunStage
from nls_tune.runs.schemas import Row, epoch_schema, objective_columns, trial_schema
from nls_tune.runs.storage.copies import local_copy
from nls_tune.runs.storage.opening import is_url
from nls_tune.runs.time_budget import TimeBudget
from nls_tune.spaces.settings import TrainingSettings

#: The statuses of a run that has ended by itself; of a crashed one, the trials that ran are still shown.
_OVER = ("finished", "interrupted", "failed")


class _Parts:
    """The part files of a folder by trial: each is read when its rows are wanted, and again when it has changed.

    A part that is torn, or vanishes while it is read, keeps the rows that it had; the next look tries again. The folder
    need not exist.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._rows: dict[str, tuple[PartState, list[Row]]] = {}
        self.states: dict[str, PartState] = {}

    def look(self) -> None:
        """See which parts there are now; nothing is read."""
        with suppress(OSError):
            self.states = {name.removesuffix(".parquet"): s for name, s in part_states(self._folder).items()}
            self._rows = {name: kept for name, kept in self._rows.items() if name in self.states}

    def rows(self, names: Sequence[str]) -> list[Row]:
        """Return the rows of some of the parts; none of a part that could never be read."""
        changed = [f"{name}.parquet" for name in names if self._has_changed(name)]
        found, begin = read_parts(self._folder, self._schema, changed), 0
        for file, count in found.num_rows.items():
            name = file.removesuffix(".parquet")
            # The state is that of before the read: a part that was replaced in between is read once more.
            self._rows[name] = self.states[name], found.table.slice(begin, count).to_pylist()
            begin += count
        return [row for name in names if name in self._rows for row in self._rows[name][1]]

    def num_unread(self) -> int:
        """Return how many parts have not been read as they are now."""
        return sum(self._has_changed(name) for name in self.states)

    def _has_changed(self, name: str) -> bool:
        return name in self.states and (name not in self._rows or self._rows[name][0] != self.states[name])


class WatchedRun:
    """A run that is looked at again and again, and never written to; what is not a run is an InputError.

    The ``place`` is its path, or the URL of a storage without passwords, from which a copy is brought up to date;
    ``flag`` is that of a search there.

    ``progress`` counts for the stage that runs; of an ended run, for the search. ``names`` are the settings that are
    searched, and ``new_rows`` those rows of ``trials/`` that have come since the look before, in the order of their
    ends.
    """

    def __init__(self, path: str | Path) -> None:
        self._given = path
        self._run = RunDirectory(local_copy(path, "trials", "epochs"))
        self.flag = "--storage" if is_url(path) else "--out"
        self.place = without_password(str(path)) if is_url(path) else str(self._run.path)
        self._content, self.status = read_status(self._run)
        known = [name for name in self._content.searched if name in TrainingSettings.model_fields]
        self.names = tuple(dict.fromkeys(["smooth_rate", *(known or ["warmup_epochs", "lr"])]))
        self._trials = _Parts(self._run.trials, trial_schema())
        self._epochs = _Parts(self._run.epochs, epoch_schema())
        self._ends: dict[str, datetime] | None = None
        self.new_rows: list[Row] = []
        self.progress = SearchProgress({}, 1, 0)
        self.refresh()

    def refresh(self) -> None:
        """Look at the run again; raise InputError if run.json is gone, or the storage cannot be read."""
        try:
            local_copy(self._given, "trials", "epochs")
            self._content, self.status = read_status(self._run)
        except InputError:
            if not self._run.run_json.exists():
                raise
            return  # torn, on a file system that cannot replace a file in one step: the next look sees it whole
        # Epochs first: a trial that ends between the two looks has ended, and does not run for ever.
        self._epochs.look()
        self._trials.look()
        found = sorted(self._trials.rows([*self._trials.states]), key=lambda row: row["started_at"])
        rows = {row["trial_id"]: row for row in found}
        ends = {name: row["finished_at"] for name, row in rows.items()}
        before, self._ends = ends if self._ends is None else self._ends, ends
        new = [row for name, row in rows.items() if before.get(name) != ends[name]]
        self.new_rows = sorted(new, key=lambda row: row["finished_at"])
        self.progress = self._make_progress(rows)

    @property
    def metric(self) -> Metric:
        """What the run selects by."""
        return self._content.metric

    @property
    def num_unread(self) -> int:
        """How many parts of ``trials/`` cannot be read."""
        return self._trials.num_unread()

    @property
    def ended_by(self) -> str | None:
        """What ended the search: ``trials`` or ``time_budget``; None where run.json does not say."""
        return self._content.ended_by

    def elapsed(self) -> float:
        """Return the seconds since the stage began; of a run that has ended, those of all its sessions."""
        if self.status == "running":
            began = self._stage().started_at or self._session().started_at
            return 0.0 if began is None else max(0.0, time.time() - began.timestamp())
        total = 0.0
        for session in self._content.sessions:
            if session.started_at is not None:
                # A process that was killed did not say when; the newest file does.
                ended = session.finished_at or self._last_write()
                total += max(0.0, (ended - session.started_at).total_seconds())
        return total

    def _last_write(self) -> datetime:
        states = [*self._trials.states.values(), *self._epochs.states.values()]
        return datetime.fromtimestamp(max((state.mtime_ns for state in states), default=0) / 1e9, UTC)

    def _session(self) -> RunSession:
        return self._content.sessions[-1] if self._content.sessions else RunSession()

    def _stage(self) -> RunStage:
        stage = self._session().stage
        if stage is not None and self.status not in _OVER:
            return stage
        # Of a run without a stage the noise is still being estimated.
        epochs = self._content.identity.space.budget.get("epochs")
        planned = self._content.planned_trials
        return RunStage(name="search", trials=planned, epochs=epochs if isinstance(epochs, int) else 0)

    def _make_progress(self, rows: Mapping[str, Row]) -> SearchProgress:
        """Return the counts of the stage, made anew from its rows and from what runs."""
        stage = self._stage()
        levels = {name: LevelProgress(total) for name, total in stage.trials.items()}
        progress = SearchProgress(levels, self._session().slots.count, stage.epochs, stage.name)
        progress.budget, progress.epochs_after = self._budget(stage), stage.epochs_after
        progress.metric = self.metric
        counted = {name: row for name, row in rows.items() if self._counts(row, stage)}
        column = objective_columns(self.metric).best_val
        shown = _best(counted.values(), column)
        for name, row in counted.items():
            levels.setdefault(row["noise_level"], LevelProgress(0))
            progress.ended(
                row["noise_level"],
                row["arm"],
                name,
                row["status"],
                row[column],
                adopted=True,
                smooth_rate=row["smooth_rate"],
                # Only the curves that are shown are read.
                accuracies=self._values(name) if name in shown else (),
            )
            if row["epochs"]:
                progress.measured(name, row["epochs"], row["train_seconds"])
        self._add_running(progress, rows)
        return progress

    def _budget(self, stage: RunStage) -> TimeBudget:
        if stage.name != "search" or stage.time_budget is None or stage.started_at is None:
            return TimeBudget()
        used = sum(session.search_seconds for session in self._content.sessions[:-1])
        return TimeBudget(stage.time_budget, used + max(0.0, time.time() - stage.started_at.timestamp()))

    def _counts(self, row: Row, stage: RunStage) -> bool:
        """Say whether a row is a trial of the stage that has ended for good."""
        if row["stage"] != stage.name:
            return False
        again = self.status not in _OVER and row_runs_again(self._run, row["trial_id"], row["status"])
        if again and row["status"] == "out_of_memory":
            return False  # it waits until fewer trials share a GPU
        if stage.name != "search" and stage.started_at is not None:
            return bool(row["started_at"] >= stage.started_at)  # earlier sessions have confirmed others
        began = self._session().started_at
        return not (again and began is not None and row["finished_at"] < began)

    def _add_running(self, progress: SearchProgress, rows: Mapping[str, Row]) -> None:
        """Add the trials whose epochs were written in this session, and after their row if they run once more."""
        began = self._session().started_at
        if self.status in _OVER or began is None:
            return
        states, before = self._epochs.states, self.progress.running
        names = [
            name
            for name, state in states.items()
            if state.mtime_ns / 1e9 >= began.timestamp() and (name not in rows or self._runs_again(rows[name]))
        ]
        # Those that ran before keep their slots; the others take the free ones, the oldest first.
        for name in sorted(names, key=lambda name: (name not in before, states[name].mtime_ns)):
            curve = self._curve(name)
            if not curve:
                continue
            last = curve[-1]
            level, arm, rate = last["noise_level"], last["arm"], last["smooth_rate"]
            progress.levels.setdefault(level, LevelProgress(0))
            slot = before[name].slot if name in before else None
            progress.started(RunningTrial(name, level, arm, rate, progress.epochs), slot)
            progress.reported(name, last["epoch"], sum(row["seconds"] for row in curve), self._values(name))

    def _runs_again(self, row: Row) -> bool:
        name, ended = row["trial_id"], self._trials.states
        again = row_runs_again(self._run, name, row["status"])
        return again and name in ended and self._epochs.states[name].mtime_ns > ended[name].mtime_ns

    def _curve(self, name: str) -> list[Row]:
        return [row for row in self._epochs.rows([name]) if row["trial_id"] == name]

    def _values(self, name: str) -> tuple[float, ...]:
        """Return what the epochs of a trial are judged by; NaN where an early version did not record it."""
        column = objective_columns(self.metric).epoch_val
        values = (row[column] for row in self._curve(name))
        return tuple(math.nan if value is None else value for value in values)


def _best(rows: Iterable[Row], column: str) -> set[str]:
    """Return the trials whose curves are shown: per level the first one with the highest objective."""
    best: dict[str, Row] = {}
    for row in rows:
        if row["status"] == "completed" and (value := row[column]) is not None:
            known = best.setdefault(row["noise_level"], row)
            best[row["noise_level"]] = row if value > known[column] else known
    return {row["trial_id"] for row in best.values()}
