"""A finished run of version 0.1, before the modules moved: every command gives the numbers that its files hold."""

import json
import re
import shutil
from pathlib import Path

import optuna
import pandas as pd
import pytest
from commands import run_search

from nls_tune.analysis.analysis import analyze
from nls_tune.cli.exit import run_app
from nls_tune.cli.main import app
from nls_tune.runs import load_run
from nls_tune.runs.reading import read_epochs, read_trials
from nls_tune.runs.schemas import settings_of

pytestmark = pytest.mark.slow

OLD = Path(__file__).parents[1] / "data" / "run_0.1" / "finished"
#: The command that made the run.
ARGUMENTS = (
    "--dataset", "twonorm",
    "--noise", "symmetric:0.2,symmetric:0.4", "--num-trials", "6", "--epochs", "5", "--train-size", "400",
    "--confirm-seeds", "2", "--preset", "cpu", "--estimate-noise",
    "--set", "clip_norm=0", "--set", "average_spans=[]",  # what the space of later versions has besides
)  # fmt: skip
#: Per level and arm: the selected trial, its validation accuracy, its test accuracy, as the rows have them.
SELECTED = {
    ("symmetric:0.2", "ce"): ("d2ca0df8dda23fe1", 0.622125, 0.7343),
    ("symmetric:0.2", "positive"): ("70c21f8baf02ded5", 0.611875, 0.7147),
    ("symmetric:0.2", "negative"): ("d8509c566a934865", 0.775, 0.9539),
    ("symmetric:0.4", "ce"): ("81e38e127feabf2d", 0.56875, 0.8045),
    ("symmetric:0.4", "positive"): ("5e685a6306ce56a0", 0.524125, 0.559),
    ("symmetric:0.4", "negative"): ("a65c336bbc6b25db", 0.572, 0.8237),
}
#: Per level and configuration: smooth rate, learning rate, mean test accuracy of two fresh seeds.
CONFIRMED = {
    "symmetric:0.2": [(0.0, 0.003, 0.7585), (0.1, 0.003, 0.73895), (-0.04386, 0.03675, 0.9598)],
    "symmetric:0.4": [
        (0.0, 0.02554, 0.9142), (0.0, 0.003, 0.5928), (0.1, 0.003, 0.58065), (-0.7843, 0.02468, 0.93305),
    ],
}  # fmt: skip


@pytest.fixture
def run(tmp_path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def parts(run: Path) -> dict[str, bytes]:
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in run.glob("*/*.parquet")}


def test_all_of_it_is_read():
    found = load_run(OLD)
    assert (found.status, found.problems, found.levels) == ("finished", (), tuple(CONFIRMED))
    assert found.trials.groupby("stage").size().to_dict() == {"confirm": 14, "search": 12}
    assert found.trials["status"].value_counts().to_dict() == {"completed": 24, "stopped": 2}
    assert found.epochs.groupby("trial_id").size().sum() == 24 * 5 + 1 + 2
    assert len(read_trials(OLD)) == 26
    assert len(read_epochs(OLD)) == len(found.epochs)
    assert {settings_of(row).epochs for row in found.trials.to_dict("records")} == {5}


def test_the_analysis_selects_the_highest_validation_accuracy():
    (found,) = analyze([load_run(OLD)]).runs
    selected = {(s.noise_level, arm): one for s in found.summaries for arm, one in s.arms.items()}
    assert {k: (one.trial_id, one.val_accuracy, one.test_accuracy_at_best) for k, one in selected.items()} == SELECTED
    search = found.run.trials[(found.run.trials["stage"] == "search") & (found.run.trials["status"] == "completed")]
    best = search.loc[search.groupby(["noise_level", "arm"])["best_val_accuracy"].idxmax()]
    assert set(best["trial_id"]) == {trial_id for trial_id, _, _ in SELECTED.values()}
    for level in found.confirmations:
        means = [(c.config["smooth_rate"], c.config["lr"], c.test_at_best.mean) for c in level.configurations]
        assert means == [pytest.approx(expected) for expected in CONFIRMED[level.noise_level]]


def test_the_page_is_written(run, capsys):
    assert run_app(app, ["report", str(run)]) == 0
    assert str(run / "report.html") in capsys.readouterr().out
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "symmetric:0.4" in page
    assert "−0.04386" in page


def test_it_is_exported(tmp_path, capsys):
    file = tmp_path / "journal"
    assert run_app(app, ["export", "optuna", str(OLD), str(file)]) == 0
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
    best = {s.study_name: s.best_trial for s in optuna.get_all_study_summaries(storage)}
    for name, trial in best.items():
        found = (trial.user_attrs["trial_id"], trial.value, trial.user_attrs["test_accuracy_at_best"])
        assert found == SELECTED[tuple(name.split()[1:])]
    assert len(best) == len(SELECTED)
    # And to TensorBoard.
    assert run_app(app, ["export", "tensorboard", str(OLD), str(tmp_path / "tb")]) == 0
    assert "26 trials\n" in capsys.readouterr().out
    assert len(list((tmp_path / "tb").rglob("*tfevents*"))) == 26


def test_it_is_watched_and_listed(run, capsys):
    assert run_app(app, ["watch", str(run)]) == 0
    assert "12 of 12 trials" in capsys.readouterr().out
    assert run_app(app, ["runs", str(run.parent), "--format", "json"]) == 0
    assert '"finished"' in capsys.readouterr().out


def test_the_same_command_prints_the_table_again_and_trains_nothing_and_other_settings_are_refused(run, capsys):
    before = parts(run)
    done = run_search(*ARGUMENTS, "--out", str(run), folder=run.parent)
    assert (done.code, done.err) == (0, "")
    for level, _ in SELECTED:
        assert re.search(rf"^{level} .*(better|worse|proven|confirmed|trained)", done.out, re.MULTILINE)
    assert "[1/" not in done.out
    assert parts(run) == before
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (content["status"], len(content["sessions"])) == ("finished", 1)
    assert pd.read_parquet(run / "trials").shape[0] == 26
    assert run_app(app, ["search", *ARGUMENTS, "--out", str(run), "--seed", "1"]) == 2
    assert "is a run with other settings" in capsys.readouterr().err
