"""How a run goes on: budgets that grow, what a dry run says of it, and the settings that run.json keeps."""

import io
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

from nls_tune.cli import main as cli
from nls_tune.cli import search as search_command
from nls_tune.cli.exit import run_app
from nls_tune.errors import InputError
from nls_tune.plan.plan import SearchPlan, make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs.directory import RunDirectory
from nls_tune.session import session
from nls_tune.session.beginning import begin_run
from nls_tune.session.continuing import first_of, settings_of_run, standing, stored_settings

SETTINGS: dict[str, Any] = {
    "dataset": "twonorm",
    "noise": ("symmetric:0.4",),
    "preset": "cpu",
    "epochs": 6,
    "train_size": 500,
}


def plan_of(**changes: Any) -> SearchPlan:
    return make_plan(check_search_settings(**{**SETTINGS, "num_trials": 4, **changes}), 0, progress=False)


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    """A finished run of four trials per level."""
    found = RunDirectory(tmp_path / "run")
    found.create()
    content = begin_run(plan_of(), found)
    content.status, content.ended_by = "finished", "trials"
    content.plan[0].estimate = {"noise_rate": 0.3}
    found.write_json(content)
    return found


class TestBudgets:
    def test_more_trials_go_on_with_the_run(self, run):
        before = run.read_json()
        content = begin_run(plan_of(num_trials=8), run)
        assert content == run.read_json()
        assert (content.run_id, content.status, content.ended_by) == (before.run_id, "interrupted", None)
        assert content.planned_trials == {"symmetric:0.4": 8}
        assert content.plan[0].estimate == {"noise_rate": 0.3}  # is not made again
        assert content.plan[0].start == before.plan[0].start
        again = begin_run(plan_of(num_trials=8), run)
        assert again == content
        with pytest.raises(InputError, match=r"space\.budget\.trials: 8 -> 4; give another --out"):
            begin_run(plan_of(), run)

    def test_the_same_number_changes_nothing(self, run):
        text = run.run_json.read_text()
        begin_run(plan_of(), run)
        assert run.run_json.read_text() == text

    def test_growing_excuses_nothing_else(self, run):
        with pytest.raises(InputError) as raised:
            begin_run(plan_of(num_trials=8, sampler="random"), run)
        assert "settings.sampler: tpe -> random" in str(raised.value)
        assert "trials" not in str(raised.value)


class TestDryRun:
    def words(self, out: Path, **changes: Any) -> str:
        console = Console(file=io.StringIO(), width=200)
        settings = check_search_settings(**{**SETTINGS, "num_trials": 4, "out": out, **changes})
        session.run_settings(settings, console, dry_run=True)
        return console.file.getvalue().splitlines()[-1]

    def test_it_says_what_would_differ_and_writes_nothing(self, run):
        text = run.run_json.read_text()
        assert self.words(run.path) == f"{run.path} is a run with these settings (finished), and would go on"
        grown = self.words(run.path, num_trials=8)
        assert grown.endswith("and would go on, with 8 trials per noise level in place of 4")
        refused = self.words(run.path, seed=1)
        assert refused.startswith(
            f"{run.path} is a run with other settings, and would be refused: settings.seed: 0 -> 1"
        )
        assert run.run_json.read_text() == text

    def test_of_a_new_run_there_is_nothing_to_say(self, tmp_path):
        assert standing(plan_of(), RunDirectory(tmp_path / "new")) is None


