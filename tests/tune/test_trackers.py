"""What follows a search: trackers that fail, hang or work, and Ray's callbacks behind them. Ray is not started."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
from types import SimpleNamespace

import pytest
from test_recorder import Driven, epoch
from trial_rows import trial_row

from nls_tune import InputError
from nls_tune.machine.provenance import without_password
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_epochs
from nls_tune.tune.ray_trackers import MlflowTracker, RayTracker, WandbTracker
from nls_tune.tune.recorder import Recorder
from nls_tune.tune.tracker import tracked_trial
from nls_tune.tune.trackers import BackgroundTracker, check_trackers

FACTS = {"noise_level": "symmetric:0.4", "arm": "negative", "stage": "search", "smooth_rate": -1.0, "milestones": [3]}


def a_trial(tmp_path, name="aa11", run_id="twonorm-20260102T030405Z-9f42"):
    return tracked_trial(RunDirectory(tmp_path), run_id, name, FACTS)


class Spy:
    """A tracker that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def started(self, trial) -> None:
        self.told.append(("started", trial.config["trial_id"]))

    def reported(self, trial, epochs) -> None:
        self.told.append(("reported", trial.config["trial_id"], [e["epoch"] for e in epochs]))

    def ended(self, trial, row, epochs) -> None:
        self.told.append(("ended", trial.config["trial_id"], row["status"], [e["epoch"] for e in epochs]))

    def close(self) -> None:
        self.told.append(("closed",))


class TestTheRecorder:
    def test_it_tells_each_epoch_once_and_the_row_at_the_end(self, tiny_plan, tmp_path):
        driven, spy = Driven(tiny_plan, tmp_path), Spy()
        driven.recorder = Recorder(tiny_plan, driven.data, driven.run, "run-1", driven.progress, driven.view, [spy])
        trial = driven.trial()
        driven.start(trial)
        driven.report(trial, range(1, 3))
        driven.report(trial, range(2, 4))  # after a lost worker
        driven.report(trial, range(2, 4))
        driven.report(trial, range(4, 7), finished=True)
        driven.complete(trial)
        name = trial.config["trial_id"]
        assert spy.told == [
            ("started", name),
            ("reported", name, [1, 2]),
            ("reported", name, [3]),
            ("reported", name, [4, 5, 6]),
            ("ended", name, "completed", [1, 2, 3, 4, 5, 6]),
        ]
        assert len(read_epochs(driven.run.path)) == 6

    def test_what_is_interrupted_or_fails_at_once_is_told_too(self, tiny_plan, tmp_path):
        driven, spy = Driven(tiny_plan, tmp_path), Spy()
        driven.recorder = Recorder(tiny_plan, driven.data, driven.run, "run-1", driven.progress, driven.view, [spy])
        driven.start(driven.trial())
        driven.fail(driven.trial("t2", error="OSError: no disk", lr=0.01))
        driven.recorder.interrupt()
        assert [told[0] for told in spy.told] == ["started", "started", "ended", "ended"]
        assert [told[2:] for told in spy.told[2:]] == [("failed", []), ("interrupted", [])]

    def test_a_trial_is_described_by_all_its_settings(self, tiny_plan, tmp_path):
        driven, seen = Driven(tiny_plan, tmp_path), []
        spy = SimpleNamespace(started=seen.append)
        driven.recorder = Recorder(tiny_plan, driven.data, driven.run, "run-1", driven.progress, driven.view, [spy])
        trial = driven.trial(smooth_rate=-2.0)
        driven.start(trial)
        config = seen[0].config
        assert config.items() >= trial.config["settings"].items()
        assert config.items() >= {"dataset": "twonorm", "arm": "negative", "stage": "search", "noise_seed": 0}.items()
        assert str(seen[0]) == f"symmetric:0.4 negative search {trial.config['trial_id']}"


