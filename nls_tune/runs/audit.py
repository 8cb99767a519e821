"""The doctor's checks of a run: whether run.json is true, and every trial is there once and whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nls_tune.machine.check import Check, failure
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import Run, load_run, runs_again
from nls_tune.runs.storage.copies import stored_run_json
from nls_tune.runs.storage.store import Store
from nls_tune.spaces.settings import TrainingSettings, column_of

if TYPE_CHECKING:
    import pandas as pd

_GO_ON = "give the search's command again, or restore the folder from a copy"
_REMOVE = "remove the row's part files; the search's command trains again what is missing"


def audit_run(path: str | Path) -> Iterator[Check]:
    """Check a run and all of its rows.

    Raises:
        InputError: If there is no run, or run.json cannot be read.
    """
    run = load_run(path)
    yield _status(run)
    for problem in run.problems:
        yield failure("run", problem if ";" in problem else f"{problem}; {_GO_ON}")
    search = run.trials[run.trials["stage"] == "search"]
    yield from _counts(run, search)
    yield from _twins(run.trials)
    yield from _epochs(run)


def audit_storage(url: str) -> Iterator[Check]:
    """Check that a storage can be written and read, and the run that may be there."""
    store = Store(url)
    store.check()
    yield Check("storage", "ok", f"{store.shown} can be written and read")
    if stored_run_json(store) is not None:
        yield from audit_run(url)


def _status(run: Run) -> Check:
    held = f"{run.path.name}: {run.status}, {len(run.trials)} trials"
    sessions = [session for session in run.content.sessions if session.command]
    again = f"it goes on with: {sessions[-1].command}" if sessions else "the search's command goes on"
    if run.status in ("interrupted", "crashed"):
        return Check("run", "warning", held, again)
    if run.status == "failed":
        return Check("run", "warning", held, f"mend what its last message said; {again}")
    return Check("run", "ok", held)


def _failure(found: str, way_out: str) -> Check:
    return Check("run", "failure", found, way_out)


def _counts(run: Run, search: pd.DataFrame) -> Iterator[Check]:
    """Compare the rows of the search with what run.json counted, and with its plan."""
    counted, planned = run.content.search_trials, run.content.planned_trials
    if run.status == "finished" and counted is not None and len(search) < counted:
        yield _failure(f"trials/ has {len(search)} of {counted} rows of the search that run.json counted", _GO_ON)
    for level, number in search["noise_level"].value_counts().items():
        if level in planned and number > planned[str(level)]:
            yield _failure(f"{level} has {number} rows of the search, planned are {planned[str(level)]}", _REMOVE)
    others = sorted(set(run.trials["run_id"]) - {run.content.run_id})
    if run.content.run_id is not None and others:
        yield _failure(f"trials/ has rows of another run, {others[0]}", _REMOVE)


def _twins(trials: pd.DataFrame) -> Iterator[Check]:
    """Find trials that are the same: equal in stage, data, seed and configuration."""
    same = ["stage", "dataset", "noise_level", "noise_seed", *map(column_of, TrainingSettings.model_fields)]
    keys = trials[same].astype(str)
    for index in trials.index[keys.duplicated()]:
        yield _failure(f"trial {trials['trial_id'][index]} is a second time there under another name", _REMOVE)


def _epochs(run: Run) -> Iterator[Check]:
    """Check that each trial has the epochs that its row counts, from 1 on; one that runs again may have more."""
    ended = run.trials[~runs_again(RunDirectory(run.path), run.trials)]
    found = run.epochs.groupby("trial_id")["epoch"].agg(["size", "max", "nunique"])
    numbers = found.reindex(ended["trial_id"]).fillna(0).astype(int)
    wanted = ended["epochs"].to_numpy()
    whole = (numbers["size"] == wanted) & (numbers["max"] == wanted) & (numbers["nunique"] == wanted)
    wrong = numbers[~whole.to_numpy()]
    if len(wrong):
        number = ended.set_index("trial_id")["epochs"][wrong.index[0]]
        yield _failure(
            f"epochs/ has not the epochs of {len(wrong)} of {len(ended)} trials, the first is {wrong.index[0]} with "
            f"{wrong['size'].iloc[0]} of {number}",
            "answers are whole, curves are not: restore epochs/ from a copy",
        )
    if run.url is not None:
        return  # what goes on has a checkpoint, of which there is no copy
    for trial_id in sorted(set(found.index) - set(run.trials["trial_id"])):
        if run.status != "running" and not (run.path / "checkpoints" / trial_id).is_dir():
            yield _failure(f"trial {trial_id} has epochs and no row: its row is lost", _GO_ON)