class TestStoredSettings:
    def test_they_are_what_was_asked_for_without_passwords(self, tmp_path):
        settings = check_search_settings(
            **SETTINGS, out=tmp_path, data_dir="data", mlflow="http://me:secret@host:5000", time_budget="2h"
        )
        stored = stored_settings(settings)
        assert stored["folder"] == str(Path.cwd())
        assert json.loads(json.dumps(stored["settings"])) == {
            **SETTINGS,
            "noise": ["symmetric:0.4"],
            "data_dir": "data",
            "mlflow": "http://me:***@host:5000",
            "time_budget": 7200.0,
        }

    def begun(self, run: RunDirectory, **changes: Any) -> RunDirectory:
        content = run.read_json()
        settings = check_search_settings(**{**SETTINGS, "num_trials": 4, **changes})
        made = {"started_at": "2026-01-01T00:00:00Z", **stored_settings(settings)}
        content.sessions = [type(content).model_validate({**content.model_dump(), "sessions": [made]}).sessions[0]]
        run.write_json(content)
        return run

    def test_a_run_goes_on_with_them_in_the_folder_of_its_session(self, run, tmp_path, monkeypatch):
        there = tmp_path / "there"
        there.mkdir()
        monkeypatch.chdir(there)
        self.begun(run, data_dir="data")
        monkeypatch.chdir(tmp_path)
        settings = settings_of_run(run, {"num_trials": 8, "time_budget": "1h"})
        expected = check_search_settings(**SETTINGS, num_trials=8, time_budget=3600.0, data_dir="data", out=run.path)
        assert settings == expected
        assert Path.cwd() == there

    @pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
    def test_it_stays_where_it_is_if_that_folder_cannot_be_entered(self, run, tmp_path, monkeypatch, error):
        self.begun(run)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("os.chdir", Mock(side_effect=error))
        assert settings_of_run(run, {}).dataset == "twonorm"
        assert Path.cwd() == tmp_path

    def test_the_dataset_is_that_of_the_run_where_its_session_kept_none(self, run):
        """Defaults are not kept, and the default dataset was another one in earlier versions."""
        content = self.begun(run).read_json()
        del content.sessions[-1].settings["dataset"]
        run.write_json(content)
        assert settings_of_run(run, {}).dataset == "twonorm"

    def test_a_password_is_asked_for(self, run):
        self.begun(run, mlflow="http://me:secret@host:5000")
        with pytest.raises(
            InputError, match=r"keeps no passwords: give --mlflow again, with the one of http://me:\*\*\*@"
        ):
            settings_of_run(run, {})
        assert settings_of_run(run, {"mlflow": "sqlite:///x.db"}).mlflow == "sqlite:///x.db"

    def test_a_run_of_an_earlier_version_names_its_command(self, run):
        content = self.begun(run).read_json()
        content.sessions[0].settings, content.sessions[0].command = None, "nls-tune search --epochs 6"
        run.write_json(content)
        with pytest.raises(InputError, match=r"give the command of its search again.*: nls-tune search --epochs 6"):
            settings_of_run(run, {})


class TestResume:
    def test_it_runs_the_search_with_what_was_given(self, run, monkeypatch):
        TestStoredSettings().begun(run, sweep=5, sweep_trials=3)
        seen: list[Any] = []

        def run_settings(settings, console, **options):
            seen.append((settings, options))
            return SimpleNamespace(status="finished")

        monkeypatch.setattr("nls_tune.session.session.run_settings", run_settings)
        assert run_app(cli.app, ["resume", str(run.path), "--num-trials", "8", "--max-concurrent", "1"]) == 0
        ((settings, options),) = seen
        assert (settings.num_trials, settings.max_concurrent, settings.epochs) == (8, 1, 6)
        # A flag that was not given changes nothing of what the run was made with.
        assert (settings.sweep, settings.sweep_trials) == (5, 3)
        assert settings.out == run.path
        assert options == {"dry_run": False, "assume_gpus": None}

    def test_what_is_not_a_run_is_refused_in_one_line(self, tmp_path, capsys):
        assert run_app(cli.app, ["resume", str(tmp_path)]) == 2
        assert capsys.readouterr().err == f"error: {tmp_path} is not a run: it has no run.json\n"


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/bin/nls-tune", "resume", "run", "--max-concurrent", "1"], "nls-tune resume run --max-concurrent 1"),
        (
            ["/bin/nls-tune", "search", "--mlflow", "http://me:secret@host", "--out", "o"],
            "nls-tune search --mlflow 'http://me:***@host' --out o",
        ),
    ],
)
def test_the_command_that_resumes(monkeypatch, argv, command):
    monkeypatch.setattr("sys.argv", argv)
    assert search_command._resume_command(Path("run")) == command


def test_a_finished_run_with_more_trials_works_again(run, monkeypatch):
    monkeypatch.setattr("nls_tune.tune.starting.ray_session", lambda address: nullcontext({"CPU": 1.0}))
    monkeypatch.setattr("nls_tune.session.session.with_estimates", lambda *a: a[0], raising=False)
    ran: list[int] = []

    def execute(work, budget):
        ran.append(work.plan.num_trials)
        return "trials"

    monkeypatch.setattr("nls_tune.session.searching.execute", execute)
    settings = check_search_settings(**SETTINGS, num_trials=8, confirm_seeds=0, out=run.path)
    result = session.run_settings(settings, Console(file=io.StringIO()))
    assert ran == [8]
    assert result is not None
    assert run.read_json().status == "finished"
    assert run.read_json().sessions[-1].settings["num_trials"] == 8


def test_a_run_directory_whose_path_is_no_text_is_refused_before_anything_is_made(tmp_path):
    out = tmp_path / "\udcff"
    with pytest.raises(InputError, match=r"--out must be a path in UTF-8.*\\udcff'; give another place"):
        session.run_settings(check_search_settings(**SETTINGS, out=out), Console(file=io.StringIO()))
    assert list(tmp_path.iterdir()) == []


def test_a_message_names_the_first_differences_and_counts_the_others():
    assert first_of(["a", "b", "c", "d"]) == "a; b; c; d"
    assert first_of(["a", "b", "c", "d", "e"]) == "a; b; c; d; and 1 other difference"
    assert first_of(["a", "b", "c", "d", "e", "f"]).endswith("d; and 2 other differences")
