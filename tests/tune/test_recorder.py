"""The callback that turns Tune's events into part files, driven by hand, without starting Ray."""

import errno
import pickle
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from estimates import estimate_of

from nls_tune import read_epochs, read_trials
from nls_tune.metrics import EpochMetrics, ReadoutScore, Scores
from nls_tune.plan.level_data import LevelData
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.progress import SearchProgress
from nls_tune.runs.schemas import epoch_schema, settings_of, trial_schema
from nls_tune.runs.trial_spec import DataName, TrialSpec
from nls_tune.session.searching import make_progress
from nls_tune.training.report import TrialReport
from nls_tune.tune.recorder import EndOnError, Recorder
from nls_tune.tune.work import Work

LEVEL = "symmetric:0.4"
STATE_BYTES = b"state"


class FakeView:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def trial_ended(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(f"Warning: {line}")


class Driven:
    def __init__(self, plan, folder: Path, *trackers: Any) -> None:
        self.plan, self.folder, self.trackers = plan, folder, trackers
        self.run = RunDirectory(folder / "run")
        self.run.create()
        self.data = LevelData(plan)
        self.view = FakeView()
        self.begin()

    def begin(self, out_of_memory: Any = lambda: None) -> None:
        """Begin a session of the search; ``out_of_memory`` says how a trial without memory runs again."""
        self.progress: SearchProgress = make_progress(self.plan, 2)
        packing: Any = SimpleNamespace(out_of_memory=out_of_memory)
        work = Work(
            plan=self.plan, data=self.data, run=self.run, run_id="run-1", packing=packing,
            make_view=lambda progress: self.view, trackers=self.trackers,
        )  # fmt: skip
        self.recorder = Recorder(work, self.progress, self.view)

    def trial(self, name: str = "t1", error: str | None = None, **config: Any) -> SimpleNamespace:
        settings = self.plan.training_settings(self.plan.space.default(**{"smooth_rate": -4.0, **config}))
        file = self.folder / f"{name}.error"
        if error is not None:
            file.write_text(error)
        described = self.data.trial(LEVEL, settings, judged_at=(1,)).to_config()
        return SimpleNamespace(trial_id=name, config=described, error_file=str(file), status="RUNNING")

    def start(self, trial) -> TrialCheckpoint:
        self.recorder.on_trial_start(iteration=1, trials=[trial], trial=trial)
        checkpoint = TrialCheckpoint(self.run.checkpoints / trial.config["trial_id"])
        checkpoint.start(TrialSpec.from_config(trial.config))
        return checkpoint

    def report(self, trial, epochs: range, **changes: Any) -> None:
        result = report(epochs, **changes)
        self.recorder.on_trial_result(iteration=1, trials=[trial], trial=trial, result=result)

    def whole(self, last: int = 6, trial: Any = None, **changes: Any) -> SimpleNamespace:
        """Let a trial start, report its epochs at once, and end."""
        trial = trial or self.trial()
        self.start(trial)
        self.report(trial, range(1, last + 1), **changes)
        self.complete(trial)
        return trial

    def complete(self, trial) -> None:
        self.recorder.on_trial_complete(iteration=1, trials=[trial], trial=trial)

    def fail(self, trial) -> None:
        self.recorder.on_trial_error(iteration=1, trials=[trial], trial=trial)

    def row(self) -> dict[str, Any]:
        (row,) = read_trials(self.run.path).to_dict("records")
        return row


def epoch(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "epoch": number, "phase": "warmup" if number == 1 else "gls", "lr": 0.01, "train_loss": 0.5,
        "train_accuracy": 0.6, "val_loss": 0.7, "val_accuracy": 0.5 + number / 100,
        "test_accuracy": 0.8 + number / 100, "diverged": False, "seconds": 2.0, "peak_memory_bytes": 1000, **changes,
    }  # fmt: skip


def report(epochs: range, **changes: Any) -> dict[str, Any]:
    last = epochs[-1]
    counts = last > 1
    scores = ReadoutScore("plain", last, Scores(0.5 + last / 100, 0.4, 0.3), Scores(0.8 + last / 100, 0.75, 0.7))
    found = TrialReport(
        device="a CPU", node="here", epoch=last, gls_epochs=max(0, last - 1), finished=last == 6,
        best_value=0.5 + last / 100 if counts else 0.0, best_epoch=last if counts else None,
        readout="plain" if counts else None, plain=scores if counts else None,
        val_counts_at_best=(2000, 2000, 2100, 1900, 1050, 950) if counts else None,
        val_correct_at_best=np.packbits(np.arange(4000) % 2 == 0).tobytes() if counts else None,
        test_correct_at_best=np.packbits(np.arange(10_000) % 4 > 0).tobytes() if counts else None,
        train_seconds=2.0 * last, new_epochs=tuple(EpochMetrics(**epoch(number)) for number in epochs),
    )  # fmt: skip
    return {**found.to_result(), "training_iteration": 1, **changes}


@pytest.fixture
def driven(tiny_plan, tmp_path) -> Driven:
    return Driven(tiny_plan, tmp_path)


def test_the_row_of_a_trial_that_finished(driven, tiny_plan):
    before = datetime.now(UTC)
    trial = driven.trial()
    checkpoint = driven.start(trial)
    driven.report(trial, range(1, 4))
    driven.report(trial, range(4, 7))
    driven.complete(trial)
    row = driven.row()
    expected = {
        "run_id": "run-1", "trial_id": trial.config["trial_id"], "stage": "search", "arm": "negative",
        "dataset": "twonorm", "noise_level": LEVEL, "noise_cancelling_rate": pytest.approx(-4.0),
        "noise_rate": tiny_plan.levels[0].dataset.noise_rate, "smooth_rate": -4.0, "warmup_epochs": 1,
        "config_epochs": 6, "config_model": "mlp", "status": "completed", "epochs": 6, "best_epoch": 6,
        "best_val_accuracy": pytest.approx(0.56), "test_accuracy_at_best": pytest.approx(0.86),
        "last_val_accuracy": pytest.approx(0.56), "last_test_accuracy": pytest.approx(0.86), "num_val": 4000,
        "num_test": 10_000, "train_seconds": 12.0, "device": "a CPU", "node": "here",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert pd.isna(row["error"])
    assert len(row["val_correct_at_best"]) == 500
    assert row["val_counts_at_best"].tolist() == [2000, 2000, 2100, 1900, 1050, 950]
    others = {"best_val_balanced_accuracy": 0.4, "best_val_macro_f1": 0.3, "test_balanced_accuracy_at_best": 0.75,
              "test_macro_f1_at_best": 0.7}  # fmt: skip
    assert {name: row[name] for name in others} == others
    assert before <= row["started_at"] <= row["finished_at"] <= datetime.now(UTC) + timedelta(seconds=1)
    assert settings_of(row) == tiny_plan.training_settings(tiny_plan.space.default(smooth_rate=-4.0))
    assert not checkpoint.folder.exists()
    for folder, schema in ((driven.run.trials, trial_schema()), (driven.run.epochs, epoch_schema())):
        found = pq.read_schema(folder / f"{row['trial_id']}.parquet")
        assert [(f.name, f.nullable) for f in found] == [(f.name, f.nullable) for f in schema]
        assert found.metadata[b"nls_tune.schema_version"] == b"1"
    epochs = read_epochs(driven.run.path)
    assert epochs["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert epochs["phase"].tolist() == ["warmup"] + ["gls"] * 5
    assert set(zip(epochs["trial_id"], epochs["arm"], strict=True)) == {(trial.config["trial_id"], "negative")}
    assert epochs["val_accuracy"].tolist() == [pytest.approx(0.5 + n / 100) for n in range(1, 7)]
    (line,) = driven.view.lines
    assert "\n" not in line
    for part in (LEVEL, "r=−4", "completed", "6 epochs", "val 56.0 %", "test 86.0 %", "epoch 6"):
        assert part in line


def test_a_row_says_what_weights_and_averages_have_reached(driven):
    plain, average = (
        ReadoutScore("plain", 4, Scores(0.5, 0.25, 0.125), Scores(0.7, 0.6, 0.5)),
        ReadoutScore("average:0.2", 6, Scores(0.5625, 0.5, 0.375), None),
    )
    scores = {"plain": astuple(plain), "average": astuple(average), "mirrored_test_accuracy": 0.875}
    averages = (0.25, 0.5625)
    trial = driven.trial()
    driven.start(trial)
    result = report(range(1, 7), readout="average:0.2", **scores)
    for metrics in result["new_epochs"]:
        metrics["average_val_accuracies"] = averages
    driven.recorder.on_trial_result(iteration=1, trials=[trial], trial=trial, result=result)
    driven.complete(trial)
    row = driven.row()
    expected = {
        "readout": "average:0.2", "plain_best_epoch": 4, "plain_best_val_accuracy": 0.5,
        "plain_test_accuracy_at_best": 0.7, "average_best_epoch": 6, "average_best_val_accuracy": 0.5625,
        "mirrored_test_accuracy": 0.875, "best_val_macro_f1": 0.375, "average_best_val_balanced_accuracy": 0.5,
        "plain_best_val_macro_f1": 0.125, "plain_test_balanced_accuracy_at_best": 0.6,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert pd.isna(row["average_test_accuracy_at_best"])
    assert [tuple(found) for found in read_epochs(driven.run.path)["average_val_accuracies"]] == [averages] * 6


def test_the_row_of_a_trial_on_another_draw_of_the_noise(driven, tiny_plan):
    trial = driven.trial()
    trial.config["noise_seed"] = 3
    driven.whole(trial=trial)
    row = driven.row()
    assert (row["noise_seed"], row["noise_rate"]) == (3, driven.data.load(DataName(LEVEL, 3)).noise_rate)
    assert row["noise_rate"] != tiny_plan.levels[0].dataset.noise_rate
    assert row["noise_cancelling_rate"] == pytest.approx(-4.0)


def test_the_row_of_a_trial_on_all_labels(driven):
    trial = driven.trial()
    trial.config["stage"] = "confirm_all"
    nothing = {
        "best_value": 0.0,
        "best_epoch": None,
        "readout": None,
        "plain": None,
        "val_correct_at_best": None,
        "test_correct_at_best": None,
    }
    epochs = [epoch(number, val_loss=float("nan"), val_accuracy=float("nan")) for number in range(1, 4)]
    driven.whole(3, trial, **nothing, finished=True, new_epochs=epochs)
    (part,) = pq.read_table(driven.run.trials).to_pylist()
    assert (part["stage"], part["status"], part["epochs"]) == ("confirm_all", "completed", 3)
    assert (part["num_val"], part["last_test_accuracy"]) == (0, pytest.approx(0.83))
    unknown = ("best_epoch", "best_val_accuracy", "test_accuracy_at_best", "last_val_accuracy")
    for name in (*unknown, "val_correct_at_best", "test_correct_at_best"):
        assert part[name] is None, name
    assert "seed 0 on all labels: completed, 3 epochs, test 83.0 %" in driven.view.lines[0]
    assert driven.progress.levels[LEVEL].best == {}


def test_epochs_are_there_while_the_trial_runs_but_not_written_at_every_report(driven, monkeypatch):
    now = 100.0
    monkeypatch.setattr("nls_tune.tune.recorder.time.monotonic", lambda: now)
    trial = driven.trial()
    driven.start(trial)
    written = []
    for number, seconds in ((1, 0), (2, 1), (3, 4), (4, 6)):
        now = 100.0 + seconds
        driven.report(trial, range(number, number + 1))
        written.append(len(read_epochs(driven.run.path)))
    assert written == [1, 1, 1, 4]
    assert len(read_trials(driven.run.path)) == 0


def test_a_trial_that_goes_on_after_a_lost_worker_has_every_epoch_once(driven):
    trial = driven.trial()
    driven.start(trial)
    driven.report(trial, range(1, 4))
    started_at = driven.recorder._states[trial.config["trial_id"]].started_at
    driven.start(trial)  # Tune says so again when it restarts the trial
    driven.report(trial, range(1, 7), train_seconds=5.0)
    driven.complete(trial)
    assert read_epochs(driven.run.path)["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert (driven.row()["started_at"], driven.row()["epochs"]) == (started_at, 6)
    assert driven.progress.levels[LEVEL].running == 0


def test_what_a_lost_process_had_trained_and_no_state_had_is_counted(driven):
    """From a state of epoch 2: epoch 3 is trained again, epochs 1 and 2 come as they were."""
    trial = driven.trial()
    driven.start(trial)
    driven.report(trial, range(1, 4))
    driven.start(trial)
    result = report(range(1, 7))
    again = [EpochMetrics(**epoch(number, seconds=2.0 if number < 3 else 5.0)) for number in range(1, 7)]
    result |= replace(TrialReport.from_result(result), new_epochs=tuple(again)).to_result()
    driven.recorder.on_trial_result(iteration=1, trials=[trial], trial=trial, result=result)
    lost = driven.recorder._work.lost
    assert (lost.epochs, lost.seconds) == (1, 2.0)


def test_the_estimated_noise_stands_beside_the_true_one(tiny_plan, tmp_path):
    driven = Driven(tiny_plan.with_estimate(estimate_of(LEVEL)), tmp_path)
    driven.whole()
    row = driven.row()
    assert (row["estimated_noise_rate"], row["noise_cancelling_rate"]) == (0.3, pytest.approx(-4))
    assert row["noise_rate"] == tiny_plan.levels[0].noise_rate


@pytest.mark.parametrize(
    ("finished", "diverged", "status"),
    [(True, False, "completed"), (False, False, "stopped"), (True, True, "diverged")],
)
def test_how_a_trial_ended(driven, finished, diverged, status):
    driven.whole(3, finished=finished, diverged=diverged)
    assert driven.row()["status"] == status
    assert driven.progress.levels[LEVEL].ended == {status: 1}


def test_a_trial_that_diverged_in_its_warm_up_has_no_best_epoch(driven):
    broken = epoch(1, train_loss=float("nan"), val_loss=float("nan"), diverged=True)
    driven.whole(1, diverged=True, finished=True, new_epochs=[broken])
    row = driven.row()
    assert row["status"] == "diverged"
    for name in ("best_epoch", "best_val_accuracy", "test_accuracy_at_best"):
        assert np.isnan(row[name]), name
    assert row["val_correct_at_best"] is None
    assert bool(read_epochs(driven.run.path)["diverged"].item())


def test_a_trial_that_waits_for_a_warm_up_is_interrupted_and_then_reuses_it(driven):
    trial = driven.trial()
    driven.start(trial)
    waiting = {"epoch": 0, "best_epoch": None, "best_value": 0.0, "new_epochs": [], "train_seconds": 0}
    driven.report(trial, range(0, 1), **waiting, epochs_reused=0)
    assert len(read_epochs(driven.run.path)) == 0
    assert driven.progress.seconds_left() is None
    driven.recorder.interrupt()
    assert (driven.row()["status"], driven.row()["epochs"], driven.row()["epochs_reused"]) == ("interrupted", 0, 0)
    driven.begin()
    driven.start(trial)
    driven.report(trial, range(1, 4), epochs_reused=1, train_seconds=4.0)
    assert len(read_epochs(driven.run.path)) == 3
    driven.complete(trial)
    row = driven.row()
    assert (row["epochs"], row["epochs_reused"], row["train_seconds"]) == (3, 1, 4.0)


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "shown"),
        [
            ("Traceback (most recent call last):\n  File ...\nValueError: it broke\n\n", "ValueError: it broke"),
            (None, "unknown error"),
            ("\n \n", "unknown error"),
        ],
    )
    def test_the_error_is_one_line(self, driven, error, shown):
        trial = driven.trial(error=error)
        checkpoint = driven.start(trial)
        driven.report(trial, range(1, 4))
        driven.fail(trial)
        driven.recorder.interrupt()  # what failed is not interrupted as well
        row = driven.row()
        assert (row["status"], row["error"], row["epochs"]) == ("failed", shown, 3)
        assert driven.recorder.failures == [shown]
        assert f"failed, {shown}" in driven.view.lines[0]
        assert not checkpoint.folder.exists()

    @pytest.mark.parametrize("started", [True, False])
    def test_one_that_fails_before_its_first_report(self, driven, started):
        trial = driven.trial(error="ModuleNotFoundError: No module named 'torch'")
        if started:
            driven.start(trial)
        driven.fail(trial)
        row = driven.row()
        assert row["error"] == "ModuleNotFoundError: No module named 'torch'"
        assert (row["status"], row["epochs"], row["device"]) == ("failed", 0, "unknown")
        assert len(read_epochs(driven.run.path)) == 0
        level = driven.progress.levels[LEVEL]
        assert (level.ended, level.running) == ({"failed": 1}, 0)


class TestInterruption:
    def test_what_was_running_gets_rows_and_keeps_its_checkpoint(self, driven):
        done, running, young = driven.trial("t1"), driven.trial("t2", smooth_rate=0.1), driven.trial("t3", lr=0.02)
        checkpoints = {trial.trial_id: driven.start(trial) for trial in (done, running, young)}
        driven.report(done, range(1, 7))
        driven.complete(done)
        driven.report(running, range(1, 4))
        driven.recorder.interrupt()
        rows = read_trials(driven.run.path).set_index("trial_id")
        found = {t.trial_id: rows.loc[t.config["trial_id"], "status"] for t in (done, running, young)}
        assert found == {"t1": "completed", "t2": "interrupted", "t3": "interrupted"}
        assert [c.folder.exists() for c in checkpoints.values()] == [False, True, True]
        assert rows.loc[running.config["trial_id"], "epochs"] == 3
        assert sorted(read_epochs(driven.run.path).groupby("trial_id").size()) == [3, 6]

    def test_a_row_that_says_interrupted_is_replaced_by_the_trials_end(self, driven):
        trial = driven.trial()
        driven.start(trial)
        driven.recorder.interrupt()
        parts = sorted(driven.run.trials.glob("*.parquet"))
        driven.begin()
        driven.start(trial)
        # A reader that has listed the folder opens the part a moment later.
        assert sorted(driven.run.trials.glob("*.parquet")) == parts
        driven.report(trial, range(1, 7))
        driven.complete(trial)
        assert driven.row()["status"] == "completed"


def test_tune_can_pickle_it_whatever_it_holds(driven):
    driven.recorder._unpicklable = lambda: None
    assert len(pickle.dumps(driven.recorder)) < 500


def test_a_warning_of_a_process_is_said_once(driven):
    trial = driven.trial()
    driven.start(trial)
    for last, warnings in enumerate([(), ("one",), ("one", "another"), ("another", "one")], 1):
        driven.report(trial, range(1, last + 1), warnings=warnings)
    assert driven.view.lines == ["Warning: one", "Warning: another"]


def test_a_row_says_which_slot_the_trial_had(driven):
    trials = [driven.trial(f"t{i}", smooth_rate=-1.0 - i) for i in range(4)]
    for trial in trials[:3]:
        driven.start(trial)
    for trial in (trials[1], trials[0]):
        driven.complete(trial)
    driven.start(trials[3])
    driven.recorder.interrupt()
    rows = read_trials(driven.run.path).set_index("trial_id")["slot"]
    assert [rows[trial.config["trial_id"]] for trial in trials] == [0, 1, 2, 0]


class TestErrorOfItsOwn:
    """What cannot be written is no error of the trial: Tune, told of it, would train it once more."""

    @pytest.fixture
    def full(self, driven, monkeypatch):
        """A disk without room for rows until ``full.clear()``."""
        write, full = driven.run.write_trial, [True]

        def write_trial(row):
            if full:
                raise OSError(errno.ENOSPC, "No space left on device", "trials")
            write(row)

        monkeypatch.setattr(driven.run, "write_trial", write_trial)
        return full

    def test_it_is_kept_and_ends_the_experiment(self, driven, full):
        trial, other = driven.trial(), driven.trial("t2", smooth_rate=-1.0)
        end = EndOnError(driven.recorder)
        driven.start(trial)
        driven.start(other)
        driven.report(trial, range(1, 7))
        assert not end.stop_all()
        driven.complete(trial)
        assert end.stop_all()
        assert isinstance(driven.recorder.error, OSError)
        shown = "Warning: results cannot be recorded, the search ends (OSError: [Errno 28] No space left on device"
        assert [line[: len(shown)] for line in driven.view.lines] == [shown]
        assert driven.progress.levels[LEVEL].ended["completed"] == 0
        driven.report(other, range(1, 3))  # nobody takes note of it any more
        driven.complete(other)
        driven.fail(other)
        assert driven.recorder.guard(lambda: pytest.fail("asked"), True) is True

    def test_on_a_disk_that_stays_full_the_folders_stay(self, driven, full):
        trial = driven.whole()
        with pytest.raises(OSError, match="No space left"):
            driven.recorder.interrupt()
        assert (driven.run.checkpoints / trial.config["trial_id"]).exists()
        assert read_trials(driven.run.path).empty
