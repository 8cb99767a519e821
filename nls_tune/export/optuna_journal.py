"""A run as an Optuna journal, for ``optuna-dashboard`` and for Optuna itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from nls_tune.errors import InputError
from nls_tune.files import write_atomically
from nls_tune.runs.schemas import objective_columns
from nls_tune.spaces.parameters import ChoiceParameter, IntParameter, Parameter
from nls_tune.spaces.settings import TrainingSettings, column_of, ordered_arms

if TYPE_CHECKING:
    import pandas as pd
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from nls_tune.runs import Run

#: The settings that every search varies, for a run whose run.json does not say what it varied.
_ALWAYS_SEARCHED = ("smooth_rate", "warmup_epochs", "lr")
#: Columns of ``trials/`` that become user attributes of an Optuna trial.
_ATTRIBUTES = (
    "trial_id", "status", "error", "seed", "noise_seed", "epochs", "epochs_reused", "best_epoch", "best_val_accuracy",
    "test_accuracy_at_best", "last_val_accuracy", "last_test_accuracy", "train_seconds", "wall_seconds", "device",
    "node",
)  # fmt: skip


def export_optuna(run: Run, file: str | Path, *, overwrite: bool = False) -> dict[str, int]:
    """Write the search trials of a run as an Optuna journal.

    Every noise level and arm is a study of its own, named ``RUN LEVEL ARM``, which maximises the run's metric on
    validation.
    Parameters keep their own scale (Optuna has none that is uniform in ``log(1 - r)``). A trial is COMPLETE, PRUNED if
    ASHA or the time budget stopped it, and FAIL if it diverged, failed, ran out of memory or was interrupted; its
    intermediate values are those of its epochs. Trials that still run have no row and are left out.

    The journal appears whole, by rename; an existing one is replaced only with ``overwrite``. Returned is the number of
    trials by study, including planned groups that have none yet.

    Raises:
        InputError: If the file exists and may not be replaced, is not an Optuna journal, or cannot be written.
    """
    file = Path(file).expanduser()
    _check_replaceable(file, overwrite)
    logs, counts = _journal(run)
    lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]  # as Optuna's own backend writes them
    try:
        write_atomically(file, "".join(lines).encode())
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror}); give another place") from None
    return counts


def _check_replaceable(file: Path, overwrite: bool) -> None:
    """Raise an InputError unless the file is new, or a journal that may be overwritten."""
    if not file.exists():
        return
    if not overwrite:
        raise InputError(f"{file} exists already; give another file, or --overwrite")
    try:
        with file.open(encoding="utf-8") as lines:
            first = lines.readline()
        is_journal = not first or "op_code" in json.loads(first)
    except (OSError, ValueError, TypeError):
        is_journal = False
    if not is_journal:
        raise InputError(f"--overwrite replaces only Optuna journals, {file} is something else; give another file")


def _journal(run: Run) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the log entries of the journal, and the number of trials by study."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import BaseJournalBackend

    class Memory(BaseJournalBackend):
        """Collects the log, because the file's own backend syncs the disk after every entry."""

        def __init__(self) -> None:
            self.logs: list[dict[str, Any]] = []

        def read_logs(self, log_number_from: int) -> Sequence[dict[str, Any]]:
            return self.logs[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self.logs += logs

    memory, counts = Memory(), {}
    storage = JournalStorage(memory)
    search = run.trials[run.trials["stage"] == "search"]
    columns = objective_columns(run.content.metric)
    curves = _curves(run.epochs, columns.epoch_val)
    parameters = searched_parameters(run)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        for level, arm in _groups(run, search):
            rows = search[(search["noise_level"] == level) & (search["arm"] == arm)].to_dict("records")
            name = f"{run.name} {level} {arm}"
            study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
            study.add_trials(_frozen_trials(rows, arm, parameters, curves, columns.best_val))
            counts[name] = len(rows)
    finally:
        optuna.logging.set_verbosity(before)
    return memory.logs, counts


def _groups(run: Run, search: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the noise levels and arms that are planned or have trials, levels in the order of the command."""
    found = set(zip(search["noise_level"], search["arm"], strict=True))
    found |= {(level.noise_level, arm) for level in run.content.plan for arm in level.trials}
    arms = ordered_arms(arm for _, arm in found)
    return [(level, arm) for level in run.levels for arm in arms if (level, arm) in found]


def _curves(epochs: pd.DataFrame, column: str) -> dict[str, dict[int, float]]:
    """Return the validation values by trial and epoch."""
    curves: dict[str, dict[int, float]] = {}
    columns = (epochs[name].tolist() for name in ("trial_id", "epoch", column))
    for trial_id, epoch, accuracy in zip(*columns, strict=True):
        if math.isfinite(accuracy):
            curves.setdefault(trial_id, {})[epoch] = accuracy
    return curves


def searched_parameters(run: Run) -> dict[str, Parameter | None]:
    """Return the parameters that a run searched, by name; None where run.json does not say how one varied."""
    space = run.content.searched
    if not space:
        return dict.fromkeys(_ALWAYS_SEARCHED)
    adapter: TypeAdapter[Parameter] = TypeAdapter(Parameter)
    found: dict[str, Parameter | None] = {}
    for name, value in space.items():
        if name in TrainingSettings.model_fields:
            try:
                found[name] = adapter.validate_python(value)
            except ValidationError:
                found[name] = None
    return found


def _frozen_trials(
    rows: Sequence[Mapping[Any, Any]],
    arm: str,
    parameters: Mapping[str, Parameter | None],
    curves: Mapping[str, Mapping[int, float]],
    objective: str,
) -> list[FrozenTrial]:
    values = [{name: _plain(row[column_of(name)]) for name in parameters} for row in rows]
    distributions = {}
    for name, parameter in parameters.items():
        known = [found[name] for found in values if found[name] is not None]
        if known:
            distributions[name] = _distribution(name, parameter, arm, known)
    return [
        _frozen_trial(row, found, distributions, curves.get(row["trial_id"], {}), objective)
        for row, found in zip(rows, values, strict=True)
    ]


def _plain(value: Any) -> Any:
    """Return a value in a form that Optuna takes: lists as text, None for an unknown value."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        return json.dumps(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _distribution(name: str, parameter: Parameter | None, arm: str, values: Sequence[Any]) -> BaseDistribution:
    """Return the distribution of a parameter in an arm, widened by values outside; without one, that of the values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, ChoiceParameter) or any(isinstance(value, str | bool) for value in values):
        listed = [_plain(v) for v in parameter.values] if isinstance(parameter, ChoiceParameter) else []
        return CategoricalDistribution(list(dict.fromkeys([*listed, *values])))
    ends = list(values)
    if parameter is not None:
        low, high = parameter.low, parameter.high
        if name == "smooth_rate":
            signs = {"positive": (max(low, 0.0), high), "negative": (low, min(high, 0.0))}
            low, high = signs.get(arm, (0.0, 0.0))
        ends += [low, high]
    low, high = min(ends), max(ends)
    log = parameter is not None and parameter.scale == "log" and low > 0
    if all(isinstance(end, int) for end in ends):
        step = parameter.step if isinstance(parameter, IntParameter) else 1
        fits = not log and all((end - low) % step == 0 for end in ends)
        return IntDistribution(low, high, log=log, step=step if fits else 1)
    return FloatDistribution(low, high, log=log)


def _frozen_trial(
    row: Mapping[Any, Any],
    values: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    curve: Mapping[int, float],
    objective: str,
) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    value, best = _plain(row[objective]), _plain(row["best_epoch"])
    state = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}.get(row["status"], TrialState.FAIL)
    if value is None and state == TrialState.COMPLETE:
        state = TrialState.FAIL  # Optuna takes no complete trial without a value
    known = {name: found for name, found in values.items() if found is not None}
    trial = create_trial(
        state=state,
        value=None if state == TrialState.FAIL else value,
        params=known,
        distributions={name: distributions[name] for name in known},
        user_attrs={name: _plain(row[name]) for name in _ATTRIBUTES} | {"best_epoch": best and int(best)},
        intermediate_values=dict(curve),
    )
    trial.datetime_start, trial.datetime_complete = _time(row["started_at"]), _time(row["finished_at"])
    return trial


def _time(value: Any) -> datetime:
    """Return a time of a row; 1970 if it is unknown, because Optuna needs one."""
    found = None if value != value else value.to_pydatetime(warn=False)  # NaT differs from itself
    return datetime.fromtimestamp(0, UTC) if found is None else found
