"""``run_search`` from Python, in a Ray session that the caller has opened."""

import errno
import io
import json
import os
import re
import shutil
import time

import pandas as pd
import pytest
from estimates import hide_the_truth
from ray import tune
from rich.console import Console
from sabotage import sabotage

from nls_tune import InputError, SearchResult, read_epochs, read_trials, run_search
from nls_tune.runs.directory import RunDirectory
from nls_tune.session.reproducing import reproduce
from nls_tune.tune.adapters import ListSearcher, WorkerSavingScheduler

pytestmark = pytest.mark.timeout(150)
SETTINGS = {
    "dataset": "twonorm",
    "noise": ["symmetric:0.4"],
    "num_trials": 4,
    "epochs": 6,
    "train_size": 500,
    "confirm_seeds": 0,
}
FOUND = {**SETTINGS, "overrides": {"lr.low": 1e-3, "momentum": 0.8}}


@pytest.fixture(scope="module")
def found(session, tmp_path_factory) -> SearchResult:
    """A search that is followed in TensorBoard and MLflow."""
    out = tmp_path_factory.mktemp("python") / "a run #1 [%20é]"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.chdir(out.parent)
        return run_search(out=out, tensorboard=True, mlflow="file:store", **FOUND)


def test_it_returns_what_the_command_prints(found):
    assert isinstance(found, SearchResult)
    assert found.status == "finished"
    (level,) = found.levels
    assert level.noise_level == "symmetric:0.4"
    assert set(level.arms) == {"ce", "positive", "negative"}
    assert all(0.5 < arm.val_accuracy < 1 for arm in level.arms.values())
    assert found.best() == found.best("symmetric:0.4") == found.verdicts[0]


def test_the_callers_session_is_left_open(found, session):
    assert session.is_initialized()
    assert session.get(session.remote(lambda: 42).remote()) == 42


def test_overrides_reach_the_trials_and_the_folder_may_have_any_name(found):
    assert found.run.name == "a run #1 [%20é]"
    assert json.loads((found.run / "run.json").read_text())["status"] == "finished"
    assert not (found.run / "warmups").exists()
    trials = read_trials(found.run)
    assert len(trials) == 4
    assert set(trials["config_momentum"]) == {0.8}
    assert trials["lr"].min() >= 1e-3


