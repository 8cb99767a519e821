import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nls_tune.runs.schemas import (
    SCHEMA_VERSION,
    config_columns,
    epoch_schema,
    settings_of,
    trial_id,
    trial_schema,
    unpack_correct,
)
from nls_tune.spaces.settings import OWN_COLUMNS, Later, TrainingSettings

CONFIG = [f"config_{name}" for name in TrainingSettings.model_fields if name not in OWN_COLUMNS]
READOUTS = [
    "readout", "plain_best_epoch", "plain_best_val_accuracy", "plain_test_accuracy_at_best", "average_best_epoch",
    "average_best_val_accuracy", "average_test_accuracy_at_best", "mirrored_test_accuracy",
]  # fmt: skip
OTHERS = ("balanced_accuracy", "macro_f1")
OTHER_METRICS = [
    *(
        f"{readout}{name}"
        for metric in OTHERS
        for readout in ("", "plain_", "average_")
        for name in (f"best_val_{metric}", f"test_{metric}_at_best")
    ),
    *(f"last_{split}_{metric}" for metric in OTHERS for split in ("val", "test")),
]
COUNTS = ["val_counts_at_best", "test_counts_at_best"]
TRIAL_COLUMNS = [
    "run_id", "trial_id", "stage", "arm", "dataset", "num_classes", "noise_level", "noise_rate",
    "estimated_noise_rate", "noise_cancelling_rate", "smooth_rate", "warmup_epochs", "lr", *CONFIG, "seed",
    "noise_seed", "status", "error", "epochs", "epochs_reused", "best_epoch", "best_val_accuracy",
    "test_accuracy_at_best", "last_val_accuracy", "last_test_accuracy", *READOUTS, *OTHER_METRICS, "slot", "num_val",
    "num_test",
    "val_correct_at_best", "test_correct_at_best", *COUNTS, "train_seconds", "wall_seconds", "device", "node",
    "started_at", "finished_at",
]  # fmt: skip
EPOCH_COLUMNS = [
    "run_id", "trial_id", "noise_level", "arm", "smooth_rate", "node", "device", "epoch", "phase", "lr",
    "train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_accuracy", "diverged", "seconds",
    "peak_memory_bytes", "average_val_accuracies", "val_balanced_accuracy", "test_balanced_accuracy",
    "val_macro_f1", "test_macro_f1", "average_val_balanced_accuracies", "average_val_macro_f1s",
]  # fmt: skip
NULLABLE = {
    "noise_rate", "estimated_noise_rate", "noise_cancelling_rate", "error", "best_epoch", "best_val_accuracy",
    "test_accuracy_at_best", "last_val_accuracy", "last_test_accuracy", *READOUTS, *OTHER_METRICS, *COUNTS, "slot",
    "val_correct_at_best", "test_correct_at_best", "config_warmup_momentum", "config_warmup_weight_decay",
    "config_weights",
}  # fmt: skip


def test_the_columns_are_those_of_the_contract():
    assert trial_schema().names == TRIAL_COLUMNS
    assert epoch_schema().names == EPOCH_COLUMNS
    for schema in (trial_schema(), epoch_schema()):
        assert schema.metadata[b"nls_tune.schema_version"] == str(SCHEMA_VERSION).encode()
    assert {f.name for f in trial_schema() if f.nullable} == NULLABLE
    others = {f"{split}_{metric}" for split in ("val", "test") for metric in OTHERS}
    assert {f.name for f in epoch_schema() if f.nullable} == {"test_accuracy", *others}
    schema = trial_schema()
    kinds = {"config_model": pa.string(), "config_schedule": pa.string(), "config_epochs": pa.int64(),
             "config_nesterov": pa.bool_(), "config_gamma": pa.float64(), "seed": pa.int64(),
             "config_milestones": pa.list_(pa.int64())}  # fmt: skip
    assert {name: schema.field(name).type for name in kinds} == kinds


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_padding_is_cut_off_when_bits_are_unpacked(correct):
    bits = np.packbits(np.array(correct)).tobytes()
    assert unpack_correct(bits, len(correct)).tolist() == correct


positive = st.floats(1e-12, 1e6)


