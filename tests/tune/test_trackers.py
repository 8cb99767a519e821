"""Trackers that fail, hang or work, and what MLflow and Weights & Biases are told. Ray is not started."""

import logging
import math
import os
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
from test_recorder import Driven, epoch
from trial_rows import trial_row

from nls_tune import InputError
from nls_tune.machine.provenance import without_password
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_epochs
from nls_tune.tune.tracker import BackgroundTracker, tracked_trial
from nls_tune.tune.trackers import MlflowTracker, WandbTracker, check_trackers

FACTS = {"noise_level": "symmetric:0.4", "arm": "negative", "stage": "search", "smooth_rate": -1.0, "milestones": [3]}


def a_trial(tmp_path, name="aa11", run_id="twonorm-20260102T030405Z-9f42"):
    return tracked_trial(RunDirectory(tmp_path), run_id, name, FACTS)


class Spy:
    def __init__(self) -> None:
        self.told: list[tuple] = []

    def close(self) -> None:
        self.told.append(("closed",))

    def started(self, trial) -> None:
        self.told.append(("started", trial.config["trial_id"]))

    def reported(self, trial, epochs) -> None:
        self.told.append(("reported", trial.config["trial_id"], [e["epoch"] for e in epochs]))

    def ended(self, trial, row, epochs) -> None:
        self.told.append(("ended", trial.config["trial_id"], row["status"], [e["epoch"] for e in epochs]))


class TestTheRecorder:
    def test_it_tells_each_epoch_once_and_the_row_at_the_end(self, tiny_plan, tmp_path):
        spy = Spy()
        driven = Driven(tiny_plan, tmp_path, spy)
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
        spy = Spy()
        driven = Driven(tiny_plan, tmp_path, spy)
        driven.start(driven.trial())
        driven.fail(driven.trial("t2", error="OSError: no disk", lr=0.01))
        driven.recorder.interrupt()
        assert [told[0] for told in spy.told] == ["started", "started", "ended", "ended"]
        assert [told[2:] for told in spy.told[2:]] == [("failed", []), ("interrupted", [])]

    def test_a_trial_is_described_by_all_its_settings(self, tiny_plan, tmp_path):
        seen = []
        driven = Driven(tiny_plan, tmp_path, SimpleNamespace(started=seen.append))
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


class FakeWandb(ModuleType):
    """The public names of wandb that are used: ``init``, ``Settings``, ``api``; its runs are remembered."""

    def __init__(self, key: str | None = None) -> None:
        super().__init__("wandb")
        self.runs, self.api = [], SimpleNamespace(api_key=key)

    class Settings(SimpleNamespace):
        pass

    class Run(SimpleNamespace):
        """A run: what it was begun with, and what was logged by step."""

        finishes = staticmethod(lambda: None)

        def log(self, values, step) -> None:
            self.logged.append((step, values))

        def finish(self, exit_code) -> None:
            self.finishes()
            self.exit_code = exit_code

    def init(self, **given):
        config = dict(given.pop("config"))
        changed = SimpleNamespace(update=lambda values, allow_val_change: config.update(values), values=config)
        self.runs.append(self.Run(given=given, config=changed, logged=[]))
        return self.runs[-1]


