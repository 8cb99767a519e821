"""The Parquet schemas: one row for each trial, one for each epoch, and what their columns hold."""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from nls_tune.runs.parts import VERSION_KEY
from nls_tune.spaces.settings import OWN_COLUMNS, TrainingSettings

#: A row of ``trials/`` or ``epochs/``: values by column.
Row = dict[str, Any]
SCHEMA_VERSION = 1


#: What a trial is for: the search, its confirmation, or its confirmation on all labels.
Stage = Literal["search", "confirm", "confirm_all"]
#: How a trial can end.
Status = Literal["completed", "stopped", "diverged", "out_of_memory", "failed", "interrupted"]
STATUSES: tuple[Status, ...] = typing.get_args(Status)


#: The stage of trials that a confirmation trains on all labels; they have no validation samples left.
ON_ALL_LABELS: Literal["confirm_all"] = "confirm_all"


_TIME = pa.timestamp("us", tz="UTC")


def _field(name: str, kind: pa.DataType, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


def _config_fields() -> list[pa.Field]:
    """One column for every training setting that has none of its own, with the type of its annotation."""
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    fields = []
    for name, info in TrainingSettings.model_fields.items():
        if name in OWN_COLUMNS:
            continue
        origin = typing.get_origin(info.annotation)
        if origin is tuple:
            kind: pa.DataType = pa.list_(pa.int64())
        elif origin is typing.Literal:
            kind = pa.string()
        else:
            kind = kinds[typing.cast("type", info.annotation)]
        fields.append(_field(f"config_{name}", kind))
    return fields


@cache
def trial_schema() -> pa.Schema:
    """Return the schema of ``trials/``; columns are nullable only where a value can be unknown."""
    text, whole, real = pa.string(), pa.int64(), pa.float64()
    fields = [
        _field("run_id", text),
        _field("trial_id", text),
        _field("stage", text),
        _field("arm", text),
        _field("dataset", text),
        _field("num_classes", whole),
        _field("noise_level", text),
        _field("noise_rate", real, nullable=True),
        _field("estimated_noise_rate", real, nullable=True),
        _field("noise_cancelling_rate", real, nullable=True),
        _field("smooth_rate", real),
        _field("warmup_epochs", whole),
        _field("lr", real),
        *_config_fields(),
        _field("seed", whole),
        _field("noise_seed", whole),
        _field("status", text),
        _field("error", text, nullable=True),
        _field("epochs", whole),
        _field("epochs_reused", whole),
        _field("best_epoch", whole, nullable=True),
        _field("best_val_accuracy", real, nullable=True),
        _field("test_accuracy_at_best", real, nullable=True),
        _field("last_val_accuracy", real, nullable=True),
        _field("last_test_accuracy", real, nullable=True),
        # Which of the run's slots the trial ran in: 0, 1, ...; null in rows of versions that did not know.
        _field("slot", whole, nullable=True),
        # How many samples the bits stand for: packing rounds up to whole bytes.
        _field("num_val", whole),
        _field("num_test", whole),
        _field("val_correct_at_best", pa.binary(), nullable=True),
        _field("test_correct_at_best", pa.binary(), nullable=True),
        _field("train_seconds", real),
        _field("wall_seconds", real),
        _field("device", text),
        _field("node", text),
        _field("started_at", _TIME),
        _field("finished_at", _TIME),
    ]
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION)})


@cache
def epoch_schema() -> pa.Schema:
    """Return the schema of ``epochs/``."""
    text, whole, real = pa.string(), pa.int64(), pa.float64()
    fields = [
        _field("run_id", text),
        _field("trial_id", text),
        _field("noise_level", text),
        _field("arm", text),
        _field("smooth_rate", real),
        _field("node", text),
        _field("device", text),
        _field("epoch", whole),
        _field("phase", text),
        _field("lr", real),
        _field("train_loss", real),
        _field("train_accuracy", real),
        _field("val_loss", real),
        _field("val_accuracy", real),
        _field("test_accuracy", real, nullable=True),
        _field("diverged", pa.bool_()),
        _field("seconds", real),
        _field("peak_memory_bytes", whole),
    ]
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION)})


def trial_id(fingerprint: str, noise_level: str, noise_seed: int, settings: TrainingSettings, stage: Stage) -> str:
    """Return the name of a trial: a hash of what it is, the same on every machine.

    Args:
        fingerprint: Fingerprint of the noisy dataset.
        noise_level: The noise level in its stored spelling.
        noise_seed: Seed of the noise.
        settings: Configuration and seed.
        stage: The stage that it belongs to.

    Returns:
        16 hexadecimal digits.
    """
    identity = [fingerprint, noise_level, noise_seed, settings.model_dump(mode="json"), stage]
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def settings_of(row: Mapping[Any, Any]) -> TrainingSettings:
    """Return the training settings that a row of ``trials/`` stands for."""
    values = {name: row[name if name in OWN_COLUMNS else f"config_{name}"] for name in TrainingSettings.model_fields}
    plain = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in values.items()}
    return TrainingSettings(**plain)


def config_columns(settings: TrainingSettings) -> Row:
    """Return the columns of ``trials/`` that hold the settings of a trial."""
    values = settings.model_dump(mode="json")
    return {name if name in OWN_COLUMNS else f"config_{name}": value for name, value in values.items()}


def unpack_correct(bits: bytes, num_samples: int) -> np.ndarray:
    """Return which samples were right, shape (num_samples,), bool, from the packed bits of a row."""
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=num_samples).astype(bool)
