"""What is taken from a run: level, data, and the configuration with its epoch."""

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from answers import LEVEL, write_answerable_run
from estimates import estimate_of
from fake_runs import read_raw, write_raw

from nls_tune import InputError, load_dataset, read_trials
from nls_tune.analysis.rows import have_settings
from nls_tune.noise import transition_matrix
from nls_tune.session.answer import _with_matrix, load_answer

OLD = Path(__file__).parents[1] / "data" / "run_0.1" / "finished"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_answerable_run(tmp_path_factory.mktemp("run") / "run")


def test_the_recommended_configuration_stops_at_the_median_of_the_confirmed_best_epochs(run):
    answer = load_answer(run)
    trials, use = read_trials(run), answer.verdict.use
    rows = trials[have_settings(trials, use.config) & (trials["stage"] == "confirm")]
    assert len(rows) == 3
    settings, stop_at, readout = answer.recommended
    assert stop_at == use.best_epoch == sorted(rows["best_epoch"])[1]
    assert {name: getattr(settings, name) for name in use.config} == use.config
    assert (settings.model, settings.epochs, settings.seed, readout) == ("mlp", 4, 0, "plain")
    assert (answer.default_ce.smooth_rate, answer.default_ce.lr, answer.default_ce.epochs) == (0, 0.003, 4)
    assert (answer.level, answer.dataset.num_train, answer.class_names) == (LEVEL, 300, None)
    assert answer.folder("models") == run / "models" / "symmetric-0.2"


def test_without_a_confirmation_it_stops_at_the_best_epoch_of_the_search(tmp_path):
    answer = load_answer(write_answerable_run(tmp_path / "run", confirm_seeds=0))
    assert answer.recommended.stop_at == answer.verdict.use.best_epoch


def test_a_loss_that_corrects_for_the_noise_gets_the_matrix_of_the_search(run, tmp_path):
    answer, content = load_answer(run), load_answer(run).run.content
    matrix = ((0.9, 0.1), (0.2, 0.8))
    content.plan[0].noise_level, content.plan[0].estimate = LEVEL, asdict(estimate_of(LEVEL, matrix=matrix))
    (tmp_path / "m.csv").write_text("0.7,0.3\n0.4,0.6\n")
    forward = answer.recommended.settings.model_copy(update={"loss": "forward", "smooth_rate": 0.0})
    truth = transition_matrix(answer.dataset.clean_labels, answer.dataset.noisy_labels, 2)
    sources = {"estimate": matrix, "true_noise": truth, f"matrix:{tmp_path / 'm.csv'}": ((0.7, 0.3), (0.4, 0.6))}
    for source, expected in sources.items():
        found = _with_matrix(content, answer.dataset, forward.model_copy(update={"transition": source}))
        np.testing.assert_allclose(found.transition, expected)
    assert _with_matrix(content, answer.dataset, answer.recommended.settings) is answer.dataset


def test_the_data_of_a_run_of_version_0_1_are_those_that_it_was_searched_on(tmp_path):
    answer = load_answer(OLD, "symmetric:0.20")
    assert answer.dataset.fingerprint == answer.run.content.identity.fingerprints["symmetric:0.2"]
    assert answer.recommended is None
    assert (answer.default_ce.weight_decay, answer.default_ce.epochs) == (0.05, 5)


@pytest.mark.parametrize(
    ("level", "message"),
    [
        (None, "--level must name one of the noise levels of .*: symmetric:0.2, symmetric:0.4"),
        ("symmetric:0.3", "unknown noise level of this run 'symmetric:0.3' .*valid: symmetric:0.2, symmetric:0.4"),
        ("0.4", "unknown noise level of this run '0.4'"),
    ],
)
def test_a_level_must_be_one_of_the_run(level, message):
    with pytest.raises(InputError, match=message):
        load_answer(OLD, level)


def test_other_data_are_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    raw = read_raw(run)
    raw["identity"]["settings"]["noise_seed"] = 1
    write_raw(tmp_path / "run", **raw)
    with pytest.raises(InputError, match="are not what they were"):
        load_answer(tmp_path / "run")


def test_the_settings_of_the_last_session_count_but_for_those_that_hold_passwords(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "before").mkdir()
    shutil.copytree(run, tmp_path / "run")
    raw = read_raw(run)
    hidden = {"mlflow": "https://user:***@host", "storage": "s3://key:***@bucket/run"}
    settings = {"noise": [LEVEL], "val_fraction": 0.25, **hidden}
    raw["sessions"][0] |= {"settings": settings, "folder": str(tmp_path / "before")}
    data = load_dataset("twonorm", LEVEL, train_size=300, val_fraction=0.25)
    raw["identity"]["fingerprints"][LEVEL] = data.fingerprint
    write_raw(tmp_path / "run", **raw)
    assert load_answer("run").dataset.num_val == 2_000
    assert Path.cwd() == tmp_path / "before"


def test_a_run_behind_a_url_is_read_and_what_is_made_of_it_lies_here(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there, here = load_answer(f"file://{run}"), load_answer(run)
    assert there.recommended == here.recommended
    assert there.verdict.finding == here.verdict.finding
    assert there.folder("models") == tmp_path / "models" / "symmetric-0.2"


def test_a_level_without_an_ended_trial_is_said(tmp_path):
    with pytest.raises(InputError, match=r"has no ended trial at symmetric:0\.2; go on"):
        load_answer(write_answerable_run(tmp_path / "run", trials=0, status="interrupted"))
