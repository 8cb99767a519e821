"""TensorBoard event files, read with TensorBoard's own reader."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import write_fake_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata
from trial_rows import trial_row

from nls_tune.cli.exit import run_app
from nls_tune.cli.main import app
from nls_tune.errors import InputError
from nls_tune.export.tensorboard import METRICS, TAGS, export_tensorboard, write_trial_events
from nls_tune.runs import load_run
from nls_tune.runs.schemas import STATUSES

EPOCH = {
    "lr": 0.1, "train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5, "test_accuracy": None,
    "seconds": 2.0, "val_balanced_accuracy": 0.25, "test_balanced_accuracy": None, "val_macro_f1": 0.125,
    "test_macro_f1": None,
}  # fmt: skip


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


def hyperparameters(events: EventAccumulator) -> dict[str, object]:
    plugin = events.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    found = metadata.parse_session_start_info_plugin_data(plugin).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fake") / "run"
    return write_fake_run(path, levels=("clean", "symmetric:0.4"), trials=6, epochs=5, confirm_seeds=1)


def test_curves_and_hyperparameters_are_those_of_parquet(fake, tmp_path, capsys):
    folder = tmp_path / "tb"
    assert run_app(app, ["export", "tensorboard", str(fake), str(folder)]) == 0
    trials = pd.read_parquet(fake / "trials").set_index("trial_id")
    epochs = pd.read_parquet(fake / "epochs")
    assert capsys.readouterr().out.startswith(f"{len(trials)} trials\n")
    files = list(folder.rglob("*tfevents*"))
    assert len(files) == len(trials) > 12
    for file in files:
        level, arm, name = file.relative_to(folder).parts[:3]
        row = trials.loc[name.rpartition("-")[2]]
        assert (level, arm) == (row["noise_level"], row["arm"])
        assert name.startswith("confirm-") == (row["stage"] == "confirm")
        events = read(file.parent)
        curve = epochs[epochs["trial_id"] == row.name].sort_values("epoch")
        for column, tag in TAGS.items():
            scalars = events.Scalars(tag)
            assert [s.step for s in scalars] == curve["epoch"].tolist()
            np.testing.assert_array_equal([s.value for s in scalars], curve[column].to_numpy(np.float32))
            assert scalars[0].wall_time == pytest.approx(row["started_at"].timestamp() + curve["seconds"].iloc[0])
        for metric in METRICS:
            (scalar,) = events.Scalars(metric)
            assert (scalar.step, scalar.value) == (row["epochs"], np.float32(row[metric]))
        assert hyperparameters(events) == {
            k: row[k] for k in ("smooth_rate", "warmup_epochs", "lr", "noise_level", "arm", "stage", "seed", "status")
        }
        experiment = events.summary_metadata[metadata.EXPERIMENT_TAG].plugin_data.content
        listed = metadata.parse_experiment_plugin_data(experiment)
        assert {info.name.tag for info in listed.metric_infos} == set(METRICS)
        assert {info.name for info in listed.hparam_infos} == set(hyperparameters(events))


def test_a_trial_that_ran_again_replaces_its_file(tmp_path):
    row = trial_row({"smooth_rate": -1.0, "milestones": (3,)}, status="interrupted", best_val_accuracy=None)
    first = write_trial_events(tmp_path, row, [{**EPOCH, "epoch": 1}], ["lr", "milestones", "nesterov"])
    later = trial_row({"smooth_rate": -1.0, "milestones": (3,)}, minute=1)
    second = write_trial_events(tmp_path, later, [{**EPOCH, "epoch": i} for i in (1, 2)], ["lr", "milestones"])
    assert second != first
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [second]
    events = read(second.parent)
    assert [s.step for s in events.Scalars("accuracy/val")] == [1, 2]
    assert hyperparameters(events)["milestones"] == "[3]"


@pytest.mark.parametrize("status", STATUSES)
def test_only_a_trial_that_came_to_its_end_is_a_success(status, tmp_path):
    row = trial_row(status=status, error="x", best_val_accuracy=None, best_epoch=None)
    epochs = [{**EPOCH, "epoch": 1}, {**EPOCH, "epoch": 2, "train_loss": math.nan, "val_accuracy": math.nan}]
    events = read(write_trial_events(tmp_path, row, epochs, ["lr"]).parent)
    end = events.summary_metadata[metadata.SESSION_END_INFO_TAG].plugin_data.content
    found = api_pb2.Status.Name(metadata.parse_session_end_info_plugin_data(end).status)
    good = {"completed": "STATUS_SUCCESS", "stopped": "STATUS_SUCCESS", "interrupted": "STATUS_UNKNOWN"}
    assert found == good.get(status, "STATUS_FAILURE")
    # Divergence shows in the loss, and a missing test set nowhere.
    assert math.isnan(events.Scalars("loss/train")[1].value)
    assert [s.step for s in events.Scalars("accuracy/val")] == [1]
    assert not {"accuracy/test", "best_val_accuracy"} & set(events.Tags()["scalars"])
    assert hyperparameters(events)["status"] == status


@pytest.mark.parametrize("level", ["../../..", "", "x" * 300, "\x1b[31m\n"])
def test_names_from_files_stay_in_the_folder(level, tmp_path):
    folder = tmp_path / "tb"
    file = write_trial_events(folder, {**trial_row(), "noise_level": level, "arm": "..", "trial_id": "/a"}, [], ["lr"])
    assert folder in file.resolve().parents
    assert len(file.relative_to(folder).parts) == 4
    assert hyperparameters(read(file.parent))["noise_level"] == level


def test_a_folder_with_something_in_it_is_refused(fake, tmp_path):
    run = load_run(fake)
    (tmp_path / "mine.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "mine.txt", tmp_path / "mine.txt" / "below"):
        with pytest.raises(InputError, match="give another"):
            export_tensorboard(run, place)
    assert export_tensorboard(run, tmp_path, overwrite=True) == len(run.trials)
    assert (tmp_path / "mine.txt").read_text() == "mine"
