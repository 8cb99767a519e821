"""The Optuna journal of a run, read by Optuna and by the dashboard, and the commands."""

import json
import socket
import subprocess
import sys
import urllib.request
from datetime import UTC
from pathlib import Path

import optuna
import pandas as pd
import pytest
from commands import environment, is_alive, wait_until
from fake_runs import write_fake_run, write_raw
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from trial_rows import trial_row, trials_frame

from nls_tune.cli.exit import run_app
from nls_tune.cli.main import app
from nls_tune.errors import InputError
from nls_tune.export.optuna_journal import export_optuna, searched_parameters
from nls_tune.runs import Run, load_run
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import epoch_frame
from nls_tune.runs.run_json import RunJson
from nls_tune.runs.schemas import epoch_schema

LEVELS = ("symmetric:0.2", "symmetric:0.4")
STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
RANGES = {"ce": (0.0, 0.0), "positive": (0.0, 0.8), "negative": (-8.0, 0.0)}


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> Path:
    """Two levels of 16 trials, two more that still run at each, and a confirmation, which is no part of a study."""
    path = tmp_path_factory.mktemp("fake") / "a run"
    return write_fake_run(path, levels=LEVELS, trials=16, epochs=6, unfinished=2, confirm_seeds=2)


@pytest.fixture(scope="module")
def journal(fake, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("journal") / "optuna.log"
    assert run_app(app, ["export", "optuna", str(fake), str(file)]) == 0
    assert list(file.parent.iterdir()) == [file]
    return file


def studies_of(file: Path) -> dict[str, optuna.Study]:
    backend = optuna.storages.journal.JournalFileBackend(str(file))
    storage = optuna.storages.JournalStorage(backend)
    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
    return {name: optuna.load_study(study_name=name, storage=storage) for name in names}


def made_up(rows: list[dict], space: dict | None = None, plan: list | None = None) -> Run:
    """A run of some rows, without epochs."""
    identity = {} if space is None else {"identity": {"space": {"space": space}}}
    content = RunJson.model_validate({"schema_version": 1, "status": "finished", "plan": plan or [], **identity})
    epochs = epoch_frame(epoch_schema().empty_table())
    levels = tuple({row["noise_level"]: None for row in rows})
    return Run(Path("/run"), "run", "finished", content, levels, trials_frame(rows), epochs, ())


def test_optuna_reads_every_trial_as_parquet_has_it(fake, journal):
    trials, epochs = pd.read_parquet(fake / "trials"), pd.read_parquet(fake / "epochs")
    search = trials[trials["stage"] == "search"].set_index("trial_id")
    assert (len(search), len(trials)) == (32, 32 + trials["stage"].eq("confirm").sum())
    assert {"completed", "stopped", "diverged"} <= set(search["status"])
    studies = studies_of(journal)
    assert list(studies) == [f"a run {level} {arm}" for level in LEVELS for arm in ("ce", "positive", "negative")]
    seen = []
    for name, study in studies.items():
        level, arm = name.removeprefix("a run ").rsplit(" ", 1)
        assert study.direction == optuna.study.StudyDirection.MAXIMIZE
        for trial in study.trials:
            row = search.loc[trial.user_attrs["trial_id"]]
            seen.append(row.name)
            assert (row["noise_level"], row["arm"]) == (level, arm)
            assert trial.params == {k: row[k] for k in ("smooth_rate", "warmup_epochs", "lr")}
            assert trial.distributions["smooth_rate"] == FloatDistribution(*RANGES[arm])
            assert trial.distributions["lr"] == FloatDistribution(1e-4, 0.05, log=True)
            assert isinstance(trial.distributions["warmup_epochs"], IntDistribution)
            assert trial.state == STATES.get(row["status"], TrialState.FAIL)
            assert trial.value == (row["best_val_accuracy"] if row["status"] in STATES else None)
            mine = epochs[epochs["trial_id"] == row.name]
            assert trial.intermediate_values == dict(zip(mine["epoch"], mine["val_accuracy"], strict=True))
            for attribute in ("status", "seed", "epochs", "best_epoch", "test_accuracy_at_best", "best_val_accuracy"):
                assert trial.user_attrs[attribute] == row[attribute]
            assert trial.datetime_start.astimezone(UTC) == row["started_at"]
            assert trial.datetime_complete.astimezone(UTC) == row["finished_at"]
    assert sorted(seen) == sorted(search.index)
    best = search[search["status"] == "completed"].groupby(["noise_level", "arm"])["best_val_accuracy"].max()
    assert [study.best_value for study in studies.values()] == [
        best[level, arm] for level in LEVELS for arm in ("ce", "positive", "negative")
    ]
    # Optuna searches on from there.
    study = studies[f"a run {LEVELS[0]} negative"]
    copy = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=2))
    copy.add_trials(study.trials)
    asked = copy.ask(study.trials[0].distributions)
    assert -8 <= asked.params["smooth_rate"] <= 0


