"""Runs as they are found on disk: finished, going on, interrupted, crashed or damaged."""

from __future__ import annotations

import logging
import os
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nls_tune.errors import InputError
from nls_tune.losses.registry import LOSSES
from nls_tune.machine.provenance import without_password
from nls_tune.metrics import METRICS
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.parts import read_parts
from nls_tune.runs.parts_copy import read_folder
from nls_tune.runs.run_json import RunJson, RunStatus
from nls_tune.runs.schemas import STATUSES, epoch_schema, settings_of, trial_schema
from nls_tune.runs.storage.copies import local_copy
from nls_tune.runs.storage.opening import is_url
from nls_tune.spaces.settings import OWN_COLUMNS, RATE_ARMS, TrainingSettings, column_of

if TYPE_CHECKING:
    import pandas as pd

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Run:
    """A run directory, read once.

    The ``path`` is absolute; of a run behind a URL it is that of a copy, and ``place`` the URL without passwords. The
    ``name`` is the folder's; runs loaded together have different ones. ``content`` is
    run.json, ``levels`` are in the order of the command, and ``trials`` and ``epochs`` as ``read_trials`` and
    ``read_epochs`` return them. ``problems`` says in a line each what could not be read: nothing is left out silently.
    """

    path: Path
    name: str
    status: RunStatus
    content: RunJson
    levels: tuple[str, ...]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    problems: tuple[str, ...]
    url: str | None = None

    @property
    def place(self) -> str:
        """Where the run is: its path, or its URL without passwords."""
        return str(self.path) if self.url is None else self.url

    def epochs_of(self, trial_ids: Sequence[str]) -> pd.DataFrame:
        """Return the rows of ``epochs/`` of some trials; they are read where the run was loaded without epochs."""
        if len(self.epochs):
            return self.epochs[self.epochs["trial_id"].isin(trial_ids)]
        folder = self.path / "epochs"
        names = [name for trial_id in trial_ids if (folder / (name := f"{trial_id}.parquet")).is_file()]
        return epoch_frame(read_parts(folder, epoch_schema(), names).table)


def load_run(path: str | Path) -> Run:
    """Read a run directory, or a run behind a URL, whatever state it is in.

    Part files that cannot be read are named in its ``problems``. A run that died before its first trial has frames
    without rows.

    Raises:
        InputError: If the folder is not a run, or run.json cannot be read or is of a newer schema.
    """
    found = _load_trials(local_copy(path, "trials", "epochs"), path)
    epochs, problems = _read_epochs(RunDirectory(found.path))
    return replace(found, epochs=epochs, problems=(*found.problems, *problems))


def load_trials(path: str | Path) -> Run:
    """Read a run without its epochs, which is much quicker; otherwise as ``load_run`` does."""
    return _load_trials(local_copy(path, "trials"), path)


