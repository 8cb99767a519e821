"""The Parquet schemas: one row for each trial, one for each epoch, and what their columns hold."""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from nls_tune.metrics import AVERAGES, METRICS, Metric
from nls_tune.runs.parts import DEFAULT_KEY, VERSION_KEY
from nls_tune.spaces.settings import OWN_COLUMNS, TrainingSettings, column_of

#: A row of ``trials/`` or ``epochs/``: values by column.
Row = dict[str, Any]
SCHEMA_VERSION = 1

#: What a trial is for: the search, its confirmation, its confirmation on all labels, or the sweep over rates: first
#: the settings of each rate, then fresh seeds.
Stage = Literal["search", "confirm", "confirm_all", "sweep_search", "sweep"]
#: How a trial can end.
Status = Literal["completed", "stopped", "diverged", "out_of_memory", "failed", "interrupted"]
STATUSES: tuple[Status, ...] = typing.get_args(Status)
#: The stage of trials that a confirmation trains on all labels; they have no validation samples left.
ON_ALL_LABELS: Literal["confirm_all"] = "confirm_all"

_TIME = pa.timestamp("us", tz="UTC")


def _fields(kind: pa.DataType, *names: str, nullable: bool = False) -> list[pa.Field]:
    return [pa.field(name, kind, nullable=nullable) for name in names]


def _later(field: pa.Field, default: object) -> pa.Field:
    """Return a column that early versions did not write, with its value in their rows."""
    return field.with_metadata({DEFAULT_KEY: json.dumps(default)})


def _config_fields() -> list[pa.Field]:
    """One column for every training setting that has none of its own, with the type of its annotation."""
    kinds: dict[Any, pa.DataType] = {
        str: pa.string(), Literal: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(),
    }  # fmt: skip
    later, found = TrainingSettings.later_defaults(), []
    for name, info in TrainingSettings.model_fields.items():
        if name in OWN_COLUMNS:
            continue
        kind: Any = info.annotation
        nullable = typing.get_origin(kind) in (typing.Union, types.UnionType)
        kind = typing.get_args(kind)[0] if nullable else kind  # ``float | None`` is a float that may be missing
        if typing.get_origin(kind) is tuple:
            element = typing.get_args(typing.get_args(kind)[0])[0]  # of ``tuple[Annotated[float, ...], ...]``
            column = pa.list_(kinds[element])
        else:
            column = kinds[typing.get_origin(kind) or kind]
        field = pa.field(column_of(name), column, nullable)
        found.append(_later(field, later[name]) if name in later else field)
    return found


@cache
def trial_schema() -> pa.Schema:
    """Return the schema of ``trials/``; columns are nullable only where a value can be unknown."""
    text, whole, real = pa.string(), pa.int64(), pa.float64()
    fields = [
        *_fields(text, "run_id", "trial_id", "stage", "arm", "dataset"),
        *_fields(whole, "num_classes"),
        *_fields(text, "noise_level"),
        *_fields(real, "noise_rate", "estimated_noise_rate", "noise_cancelling_rate", nullable=True),
        *_fields(real, "smooth_rate"),
        *_fields(whole, "warmup_epochs"),
        *_fields(real, "lr"),
        *_config_fields(),
        *_fields(whole, "seed", "noise_seed"),
        *_fields(text, "status"),
        *_fields(text, "error", nullable=True),
        *_fields(whole, "epochs", "epochs_reused"),
        *_fields(whole, "best_epoch", nullable=True),
        *_fields(real, "best_val_accuracy", "test_accuracy_at_best", nullable=True),
        *_fields(real, "last_val_accuracy", "last_test_accuracy", nullable=True),
        # The best weights, ``plain`` or ``average:SPAN``; then what plain and averaged ones reach on their own.
        _later(pa.field("readout", text), None),
        *(
            _later(pa.field(f"{readout}_{name}", whole if name == "best_epoch" else real), None)
            for readout in ("plain", "average")
            for name in ("best_epoch", "best_val_accuracy", "test_accuracy_at_best")
        ),
        _later(pa.field("mirrored_test_accuracy", real), None),
        # The other metrics, named as those of accuracy are; null where an early version wrote the row.
        *(
            _later(pa.field(f"{readout}{name}", real), None)
            for metric in METRICS[1:]
            for readout in ("", "plain_", "average_")
            for name in (f"best_val_{metric}", f"test_{metric}_at_best")
        ),
        *(
            _later(pa.field(f"last_{split}_{metric}", real), None)
            for metric in METRICS[1:]
            for split in ("val", "test")
        ),
        # Which of the run's slots the trial ran in: 0, 1, ...
        _later(pa.field("slot", whole), None),
        # How many samples the bits stand for: packing rounds up to whole bytes.
        *_fields(whole, "num_val", "num_test"),
        *_fields(pa.binary(), "val_correct_at_best", "test_correct_at_best", nullable=True),
        # 3 K counts by class at the best epoch: samples with its label, predicted as it, and both.
        *(_later(pa.field(f"{split}_counts_at_best", pa.list_(pa.int64())), None) for split in ("val", "test")),
        *_fields(real, "train_seconds", "wall_seconds"),
        *_fields(text, "device", "node"),
        *_fields(_TIME, "started_at", "finished_at"),
    ]
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION)})


