"""TensorBoard event files of trials: one curve per metric, and the hyperparameters with the metrics at the end.

The search (``--tensorboard``) and ``nls-tune export tensorboard`` write them with the same code.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nls_tune.errors import InputError
from nls_tune.export.optuna_journal import searched_parameters
from nls_tune.spaces.settings import column_of

if TYPE_CHECKING:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    from nls_tune.runs import Run

#: Tag of a curve by column of ``epochs/``.
TAGS = {
    "val_accuracy": "accuracy/val",
    "test_accuracy": "accuracy/test",
    "train_accuracy": "accuracy/train",
    "val_balanced_accuracy": "balanced_accuracy/val",
    "test_balanced_accuracy": "balanced_accuracy/test",
    "val_macro_f1": "macro_f1/val",
    "test_macro_f1": "macro_f1/test",
    "val_loss": "loss/val",
    "train_loss": "loss/train",
    "lr": "lr",
}
#: Columns of ``trials/`` that TensorBoard shows as the metrics of a set of hyperparameters.
METRICS = (
    "best_val_accuracy", "test_accuracy_at_best", "last_val_accuracy", "last_test_accuracy", "best_epoch",
    "best_val_balanced_accuracy", "test_balanced_accuracy_at_best", "best_val_macro_f1", "test_macro_f1_at_best",
)  # fmt: skip
#: Columns of ``trials/`` that are hyperparameters beside the searched settings.
_CONTEXT = ("noise_level", "arm", "stage", "seed", "status")
_NAME_LENGTH = 100
#: TensorBoard's status of a session by the status of a trial; an interrupted trial has not ended.
_SESSION_STATUS = {
    **dict.fromkeys(("completed", "stopped"), "STATUS_SUCCESS"),
    **dict.fromkeys(("diverged", "out_of_memory", "failed"), "STATUS_FAILURE"),
}


def event_file(folder: Path, row: Mapping[Any, Any]) -> Path:
    """Return the path of a trial's event file below TensorBoard's folder; it changes when the trial runs again."""
    stage = row["stage"]
    name = row["trial_id"] if stage == "search" else f"{stage}-{row['trial_id']}"
    place = folder / _file_name(row["noise_level"]) / _file_name(row["arm"]) / _file_name(name)
    return place / f"events.out.tfevents.{_seconds(row['finished_at']):.6f}"


def write_trial_events(
    folder: Path, row: Mapping[Any, Any], epochs: Sequence[Mapping[Any, Any]], searched: Sequence[str]
) -> Path:
    """Write or replace the event file of a trial: ``LEVEL/ARM/TRIAL``, outside the search ``LEVEL/ARM/STAGE-TRIAL``.

    ``folder`` is TensorBoard's (``--logdir``); ``row`` and ``epochs`` are the trial's rows, and ``searched`` names the
    training settings that become hyperparameters. The file appears whole, by rename, or an OSError.
    """
    from tensorboardX.record_writer import RecordWriter

    file = event_file(folder, row)
    place = file.parent
    place.mkdir(parents=True, exist_ok=True)
    # Without tfevents in its name: TensorBoard opens every file that has it.
    temporary = place / f".{os.getpid()}.tmp"
    try:
        writer = RecordWriter(str(temporary))
        for event in _events(row, epochs, searched):
            writer.write(event.SerializeToString())
        writer.close()
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    for other in place.glob("events.out.tfevents.*"):
        if other != file:
            other.unlink()  # from before the trial ran again
    return file


def _events(row: Mapping[Any, Any], epochs: Sequence[Mapping[Any, Any]], searched: Sequence[str]) -> list[Event]:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import hparams

    time, finished_at = _seconds(row["started_at"]), _seconds(row["finished_at"])
    metrics = {name: row[name] for name in METRICS if _is_number(row[name])}
    parameters = {name: row[column_of(name)] for name in searched}
    parameters |= {name: row[name] for name in _CONTEXT}
    experiment, start, end = hparams(
        {name: _plain(value) for name, value in parameters.items()}, dict.fromkeys(METRICS)
    )
    # The version comes first: without it TensorBoard takes the file for one in an old format.
    events = [Event(wall_time=time, file_version="brain.Event:2")]
    events += [Event(wall_time=time, summary=summary) for summary in (experiment, start)]
    for epoch in epochs:
        time += epoch["seconds"] if math.isfinite(epoch["seconds"]) else 0.0
        values = [
            Summary.Value(tag=tag, simple_value=epoch[column])
            for column, tag in TAGS.items()
            # A loss that is not finite shows that the trial diverged; an accuracy that is not, that none was measured.
            if epoch[column] is not None and (column.endswith("loss") or _is_number(epoch[column]))
        ]
        events.append(Event(wall_time=time, step=epoch["epoch"], summary=Summary(value=values)))
    final = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
    events.append(Event(wall_time=finished_at, step=row["epochs"], summary=Summary(value=final)))
    events.append(Event(wall_time=finished_at, summary=_with_status(end, row["status"])))
    return events


def _with_status(end: Summary, status: str) -> Summary:
    """Correct the end of a session: tensorboardX makes every one a success."""
    from tensorboardX.proto.api_pb2 import Status
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    plugin = end.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin.content)
    content.session_end_info.status = Status.Value(_SESSION_STATUS.get(status, "STATUS_UNKNOWN"))
    plugin.content = content.SerializeToString()
    return end


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _plain(value: Any) -> Any:
    """Return a hyperparameter in a form that TensorBoard takes: a number, a truth value or text."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return value if isinstance(value, bool | int | float | str) else str(value)


def _seconds(time: Any) -> float:
    """Return the seconds since 1970; 0 for an unknown time."""
    return 0.0 if time is None or time != time else time.timestamp()


def _file_name(text: str) -> str:
    """Return a text as the name of one folder: levels may hold paths, and text from files is not to be trusted."""
    return re.sub(r"^\.+|[^\w.:=+-]", "_", str(text))[:_NAME_LENGTH] or "_"


def export_tensorboard(run: Run, folder: str | Path, *, overwrite: bool = False) -> int:
    """Write the trials of a run, the confirmation's included, by ``write_trial_events``; return their number.

    With ``overwrite`` the folder may hold something; trials that are there already are replaced.

    Raises:
        InputError: If the folder is a file, holds something and may not be written to, or cannot be written.
    """
    folder = Path(folder).expanduser().absolute()
    try:
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not overwrite)):
            raise InputError(f"{folder} must be a new or empty folder; give another one, or --overwrite")
        folder.mkdir(parents=True, exist_ok=True)
        epochs = {trial_id: rows.to_dict("records") for trial_id, rows in run.epochs.groupby("trial_id")}
        searched = list(searched_parameters(run))
        for row in run.trials.to_dict("records"):
            write_trial_events(folder, row, epochs.get(row["trial_id"], []), searched)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}); give another place") from None
    return len(run.trials)