@pytest.mark.slow
def test_the_dashboard_lists_every_study(journal, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "import sys; from optuna_dashboard._cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, str(journal), "--port", str(port), "--quiet", "--server", "wsgiref"]
    with (tmp_path / "log").open("w") as log:
        dashboard = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), start_new_session=True)

    def get(path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            assert answer.status == 200
            return answer.read()

    def answers() -> bool:
        try:
            return bool(get("/api/studies"))
        except OSError:
            assert dashboard.poll() is None, (tmp_path / "log").read_text()
            return False

    try:
        wait_until(answers, "the dashboard answers", 30)
        assert b"<title>" in get("/dashboard")
        found = {s["study_name"]: s["study_id"] for s in json.loads(get("/api/studies"))["study_summaries"]}
        studies = studies_of(journal)
        assert list(found) == list(studies)
        for name, study_id in found.items():
            shown = json.loads(get(f"/api/studies/{study_id}?after=0"))["trials"]
            assert [t["state"].upper() for t in shown] == [t.state.name for t in studies[name].trials]
    finally:
        dashboard.kill()
        dashboard.wait(10)
    assert not is_alive(dashboard.pid)


def test_groups_without_a_trial_are_empty_studies(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create()
    plan = [{"noise_level": "clean", "trials": {"negative": 2, "ce": 1}}]
    write_raw(run.path, status="running", plan=plan)
    assert export_optuna(load_run(run.path), tmp_path / "j") == {"run clean ce": 0, "run clean negative": 0}
    assert [study.trials for study in studies_of(tmp_path / "j").values()] == [[], []]
    write_raw(run.path, status="running")
    assert export_optuna(load_run(run.path), tmp_path / "empty") == {}
    assert studies_of(tmp_path / "empty") == {}


def test_values_outside_the_space_widen_it(tmp_path):
    space = {
        "smooth_rate": {"type": "float", "low": -2.0, "high": 0.5, "default": -1.0, "scale": "log1m"},
        "warmup_epochs": {"type": "int", "low": 2, "high": 8, "default": 2, "step": 2},
        "lr": {"type": "float", "low": 0.01, "high": 0.1, "default": 0.05, "scale": "log"},
        "batch_size": {"type": "int", "low": 64, "high": 256, "default": 64, "scale": "log"},
        "milestones": {"type": "choice", "values": [[], [5]], "default": []},
        "optimizer": {"type": "choice", "values": ["sgd"], "default": "sgd"},
        "momentum": {"type": "nonsense", "default": 0.9},
    }
    given = [
        {"smooth_rate": -4.0, "warmup_epochs": 3, "lr": 0.2, "batch_size": 32, "optimizer": "adamw", "momentum": 0.5},
        {"smooth_rate": -1.0, "warmup_epochs": 2, "lr": 0.05, "batch_size": 64, "milestones": (5,)},
    ]
    run = made_up([trial_row({"schedule": "step", **one}, minute=i) for i, one in enumerate(given)], space)
    export_optuna(run, tmp_path / "j")
    (study,) = studies_of(tmp_path / "j").values()
    assert study.trials[0].distributions == {
        "smooth_rate": FloatDistribution(-4.0, 0.0),
        "warmup_epochs": IntDistribution(2, 8),
        "lr": FloatDistribution(0.01, 0.2, log=True),
        "batch_size": IntDistribution(32, 256, log=True),
        "milestones": CategoricalDistribution(["[]", "[5]"]),
        "optimizer": CategoricalDistribution(["sgd", "adamw"]),
        "momentum": FloatDistribution(0.5, 0.9),
    }
    assert study.trials[1].params["milestones"] == "[5]"
    assert study.trials[0].distributions == study.trials[1].distributions


def test_what_is_not_known_is_left_out(tmp_path):
    rows = [
        trial_row({"smooth_rate": -1.0}, status="completed", best_val_accuracy=None, best_epoch=None),
        trial_row({"smooth_rate": -2.0}, minute=1, status="stopped", best_val_accuracy=None, best_epoch=None),
        trial_row({"smooth_rate": -3.0}, minute=2, status="interrupted", error="a\x1b[31m"),
        trial_row({"lr": 0.5}, minute=3, noise_level="other"),
    ]
    run = made_up(rows)
    run.trials.loc[0, "lr"] = float("nan")
    run.trials.loc[1, "started_at"] = pd.NaT
    assert list(searched_parameters(run)) == ["smooth_rate", "warmup_epochs", "lr"]
    assert export_optuna(run, tmp_path / "j") == {"run symmetric:0.4 negative": 3, "run other ce": 1}
    first, second, third = studies_of(tmp_path / "j")["run symmetric:0.4 negative"].trials
    assert [t.state for t in (first, second, third)] == [TrialState.FAIL, TrialState.PRUNED, TrialState.FAIL]
    assert (first.params, first.value) == ({"smooth_rate": -1.0, "warmup_epochs": 2}, None)
    assert (second.value, second.user_attrs["best_epoch"], second.datetime_start.year) == (None, None, 1970)
    assert third.user_attrs["best_val_accuracy"] == 0.75


def test_only_journals_are_replaced(fake, tmp_path):
    run, file = load_run(fake), tmp_path / "j"
    counts = export_optuna(run, file)
    before = file.read_bytes()
    with pytest.raises(InputError, match=r"exists already; give another file, or --overwrite"):
        export_optuna(run, file)
    assert export_optuna(run, file, overwrite=True) == counts
    assert len(file.read_bytes().splitlines()) == len(before.splitlines())
    other = tmp_path / "other"
    for content in (b"my thesis\n", b"[1]\n", b"\xff\x00"):
        other.write_bytes(content)
        with pytest.raises(InputError, match="replaces only Optuna journals"):
            export_optuna(run, other, overwrite=True)
        assert other.read_bytes() == content
    for place in (tmp_path, tmp_path / "missing" / "j"):
        with pytest.raises(InputError, match=r"give another"):
            export_optuna(run, place, overwrite=True)


@pytest.mark.parametrize("format_", ["optuna", "tensorboard"])
def test_a_folder_that_is_no_run_is_bad_input(format_, tmp_path, capsys):
    assert run_app(app, ["export", format_, str(tmp_path), str(tmp_path / "x")]) == 2
    assert "is not a run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_wrote_and_what_it_could_not_read(tmp_path, capsys):
    path = write_fake_run(tmp_path / "run", levels=("symmetric:0.4",), trials=4, epochs=4)
    torn = sorted(path.glob("trials/[!e]*.parquet"))[0]
    torn.write_bytes(b"PAR1")
    assert run_app(app, ["export", "optuna", str(path), str(tmp_path / "j")]) == 0
    out = capsys.readouterr().out
    assert sum(int(line.split()[-2]) for line in out.splitlines() if line.startswith("run ")) == 3
    assert f"Left out: trials/{torn.name}" in out
    assert out.endswith(f"To look at it: optuna-dashboard {tmp_path / 'j'}\n")