def test_mlflow_has_what_parquet_has(found, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(f"file:{found.run.parent / 'store'}")
    run_id = json.loads((found.run / "run.json").read_text())["run_id"]
    runs = client.search_runs([client.get_experiment_by_name(run_id).experiment_id])
    trials, epochs = read_trials(found.run).set_index("trial_id"), read_epochs(found.run)
    assert {run.data.params["trial_id"] for run in runs} == set(trials.index)
    assert len(runs) == len(trials) == 4
    for run in runs:
        row = trials.loc[run.data.params["trial_id"]]
        assert (run.info.status, run.data.tags["status"]) == ("FINISHED", row["status"])
        for name in ("smooth_rate", "warmup_epochs", "lr", "noise_level", "arm", "stage", "seed"):
            assert run.data.params[name] == str(row[name])
        assert run.data.params["momentum"] == "0.8"
        for name in ("best_val_accuracy", "test_accuracy_at_best", "last_val_accuracy", "best_epoch", "epochs"):
            assert run.data.metrics[name] == row[name]
        curve = epochs[epochs["trial_id"] == row.name]
        for name in ("val_accuracy", "test_accuracy", "train_loss", "lr"):
            logged = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
            assert logged == dict(zip(curve["epoch"], curve[name], strict=True))


def test_tensorboard_has_every_trial(found):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trials = read_trials(found.run).set_index("trial_id")
    folders = {file.parent for file in (found.run / "tensorboard").rglob("*tfevents*")}
    assert {folder.name for folder in folders} == set(trials.index)
    for folder in folders:
        row, events = trials.loc[folder.name], EventAccumulator(str(folder)).Reload()
        (best,) = events.Scalars("best_val_accuracy")
        assert best.value == pytest.approx(row["best_val_accuracy"], rel=1e-6)
        assert [s.step for s in events.Scalars("accuracy/val")] == list(range(1, row["epochs"] + 1))


def test_a_finished_run_asks_no_tracker_and_writes_only_the_event_files_that_it_lacks(found):
    """The flags are not part of what a run is, and a finished run can be given them."""
    settings, text = {**FOUND, "out": found.run}, io.StringIO()
    lost, *others = sorted((found.run / "tensorboard").rglob("*tfevents*"))
    content = lost.read_bytes()
    lost.unlink()
    for file in others:
        os.utime(file, ns=(0, 0))
    nobody, console = "http://127.0.0.1:9", Console(file=text, width=100)
    assert run_search(tensorboard=True, mlflow=nobody, console=console, **settings) == found
    assert re.search("symmetric:0.4: (use|not trained enough) ", text.getvalue())
    assert lost.read_bytes() == content
    assert {file.stat().st_mtime_ns for file in others} == {0}
    # With something left to do it is asked, and the run stays as it is.
    with pytest.raises(InputError, match="--mlflow must be a tracking URI that answers"):
        run_search(mlflow=nobody, **{**settings, "confirm_seeds": 1})
    with pytest.raises(InputError, match=r"settings\.seed: 0 -> 1"):
        run_search(seed=1, **settings)
    content = json.loads((found.run / "run.json").read_text())
    assert (content["status"], len(content["sessions"])) == ("finished", 1)


def test_a_row_that_somebody_removed_is_run_again(found, session, tmp_path):
    """Its file may have been damaged; the run is finished, and may stand elsewhere now."""
    path = tmp_path / "moved"
    shutil.copytree(found.run, path)
    before = read_trials(path).set_index("trial_id").sort_index()
    lost = before.index[0]
    (path / "trials" / f"{lost}.parquet").unlink()
    again = run_search(out=path, **FOUND)
    assert again.status == "finished"
    after = read_trials(path).set_index("trial_id").sort_index()
    assert after.index.equals(before.index)
    assert after["best_val_accuracy"].equals(before["best_val_accuracy"])
    assert (after["finished_at"] != before["finished_at"]).tolist() == [True, False, False, False]


def test_unknown_noise_is_estimated_and_its_rate_is_tried(session, tmp_path, monkeypatch):
    hide_the_truth(monkeypatch)
    result = run_search(out=tmp_path / "run", **SETTINGS)
    assert result.status == "finished"
    rows = read_trials(result.run)
    assert rows[["noise_rate", "noise_cancelling_rate"]].isna().all(axis=None)
    (estimate,) = rows["estimated_noise_rate"].unique()
    assert estimate == pytest.approx(0.4, abs=0.06)
    (facts,) = json.loads((result.run / "run.json").read_text())["plan"]
    assert facts["estimate"]["noise_rate"] == estimate
    start = facts["start"]["negative"][0]["smooth_rate"]
    assert start == pytest.approx(facts["estimate"]["noise_cancelling_rate"], rel=1e-3)
    assert start in rows["smooth_rate"].tolist()
    monkeypatch.setattr(
        "nls_tune.session.estimating.estimate_level", lambda *arguments, **more: pytest.fail("estimated again")
    )
    assert run_search(out=tmp_path / "run", **SETTINGS) == result


def test_too_many_cpus_for_the_callers_session(session, tmp_path, monkeypatch):
    """The machine has enough of them, the session has not."""
    monkeypatch.setattr("nls_tune.tune.cluster.local_resources", lambda: {"CPU": 64, "GPU": 0})
    with pytest.raises(InputError, match="--cpus-per-trial must be at most the 1 CPU"):
        run_search(out=tmp_path / "run", cpus_per_trial=2, **SETTINGS)
    assert session.is_initialized()


def test_when_every_trial_fails_that_is_an_error(session, tmp_path):
    settings = {**SETTINGS, "num_trials": 1}
    sabotage(tmp_path / "run", smooth_rate=0.0, **settings)
    with pytest.raises(RuntimeError, match=r"every trial failed, the last with: FileExistsError.*") as caught:
        run_search(out=tmp_path / "run", **settings)
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    assert read_trials(tmp_path / "run")["status"].tolist() == ["failed"]


def test_a_row_that_could_not_be_written_ends_the_search_and_nothing_is_lost(session, tmp_path, monkeypatch):
    out, write, statuses = tmp_path / "run", RunDirectory.write_trial, []

    def write_trial(self, row):
        statuses.append(row["status"])
        if len(statuses) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", "trials")
        write(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write_trial", write_trial)
        with pytest.raises(OSError, match="No space left on device"):
            run_search(out=out, **SETTINGS)
    # There was room again when the trials had ended: the second one kept its row and was not trained again.
    assert statuses[1] == statuses[2]
    before = read_trials(out).set_index("trial_id")
    assert len(before) in (2, 3)
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    assert run_search(out=out, **SETTINGS).status == "finished"
    after = read_trials(out).set_index("trial_id")
    assert len(after) == after.index.nunique() == 4
    kept = before.index[before["status"] != "interrupted"]
    assert after.loc[kept, "finished_at"].equals(before.loc[kept, "finished_at"])


def test_when_every_trial_diverges_that_is_said_and_is_no_error(session, tmp_path):
    text = io.StringIO()
    console = Console(file=text, width=140)
    overrides = {"lr": 1e30, "warmup_lr": 1e30}
    result = run_search(out=tmp_path / "run", overrides=overrides, console=console, **SETTINGS)
    assert result.status == "finished"
    assert (result.best().reason, result.levels[0].statuses) == ("nothing_completed", {"diverged": 4})
    assert "symmetric:0.4: not trained enough to say: no trial was completed; " in text.getvalue()
    assert "nan" not in text.getvalue().lower()
    rows = read_trials(result.run)
    assert rows["status"].tolist() == ["diverged"] * 4
    assert rows["best_epoch"].isna().all()
    assert rows["error"].isna().all()
    assert read_epochs(result.run)["diverged"].any()


def test_every_worker_that_starts_trains(session, tmp_path):
    """The first trial ends before the second worker is there; by Tune's own order that one is given up."""

    class Trial(tune.Trainable):
        def setup(self, config):
            self.reset_config(config)
            (tmp_path / f"started-{os.getpid()}").touch()
            try:
                (tmp_path / "first").touch(exist_ok=False)
            except FileExistsError:
                time.sleep(3)

        def step(self):
            (tmp_path / f"trained-{os.getpid()}").touch()
            time.sleep(1 if self.number else 0)
            return {"value": 1.0, "done": True}

        def reset_config(self, new_config):
            self.number = new_config["number"]
            return True

    tune.Tuner(
        tune.with_resources(Trial, {"cpu": 0.5}),
        tune_config=tune.TuneConfig(
            metric="value",
            mode="max",
            search_alg=ListSearcher([{"number": i} for i in range(8)], metric="value"),
            scheduler=WorkerSavingScheduler(),
            num_samples=8,
            max_concurrent_trials=2,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "tune"),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            verbose=0,
        ),
    ).fit()
    started, trained = (len(list(tmp_path.glob(f"{what}-*"))) for what in ("started", "trained"))
    assert started == trained


def test_shared_warm_ups_change_no_number(session, tmp_path):
    """The same trials with the store of warm-ups and without."""
    settings = {**SETTINGS, "num_trials": 5, "scheduler": "none", "sampler": "random"}
    settings["overrides"] = {"warmup_epochs.high": 5, "warmup_epochs.default": 3}
    tables, screens = [], []
    for name, store in (("shared", tmp_path / "store"), ("alone", "none")):
        text = io.StringIO()
        console = Console(file=text, width=120)
        run_search(out=tmp_path / name, warmup_store=str(store), console=console, **settings)
        frames = (read_trials(tmp_path / name), read_epochs(tmp_path / name))
        tables.append([frame.sort_values([c for c in ("trial_id", "epoch") if c in frame]) for frame in frames])
        screens.append(text.getvalue())
    (trials, epochs), (trials_alone, epochs_alone) = tables
    differ = ["run_id", "epochs_reused", "train_seconds", "wall_seconds", "started_at", "finished_at"]
    for one, other, leave in (
        (trials, trials_alone, differ),
        (epochs, epochs_alone, ["run_id", "seconds", "peak_memory_bytes"]),
    ):
        pd.testing.assert_frame_equal(
            one.drop(columns=leave).reset_index(drop=True), other.drop(columns=leave).reset_index(drop=True)
        )
    assert trials_alone["epochs_reused"].sum() == 0
    trained = (trials["warmup_epochs"] - trials["epochs_reused"]).sum()
    assert trained == trials["warmup_epochs"].max()  # every warm-up epoch once
    reused = trials["epochs_reused"].sum()
    assert reused > 0
    assert f"{trials['epochs'].sum()} epochs, {reused} of them reused warm-ups" in screens[0]
    said = ["CE warm-ups are trained once and shared" in screen for screen in screens]
    assert (said, "reused" in screens[1]) == ([True, False], False)
    assert any((tmp_path / "store").iterdir())
    assert not (tmp_path / "shared" / "warmups").exists()


class TestTimeBudget:
    """Trials that take hours, and seconds to run them in."""

    LEVELS = ("symmetric:0.4", "symmetric:0.1", "clean")

    def run(self, out, seconds):
        text = io.StringIO()
        settings = {**SETTINGS, "epochs": 100_000, "noise": self.LEVELS, "time_budget": seconds}
        result = run_search(out=out, console=Console(file=text, width=140), **settings)
        return result, text.getvalue(), json.loads((out / "run.json").read_text())

    def test_it_ends_a_search_that_a_larger_one_continues(self, session, tmp_path):
        out = tmp_path / "run"
        first, text, content = self.run(out, "3s")
        assert (first.status, content["ended_by"]) == ("finished", "time_budget")
        rows = read_trials(out)
        assert set(rows["status"]) == {"stopped"}
        assert len(rows) == 1  # as many as run at once
        for level in self.LEVELS:
            assert re.search(f"{level}: (no trial began|not trained enough to say: no trial) ", text)
        assert f"with {len(rows)} of 12 trials begun" in text
        (used,) = (s["search_seconds"] for s in content["sessions"])
        assert used >= 3

        again, text_again, content_again = self.run(out, "3s")
        assert again == first
        assert len(content_again["sessions"]) == 1
        assert text_again[text_again.index("symmetric:0.4: not trained ") :] in text

        _, _, content = self.run(out, used + 2)
        assert len(content["sessions"]) == 2
        assert content["ended_by"] == "time_budget"
        assert len(read_trials(out)) > len(rows)


def test_a_table_is_filled_by_searches(session, tmp_path):
    table = tmp_path / "table.yaml"
    table.write_text(
        "title: One row\nsettings: {methods: 'ce,gce', num_trials: 4, epochs: 6, train_size: 500, confirm_seeds: 2}\n"
        "rows:\n  one: {dataset: twonorm, noise: 'symmetric:0.2'}\n"
    )
    counts = []
    for _ in range(2):  # the second time there is nothing to train
        done = reproduce(str(table), out=tmp_path / "out")
        assert done.status == "finished"
        (row,) = done.rows
        assert [found.arm for found in row.result.methods] == ["ce", "gce"]
        assert all(0.3 < found.test.mean < 1 for found in row.result.methods)
        assert row.pflop > 0
        counts.append(len(read_trials(tmp_path / "out" / "one")))
    assert counts[0] == counts[1] >= 4 + 2 * 2
    assert (tmp_path / "out" / "table.md").read_text().count("| one |") == 2