class TestWandb:
    @pytest.fixture
    def wandb(self, monkeypatch) -> FakeWandb:
        fake = FakeWandb()
        monkeypatch.setitem(sys.modules, "wandb", fake)
        return fake

    def test_a_trial_is_a_run_with_settings_curves_and_outcome(self, wandb, tmp_path):
        tracker, trial = WandbTracker("nls", "run-1"), a_trial(tmp_path, run_id="my run:/1" + "x" * 60)
        tracker.started(trial)
        tracker.started(trial)  # after a lost worker
        tracker.reported(trial, [epoch(1, test_accuracy=None), epoch(2, train_loss=math.nan)])
        tracker.ended(trial, trial_row(status="diverged", epochs=2), [])
        tracker.close()
        (run,) = wandb.runs
        name, settings = run.given.pop("id"), run.given.pop("settings")
        assert run.given == {
            "project": "nls", "group": "run-1", "name": "symmetric:0.4 negative search aa11", "dir": str(tmp_path),
            "resume": "allow", "reinit": "create_new",
        }  # fmt: skip
        assert (settings.silent, settings.console) == (True, "off")
        assert (len(name), name[-6:], set(name) & set(" :/")) == (64, "x-aa11", set())
        assert run.config.values == {"trial_id": "aa11", **FACTS, "status": "diverged"}
        assert [step for step, _ in run.logged] == [1, 2, 2]
        first, second, outcome = (values for _, values in run.logged)
        assert first.keys() == {"val_accuracy", "train_accuracy", "val_loss", "train_loss", "lr"}
        assert "train_loss" not in second
        assert (outcome["best_val_accuracy"], "test_accuracy_at_best" in outcome) == (0.75, False)
        assert run.exit_code == 0

    @pytest.mark.parametrize("status", ["failed", "out_of_memory", "interrupted"])
    def test_what_has_no_result_failed_and_may_begin_again(self, wandb, status, tmp_path):
        tracker, trial = WandbTracker("nls", "run-1"), a_trial(tmp_path)
        for _ in range(2):
            tracker.started(trial)
            tracker.ended(trial, trial_row(status=status), [])
        tracker.close()
        assert [run.exit_code for run in wandb.runs] == [1, 1]

    def test_what_cannot_be_sent_holds_no_other_trial_up_and_is_said(self, wandb, tmp_path, monkeypatch):
        let_go = threading.Event()

        def finishes() -> None:
            let_go.wait(30)
            raise ConnectionError("no route")

        monkeypatch.setattr(FakeWandb.Run, "finishes", staticmethod(finishes))
        tracker = WandbTracker("nls", "run-1")
        for name in ("aa11", "bb22"):
            trial = a_trial(tmp_path, name)
            tracker.started(trial)
            tracker.ended(trial, trial_row(), [])
        let_go.set()
        with pytest.raises(ConnectionError, match="no route"):
            tracker.close()


class TestMlflow:
    @pytest.fixture
    def uri(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # SQLite takes seconds to set up
        return f"file:{tmp_path / 'store'}"

    @pytest.mark.slow
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
        ("project", "variables", "login", "message"),
        [
            ("nls", {}, None, "no key is found; run wandb login"),
            ("nls", {}, "k" * 40, None),
            ("nls", {"WANDB_API_KEY": "k" * 40}, None, None),
            ("nls", {"WANDB_MODE": "offline"}, None, None),
            ("a/b", {"WANDB_MODE": "offline"}, None, "must be the name of a project"),
            ("  ", {"WANDB_MODE": "offline"}, None, "must be the name of a project"),
        ],
    )
    def test_wandb_must_know_who_you_are(self, project, variables, login, message, tmp_path, monkeypatch):
        (tmp_path / "wandb").mkdir()
        (tmp_path / "wandb" / "__init__.py").write_text(f"class api:\n    api_key = {login!r}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "wandb", raising=False)
        for name in ("WANDB_API_KEY", "WANDB_MODE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with nullcontext() if message is None else pytest.raises(InputError, match=message):
            check_trackers(check_search_settings(wandb=project))
        monkeypatch.delitem(sys.modules, "wandb", raising=False)

    def test_the_flags_are_no_part_of_what_a_run_is(self, tiny_plan):
        settings = replace(tiny_plan.settings, tensorboard=True, mlflow="x", wandb="y")
        assert replace(tiny_plan, settings=settings).identity() == tiny_plan.identity()


def test_passwords_are_taken_out_of_uris():
    assert without_password("a --mlflow postgresql://me:pa:ss@host/db") == "a --mlflow postgresql://me:***@host/db"
    for text in ("http://host:80/a@b", "matrix:a.csv", "s3://bucket/a:b@c"):
        assert without_password(text) == text