def _load_trials(path: Path, place: str | Path) -> Run:
    # Without the ``..`` of a path, so that the folder's name is a name; a link keeps its own.
    run = RunDirectory(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() would follow the link
    content, status = read_status(run)
    trials, problems = _read_trials(run)
    return Run(
        path=run.path,
        name=run.path.name,
        status=status,
        content=content,
        levels=tuple(dict.fromkeys([*content.planned_trials, *trials["noise_level"]])),
        trials=trials,
        epochs=epoch_frame(epoch_schema().empty_table()),
        problems=tuple(problems),
        url=without_password(str(place)) if is_url(place) else None,
    )


def load_runs(paths: Sequence[str | Path]) -> tuple[Run, ...]:
    """Read several runs as ``load_run`` does, none twice.

    Runs of the same folder name are told apart by their parents.
    """
    places = [without_password(str(p)) if is_url(p) else Path(p).expanduser().resolve() for p in paths]
    for place in places:
        if places.count(place) > 1:
            raise InputError(f"every run can be given once, {place} is given twice; leave one of them out")
    runs = [load_run(path) for path in paths]
    names = _distinct([run.path for run in runs])
    return tuple(replace(run, name=name) for run, name in zip(runs, names, strict=True))


def _distinct(paths: Sequence[Path]) -> list[str]:
    """Name each path by its last parts, by as many as tell it from the others."""
    lengths = [1] * len(paths)
    while True:
        names = ["/".join(path.parts[-length:]) for path, length in zip(paths, lengths, strict=True)]
        shared = [i for i, name in enumerate(names) if names.count(name) > 1]
        if not shared:
            return names
        for i in shared:
            lengths[i] += 1


def row_runs_again(run: RunDirectory, trial_id: str, status: str) -> bool:
    """Return whether the trial of a row with this status is to run again or to go on, so that the row does not stand.

    This holds for an interrupted trial, and for one that ran out of memory beside others: its folder in
    ``checkpoints/`` stays.
    """
    return status == "interrupted" or (status == "out_of_memory" and (run.checkpoints / trial_id).is_dir())


def runs_again(run: RunDirectory, trials: pd.DataFrame) -> pd.Series[bool]:
    """Return ``row_runs_again`` for each row of ``trials/``."""
    import pandas as pd

    pairs = zip(trials["trial_id"], trials["status"], strict=True)
    return pd.Series([row_runs_again(run, *pair) for pair in pairs], index=trials.index, dtype=bool)


def read_status(run: RunDirectory) -> tuple[RunJson, RunStatus]:
    """Return run.json and where the run stands.

    If run.json says that the run goes on, its lock is asked, because a killed process says nothing.
    """
    content = run.read_json()
    if content.status != "running":
        return content, content.status
    if run.is_held():
        return content, "running"
    # The run may have ended between the two looks; run.json says so before the lock is released.
    content = run.read_json()
    return content, "crashed" if content.status == "running" else content.status


def _read(
    folder: Path, schema: pa.Schema, frame: Callable[[pa.Table], pd.DataFrame], what: str
) -> tuple[pd.DataFrame, list[str]]:
    """Read a folder of parts, each of which holds the ``what`` of its trial; a line says what is wrong with a part."""
    try:
        table, unread, _ = read_folder(folder, schema)
    except OSError as error:
        reason = f"{folder.name}/ cannot be read ({error.strerror}): the {what} of every trial is missing"
        return frame(schema.empty_table()), [reason]
    return frame(table), [
        _line(f"{folder.name}/{name} {reason}: the {what} of trial {Path(name).stem} is missing; {remedy}")
        for name, reason, remedy in unread
    ]


def _read_trials(run: RunDirectory) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of ``trials/`` that can be, each once, and a line for each problem."""
    trials, unread = _read(run.trials, trial_schema(), trial_frame, "row")
    trials, unsound = _sound(trials)
    trials, twice = _once(trials, "trials", ["trial_id"])
    return trials, [*unread, *unsound, *twice]


def _read_epochs(run: RunDirectory) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of ``epochs/``, each once, and a line for each problem."""
    epochs, unread = _read(run.epochs, epoch_schema(), epoch_frame, "epochs")
    epochs, twice = _once(epochs, "epochs", ["trial_id", "epoch"])
    return epochs, [*unread, *twice]


def _sound(trials: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the possible rows, and one line for each impossible one: analysis and resuming rely on these rules."""
    import pandas as pd

    rate, lr, warmup = trials["smooth_rate"], trials["lr"], trials["warmup_epochs"]
    metrics = [name for name in trials.columns if any(metric in name for metric in METRICS)]
    rules = {
        "arm": trials["arm"].map(_is_arm),
        "status": trials["status"].isin(STATUSES),
        "smooth_rate": (rate <= 1) & np.isfinite(rate),
        "lr": (lr > 0) & np.isfinite(lr),
        "warmup_epochs": (warmup >= 0) & (warmup < trials["config_epochs"]),
        "seed": trials["seed"] >= 0,
        **{name: trials[name].isna() | trials[name].between(0, 1) for name in metrics},
        **{f"{split}_correct_at_best": _bits_fit(trials, split) for split in ("val", "test")},
        **{name: _counts_fit(trials, name) for name in ("val_counts_at_best", "test_counts_at_best")},
        "configuration": _settings_hold(trials),
    }
    sound = pd.concat(rules, axis=1)
    wrong = [
        _line(f"trials/ has a row of trial {trials['trial_id'][i]} whose {row.idxmin()} cannot be: it is left out")
        for i, row in sound[~sound.all(axis=1)].iterrows()
    ]
    return trials[sound.all(axis=1)].reset_index(drop=True) if wrong else trials, wrong


def _is_arm(name: object) -> bool:
    """Say whether there can be an arm of a name."""
    return name in RATE_ARMS or name in LOSSES or (isinstance(name, str) and ":" in name)


def _settings_hold(trials: pd.DataFrame) -> pd.Series[bool]:
    """Say whether the columns ``config_...`` of each row are possible settings; most rows of a run have the same."""
    import pandas as pd

    names = [column_of(name) for name in TrainingSettings.model_fields if name not in OWN_COLUMNS]
    own = {name: TrainingSettings.model_fields[name].default for name in OWN_COLUMNS}

    @cache
    def hold(*values: object) -> bool:
        try:
            settings_of({**own, **dict(zip(names, values, strict=True))})
        except ValueError:
            return False
        return True

    columns = [[tuple(v) if isinstance(v, np.ndarray) else v for v in trials[name].tolist()] for name in names]
    return pd.Series([hold(*values) for values in zip(*columns, strict=True)], index=trials.index, dtype=bool)


def _bits_fit(trials: pd.DataFrame, split: str) -> pd.Series[bool]:
    """Say whether the bits of each row, where it has some, are as many as its samples, rounded up to whole bytes."""
    import pandas as pd

    pairs = zip(trials[f"{split}_correct_at_best"], trials[f"num_{split}"], strict=True)
    fit = [not isinstance(bits, bytes) or len(bits) == -(-number // 8) for bits, number in pairs]
    return pd.Series(fit, index=trials.index, dtype=bool)


def _counts_fit(trials: pd.DataFrame, column: str) -> pd.Series[bool]:
    """Say whether the counts by class of each row, where it has some, are three for each class and possible."""
    import pandas as pd

    pairs = zip(trials[column], trials["num_classes"], strict=True)
    fit = [counts is None or (len(counts) == 3 * classes and min(counts) >= 0) for counts, classes in pairs]
    return pd.Series(fit, index=trials.index, dtype=bool)


def _once(rows: pd.DataFrame, folder: str, key: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Leave out the rows that agree with an earlier one in the key; a line says how many there were."""
    again = rows.duplicated(key)
    if not again.any():
        return rows, []
    first = rows["trial_id"][again].iloc[0]
    line = f"{folder}/ has {again.sum()} rows twice, the first of trial {first}: they count once"
    return rows[~again].reset_index(drop=True), [_line(line)]


def _line(text: str) -> str:
    return " ".join(text.split())


def read_trials(run: str | Path) -> pd.DataFrame:
    """Return the trials of a run directory, or of a run behind a URL, one row each, in the order in which they started.

    The columns are those of ``trial_schema``. It works while the run goes on and after a crash. A part file that cannot
    be used is left out, and a warning of ``logging`` names it, once.

    Raises:
        InputError: If the folder is not a run.
    """
    return _with_warnings(RunDirectory(local_copy(run, "trials")).trials, _read_trials)


def read_epochs(run: str | Path) -> pd.DataFrame:
    """Return the epochs of a run, one row each, trial by trial, with the columns of ``epoch_schema``.

    Places, damaged parts and errors are as in ``read_trials``.
    """
    return _with_warnings(RunDirectory(local_copy(run, "epochs")).epochs, _read_epochs)


def _with_warnings(folder: Path, read: Callable[[RunDirectory], tuple[pd.DataFrame, list[str]]]) -> pd.DataFrame:
    if not folder.is_dir():
        raise InputError(f"{folder.parent} is not a run: it has no folder {folder.name}")
    frame, problems = read(RunDirectory(folder.parent))
    for problem in problems:
        _warn_once(f"{folder.parent}: {problem}")
    return frame


@cache
def _warn_once(line: str) -> None:
    _logger.warning("%s", line)


def trial_frame(table: pa.Table) -> pd.DataFrame:
    """Return rows of ``trial_schema`` in the order in which the trials started."""
    return _frame(table.sort_by([("started_at", "ascending"), ("trial_id", "ascending")]))


def epoch_frame(table: pa.Table) -> pd.DataFrame:
    """Return rows of ``epoch_schema`` trial by trial, epoch by epoch."""
    trial_ids, epochs = table["trial_id"], table["epoch"]
    before, after = slice(0, -1), slice(1, None)
    same = pc.equal(trial_ids[before], trial_ids[after])
    rising = pc.or_(pc.less(trial_ids[before], trial_ids[after]), pc.and_(same, pc.less(epochs[before], epochs[after])))
    # Parts are read by name, which is mostly this order already; sorting a million names takes a second.
    ordered = pc.all(rising).as_py() is not False
    return _frame(table if ordered else table.sort_by([("trial_id", "ascending"), ("epoch", "ascending")]))


def _frame(table: pa.Table) -> pd.DataFrame:
    return typing.cast("pd.DataFrame", table.to_pandas())