@cache
def epoch_schema() -> pa.Schema:
    """Return the schema of ``epochs/``."""
    text, whole, real = pa.string(), pa.int64(), pa.float64()
    fields = [
        *_fields(text, "run_id", "trial_id", "noise_level", "arm"),
        *_fields(real, "smooth_rate"),
        *_fields(text, "node", "device"),
        *_fields(whole, "epoch"),
        *_fields(text, "phase"),
        *_fields(real, "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
        *_fields(real, "test_accuracy", nullable=True),
        *_fields(pa.bool_(), "diverged"),
        *_fields(real, "seconds"),
        *_fields(whole, "peak_memory_bytes"),
        _later(pa.field("average_val_accuracies", pa.list_(real), nullable=False), []),
        *(_later(pa.field(f"{split}_{metric}", real), None) for metric in METRICS[1:] for split in ("val", "test")),
        *(_later(pa.field(AVERAGES[metric], pa.list_(real), nullable=False), []) for metric in METRICS[1:]),
    ]
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION)})


class Columns(NamedTuple):
    """The columns of ``trials/`` and ``epochs/`` that hold the metric of a run."""

    best_val: str
    test_at_best: str
    last_val: str
    last_test: str
    epoch_val: str
    epoch_test: str
    average_test: str


def objective_columns(metric: Metric = "accuracy") -> Columns:
    """Return the columns of a metric: the one place that says by what a run selects."""
    return Columns(
        best_val=f"best_val_{metric}",
        test_at_best=f"test_{metric}_at_best",
        last_val=f"last_val_{metric}",
        last_test=f"last_test_{metric}",
        epoch_val=f"val_{metric}",
        epoch_test=f"test_{metric}",
        average_test=f"average_test_{metric}_at_best",
    )


def trial_id(fingerprint: str, noise_level: str, noise_seed: int, settings: TrainingSettings, stage: Stage) -> str:
    """Return the name of a trial, 16 hexadecimal digits: a hash of what it is, the same on every machine.

    ``fingerprint`` is that of the noisy dataset; ``noise_level`` is in its stored spelling.
    """
    identity = [fingerprint, noise_level, noise_seed, settings.identity(), stage]
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def settings_of(row: Mapping[Any, Any]) -> TrainingSettings:
    """Return the training settings that a row of ``trials/`` stands for."""
    values = {name: row[column_of(name)] for name in TrainingSettings.model_fields}
    plain = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in values.items()}
    # pandas has NaN for null; no setting may be NaN
    return TrainingSettings(**{k: None if v != v else v for k, v in plain.items()})


def config_columns(settings: TrainingSettings) -> Row:
    """Return the columns of ``trials/`` that hold the settings of a trial."""
    values = settings.model_dump(mode="json")
    return {column_of(name): value for name, value in values.items()}


def unpack_correct(bits: bytes, num_samples: int) -> np.ndarray:
    """Return which samples were right, shape (num_samples,), bool, from the packed bits of a row."""
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=num_samples).astype(bool)