@st.composite
def training_settings(draw: st.DrawFn) -> TrainingSettings:
    epochs = draw(st.integers(1, 500))
    momentum = draw(st.floats(0, 0.999))
    milestones = st.lists(st.integers(1, 500), max_size=3).map(tuple)
    return TrainingSettings(
        model=draw(st.sampled_from(["mlp", "resnet34", ""])),
        epochs=epochs,
        smooth_rate=draw(st.floats(-1e6, 1)),
        warmup_epochs=draw(st.integers(0, epochs - 1)),
        lr=draw(positive),
        schedule=draw(st.sampled_from(["constant", "step", "cosine"])),
        milestones=draw(milestones),
        gamma=draw(positive),
        warmup_lr=draw(positive),
        warmup_milestones=draw(milestones),
        warmup_gamma=draw(positive),
        warmup_momentum=draw(st.none() | st.floats(0, 0.999)),
        warmup_weight_decay=draw(st.none() | st.floats(0, 10)),
        warmup_from=draw(st.sampled_from(["last", "best"])),
        optimizer=draw(st.sampled_from(["sgd", "adamw"])),
        momentum=momentum,
        nesterov=draw(st.booleans()) and momentum > 0,
        weight_decay=draw(st.floats(0, 10)),
        batch_size=draw(st.integers(2, 10**6)),
        crop_padding=draw(st.integers(0, 99)),
        flip=draw(st.booleans()),
        cutout=draw(st.integers(0, 99)),
        clip_norm=draw(st.floats(0, 99)),
        precision=draw(st.sampled_from(["auto", "float32", "bfloat16"])),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


@given(training_settings())
def test_settings_come_back_from_a_row(settings):
    schema = pa.schema([f for f in trial_schema() if f.name in config_columns(settings)])
    frame = pa.Table.from_pylist([config_columns(settings)], schema=schema).to_pandas()
    assert settings_of(frame.to_dict("records")[0]) == settings
    assert settings_of(frame.iloc[0]) == settings
    assert len(config_columns(settings)) == len(TrainingSettings.model_fields)


SETTINGS = TrainingSettings(model="mlp", smooth_rate=-4.0, milestones=(3,))
IDENTITY = ("f" * 64, "symmetric:0.4", 0, SETTINGS, "search")


@pytest.mark.parametrize("rate", [-4, -4.0, "-4"])
def test_a_trials_name_is_the_same_for_ever_however_a_number_was_written(rate):
    settings = TrainingSettings(model="mlp", smooth_rate=rate, milestones=[3])
    # If this changes, runs that were begun before cannot be resumed: raise the schema version.
    assert trial_id(*IDENTITY[:3], settings, "search") == "db47f5ef47436871"


class Newer(TrainingSettings):
    """The settings of a version that has one more."""

    cooldown: Later[float] = 0.5


def test_a_setting_that_came_later_leaves_the_names_of_trials_as_they_were_while_it_has_its_default():
    newer = Newer(**SETTINGS.model_dump())
    assert "cooldown" not in newer.identity()
    assert trial_id(*IDENTITY[:3], newer, "search") == trial_id(*IDENTITY)
    assert trial_id(*IDENTITY[:3], newer.model_copy(update={"cooldown": 1.0}), "search") != trial_id(*IDENTITY)


def test_a_trials_name_changes_with_its_data_its_stage_and_every_setting():
    changes = {
        "model": "cnn9", "epochs": 7, "smooth_rate": -4.1, "warmup_epochs": 3, "lr": 0.5, "schedule": "step",
        "milestones": (4,), "gamma": 0.5, "warmup_lr": 0.5, "warmup_milestones": (1,), "warmup_gamma": 0.5,
        "optimizer": "adamw", "momentum": 0.5, "nesterov": False, "weight_decay": 0.5, "batch_size": 7,
        "crop_padding": 1, "flip": True, "cutout": 1, "clip_norm": 1.0, "precision": "float32", "seed": 1,
        "norm_bias_lr_factor": 64.0, "padding_mode": "reflect", "alternate_flip": True, "average_spans": (0.5,),
        "warmup_momentum": 0.5, "warmup_weight_decay": 0.5, "warmup_from": "best",
        "weights": "default", "freeze": True, "class_weights": "balanced",
        "loss": "elr", "transition": "true_noise", "bootstrap_kind": "soft", "gce_q": 0.25, "sce_alpha": 0.25,
        "sce_beta": 0.25, "nce_rce_alpha": 0.25, "nce_rce_beta": 0.25, "elr_lambda": 0.25, "elr_beta": 0.25,
        "ce_eps_mae_alpha": 0.25, "ce_eps_mae_beta": 0.25, "ce_eps_mae_m": 0.25, "bootstrap_beta": 0.25,
    }  # fmt: skip
    assert set(changes) == set(TrainingSettings.model_fields)
    others = [(3, SETTINGS.model_copy(update={name: value})) for name, value in changes.items()]
    others += [(0, "e" * 64), (1, "symmetric:0.2"), (2, 1), (4, "confirm")]
    names = {trial_id(*IDENTITY)} | {trial_id(*IDENTITY[:i], other, *IDENTITY[i + 1 :]) for i, other in others}
    assert len(names) == 1 + len(others)