class TestBackground:
    def test_one_that_works_is_told_everything_in_order(self, tmp_path):
        spy, trial = Spy(), a_trial(tmp_path)
        tracker = BackgroundTracker("Spy", lambda: spy)
        tracker.started(trial)
        tracker.reported(trial, [epoch(1)])
        tracker.ended(trial, {"status": "stopped"}, [epoch(1)])
        tracker.close()
        assert spy.told == [
            ("started", "aa11"), ("reported", "aa11", [1]), ("ended", "aa11", "stopped", [1]), ("closed",),
        ]  # fmt: skip

    def test_a_server_that_goes_down_is_one_warning_and_is_tried_again(self, tmp_path, caplog):
        class Down(Spy):
            def reported(self, trial, epochs) -> None:
                raise ConnectionError("http://u:secret@host refused\nand a long story")

        spy = Down()
        tracker = BackgroundTracker("Tracker", lambda: spy)
        for i in range(3):
            trial = a_trial(tmp_path, f"t{i}")
            tracker.started(trial)
            tracker.reported(trial, [epoch(1)])
        with caplog.at_level(logging.WARNING):
            tracker.close()
        assert [told[0] for told in spy.told] == ["started", "started", "started", "closed"]
        (record,) = caplog.records
        assert record.getMessage() == (
            "Tracker lacks a part of this search (http://u:***@host refused); the run directory has everything"
        )

    def test_one_that_cannot_be_opened_is_one_warning(self, tmp_path, caplog):
        def make():
            raise PermissionError("no entry")

        tracker = BackgroundTracker("Tracker", make)
        for _ in range(3):
            tracker.started(a_trial(tmp_path))
        tracker.close()
        assert ["no entry" in record.getMessage() for record in caplog.records] == [True]

    def test_one_that_hangs_holds_nothing_up(self, tmp_path, caplog):
        let_go = threading.Event()
        tracker = BackgroundTracker("Tracker", lambda: SimpleNamespace(started=lambda trial: let_go.wait(30)), 0.05)
        tracker.started(a_trial(tmp_path))
        tracker.close()
        assert ["within 0.05 s" in record.getMessage() for record in caplog.records] == [True]
        let_go.set()


class FakeCallback:
    """Has the hooks of Ray's logger callbacks."""

    def __init__(self, *args, **options) -> None:
        self.args, self.options, self.calls = args, options, []

    def __getattr__(self, hook):
        return lambda *args, **more: self.calls.append((hook, *args, *more.values()))


class TestRaysCallbacks:
    def test_they_get_one_result_an_epoch_and_the_outcome(self, tmp_path):
        callback, trial = FakeCallback(), a_trial(tmp_path)
        tracker = RayTracker(callback)
        tracker.started(trial)
        tracker.reported(trial, [epoch(1, test_accuracy=None), epoch(2, train_loss=math.nan)])
        tracker.ended(trial, trial_row(status="diverged", epochs=2), [])
        tracker.close()
        hooks = [call[0] for call in callback.calls]
        results = [call[1:] for call in callback.calls if call[0] == "log_trial_result"]
        assert hooks == ["setup", "log_trial_start", *["log_trial_result"] * 3, "log_trial_end", "on_experiment_end"]
        assert [step for step, _, _ in results] == [r["training_iteration"] for _, _, r in results] == [1, 2, 2]
        assert results[0][2].keys() == {
            "training_iteration", "val_accuracy", "train_accuracy", "val_loss", "train_loss", "lr",
        }  # fmt: skip
        assert "train_loss" not in results[1][2]
        assert results[2][2]["best_val_accuracy"] == 0.75
        assert "test_accuracy_at_best" not in results[2][2]
        assert callback.calls[-2][1:] == (trial, False)

    @pytest.mark.parametrize("status", ["failed", "out_of_memory", "interrupted"])
    def test_what_has_no_result_failed(self, status, tmp_path):
        callback = FakeCallback()
        RayTracker(callback).ended(a_trial(tmp_path), trial_row(status=status), [])
        assert callback.calls[-1][2] is True

    def test_wandb_gets_project_group_mode_and_status(self, tmp_path, monkeypatch):
        made = []
        monkeypatch.setattr(
            "nls_tune.tune.ray_trackers.WandbLoggerCallback",
            lambda *args, **options: made.append(FakeCallback(*args, **options)) or made[0],
        )
        monkeypatch.setenv("WANDB_MODE", "offline")
        tracker, trial = WandbTracker("nls", "run-1", 5.0), a_trial(tmp_path, run_id="my run:/1" + "x" * 60)
        tracker.ended(trial, trial_row(status="stopped"), [])
        (callback,) = made
        assert callback.args == ("nls", "run-1")
        assert callback.options == {"upload_timeout": 1, "resume": "allow", "mode": "offline"}
        assert callback.calls[1][3]["config"] == {"status": "stopped"}
        assert len(trial.trial_id) == 64
        assert trial.trial_id.endswith("x-aa11")
        assert not set(trial.trial_id) & set(" :/")

    @pytest.mark.parametrize("num_late", [0, 2])
    def test_what_wandb_has_not_sent_in_time_is_said(self, num_late, monkeypatch):
        callback = FakeCallback()
        callback._trial_logging_futures = {"a": 1, "b": 2, "c": 3}
        monkeypatch.setattr("nls_tune.tune.ray_trackers.WandbLoggerCallback", lambda *args, **options: callback)
        monkeypatch.setattr("ray.wait", lambda all_, num_returns, timeout: (all_[num_late:], all_[:num_late]))
        tracker = WandbTracker("nls", "run-1", 5.0)
        if num_late:
            with pytest.raises(TimeoutError, match="2 trials were not sent within 5 s"):
                tracker.close()
        else:
            tracker.close()
        assert callback.calls[-1] == ("on_experiment_end", [])


class TestMlflow:
    @pytest.fixture
    def uri(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # SQLite takes seconds to set up
        return f"file:{tmp_path / 'store'}"

    def test_a_trial_that_goes_on_is_one_run(self, uri, tmp_path):
        from mlflow.tracking import MlflowClient

        for session, (status, epochs) in enumerate([("interrupted", range(1, 3)), ("completed", range(1, 5))]):
            tracker = MlflowTracker(uri, "run-1")
            for name in ("aa11", "bb22")[: 2 - session]:
                trial = a_trial(tmp_path, name)
                tracker.started(trial)
                tracker.reported(trial, [epoch(i) for i in epochs])
                tracker.ended(trial, trial_row(status=status, epochs=epochs[-1]), [])
            tracker.close()
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("run-1")
        runs = {run.data.params["trial_id"]: run for run in client.search_runs([experiment.experiment_id])}
        assert {name: (run.info.status, run.data.tags["status"]) for name, run in runs.items()} == {
            "aa11": ("FINISHED", "completed"),
            "bb22": ("FAILED", "interrupted"),
        }
        run = runs["aa11"]
        assert run.info.run_name == "symmetric:0.4 negative search aa11"
        assert run.data.params == {"trial_id": "aa11", **{name: str(value) for name, value in FACTS.items()}}
        assert run.data.metrics["best_val_accuracy"] == 0.75
        curve = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "val_accuracy")}
        assert curve == {i: epoch(i)["val_accuracy"] for i in range(1, 5)}


class TestChecks:
    def test_without_flags_nothing_is_imported(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: pytest.fail("looked for a package"))
        check_trackers(check_search_settings(tensorboard=True))

    @pytest.mark.parametrize("package", ["mlflow", "wandb"])
    @pytest.mark.parametrize("folder", [False, True])
    def test_a_missing_package_is_one_line_with_the_command(self, package, folder, tmp_path, monkeypatch):
        """A folder of that name, where both keep local files, is no package."""
        (tmp_path / package).mkdir(exist_ok=True)
        monkeypatch.setattr(sys, "path", [str(tmp_path)] if folder else [])
        monkeypatch.delitem(sys.modules, package, raising=False)
        with pytest.raises(InputError, match=rf"--{package} needs .*; pip install 'nls-tune\[{package}\]'$"):
            check_trackers(check_search_settings(**{package: "x"}))

    @pytest.mark.parametrize("uri", ["http://me:secret@127.0.0.1:9", "nonsense://x", "file:store"])
    def test_a_bad_uri_is_one_line(self, uri, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
        before = dict(os.environ)
        with pytest.raises(InputError, match="--mlflow must be a tracking URI that answers") as caught:
            check_trackers(check_search_settings(mlflow=uri))
        assert "secret" not in str(caught.value)
        assert len(str(caught.value)) < 350
        assert dict(os.environ) == before
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("project", "key", "mode", "message"),
        [
            ("nls", None, None, "no key is found; run wandb login"),
            ("nls", "k" * 40, None, None),
            ("nls", None, "offline", None),
            ("a/b", None, "offline", "must be the name of a project"),
            ("  ", None, "offline", "must be the name of a project"),
        ],
    )
    def test_wandb_must_know_who_you_are(self, project, key, mode, message, tmp_path, monkeypatch):
        (tmp_path / "wandb").mkdir()
        (tmp_path / "wandb" / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "wandb", raising=False)
        fake = SimpleNamespace(ensure_configured=lambda: None, api=SimpleNamespace(api_key=None))
        monkeypatch.setattr("ray.air.integrations.wandb.wandb", fake)
        for name, value in (("WANDB_API_KEY", key), ("WANDB_MODE", mode)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        settings = check_search_settings(wandb=project)
        if message is None:
            check_trackers(settings)
        else:
            with pytest.raises(InputError, match=message):
                check_trackers(settings)

    def test_the_flags_are_no_part_of_what_a_run_is(self, tiny_plan):
        settings = tiny_plan.settings.model_copy(update={"tensorboard": True, "mlflow": "x", "wandb": "y"})
        assert tiny_plan.__class__(**{**vars(tiny_plan), "settings": settings}).identity() == tiny_plan.identity()


def test_passwords_are_taken_out_of_uris():
    assert without_password("a --mlflow postgresql://me:pa:ss@host/db") == "a --mlflow postgresql://me:***@host/db"
    for text in ("http://host:80/a@b", "matrix:a.csv", "s3://bucket/a:b@c"):
        assert without_password(text) == text
