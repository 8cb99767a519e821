"""A search session without Ray: what run.json says meanwhile, and the noise estimate, made, kept and read again."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from dataclasses import replace

import pytest
from estimates import estimate_of, hide_the_truth
from rich.console import Console

from nls_tune import InputError
from nls_tune.cli.exit import run_app
from nls_tune.cli.search import app
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_status
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.session import session
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.tune.cluster import Slots

SETTINGS = {
    "dataset": "twonorm",
    "noise": ("symmetric:0.2", "symmetric:0.4"),
    "num_trials": 4,
    "epochs": 6,
    "train_size": 500,
}
SLOTS = Slots(count=1, cpus_per_trial=1, gpus_per_trial=0)


class Stopped(Exception):  # noqa: N818
    """Raised where the trials would start."""


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The levels whose noise was estimated; nothing is trained and no trial starts."""
    levels: list[str] = []

    def estimate_level(plan, level, **kwargs):
        levels.append(level.level)
        return estimate_of(level.level)

    def stop(*arguments):
        raise Stopped

    monkeypatch.setattr("nls_tune.session.estimating.estimate_level", estimate_level)
    monkeypatch.setattr("nls_tune.session.session.Session.search", stop)
    monkeypatch.setattr("nls_tune.tune.starting.ray_session", lambda address: pytest.MonkeyPatch.context())
    monkeypatch.setattr("nls_tune.tune.cluster.slots_of", lambda *arguments: SLOTS)
    return levels


@pytest.fixture
def unknown(made, monkeypatch) -> list[str]:
    """The levels whose noise was estimated, of data whose true noise nobody knows."""
    hide_the_truth(monkeypatch)
    return made


def run(out, console=None, **changes):
    settings = check_search_settings(**{**SETTINGS, "out": out, **changes})
    return session.run_settings(settings, console, dry_run=False)


def content_of(out) -> dict:
    return json.loads((out / "run.json").read_text())


def start(out, **changes) -> str:
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(Stopped):
        run(out, console, **changes)
    return console.file.getvalue()


def estimates_in(out) -> list[float | None]:
    return [facts["estimate"] and facts["estimate"]["noise_rate"] for facts in content_of(out)["plan"]]


@pytest.mark.parametrize(("gpus", "where"), [(1.0, "cluster"), (0.0, "here")])
def test_on_a_cluster_with_gpus_the_noise_is_estimated_there(unknown, monkeypatch, tmp_path, gpus, where):
    there: list[str] = []

    def estimate_on_cluster(plan, level):
        there.append(level.level)
        return estimate_of(level.level)

    monkeypatch.setattr("nls_tune.tune.estimating.estimate_on_cluster", estimate_on_cluster)
    monkeypatch.setattr("nls_tune.tune.starting.ray_session", lambda address: nullcontext({"CPU": 4, "GPU": gpus}))
    monkeypatch.setattr("nls_tune.tune.shared.check_nodes", lambda *arguments: None)
    monkeypatch.setattr("nls_tune.tune.cluster.check_machine", lambda *arguments: None)
    monkeypatch.setattr("nls_tune.tune.cluster.slots_of", lambda *arguments: replace(SLOTS, gpus_per_trial=gpus))
    text = start(tmp_path / "run", address="head:6379", preset="cpu")
    assert (there, unknown) == ((list(SETTINGS["noise"]), []) if where == "cluster" else ([], list(SETTINGS["noise"])))
    assert text.count("from its noisy labels on a GPU of the cluster") == len(there)
    assert None not in estimates_in(tmp_path / "run")


def test_unknown_noise_is_estimated_before_the_trials_and_kept(unknown, tmp_path):
    hint = "Start points hold the noise-cancelling rate of the estimated noise"
    text = start(tmp_path)
    assert unknown == ["symmetric:0.2", "symmetric:0.4"]
    assert estimates_in(tmp_path) == [0.3, 0.3]
    first, second = content_of(tmp_path)["plan"]
    assert (first["noise_rate"], first["noise_cancelling_rate"]) == (None, None)
    assert [point["smooth_rate"] for point in second["start"]["negative"]] == [-1.5]
    assert "noise rate 30.0 % [25.0, 35.0]; 1.0 s" in text
    assert text.index("noise rate 30.0 %") < text.index(hint)
    unknown.clear()
    assert hint in start(tmp_path)  # the run goes on and reads its estimates
    assert unknown == []


def test_a_run_that_was_interrupted_between_two_estimates_makes_the_other(unknown, monkeypatch, tmp_path):
    def interrupted(plan, level, **kwargs):
        if level.level == "symmetric:0.4":
            raise KeyboardInterrupt
        return estimate_of(level.level)

    with monkeypatch.context() as patch:
        patch.setattr("nls_tune.session.estimating.estimate_level", interrupted)
        assert run(tmp_path).status == "interrupted"
    assert content_of(tmp_path)["status"] == "interrupted"
    assert estimates_in(tmp_path) == [0.3, None]
    start(tmp_path)
    assert unknown == ["symmetric:0.4"]
    assert estimates_in(tmp_path) == [0.3, 0.3]


def test_run_json_says_that_a_session_works_before_its_trials(unknown, monkeypatch, tmp_path):
    seen: list[tuple[str, str, int]] = []

    def look(plan, level, **kwargs):
        content, (_, status) = content_of(tmp_path), read_status(RunDirectory(tmp_path))
        seen.append((content["status"], status, len(content["sessions"])))
        assert content["sessions"][-1]["finished_at"] is None
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nls_tune.session.estimating.estimate_level", look)
        for _ in range(2):
            assert run(tmp_path).status == "interrupted"
    assert seen == [("running", "running", 1), ("running", "running", 2)]
    sessions = content_of(tmp_path)["sessions"]
    assert [bool(each["finished_at"]) for each in sessions] == [True, True]
    start(tmp_path)
    assert content_of(tmp_path)["status"] == "failed"


def test_a_second_ctrl_c_skips_the_table_and_leaves_the_run_in_order(unknown, monkeypatch, tmp_path, capsys):
    def press(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("nls_tune.session.estimating.estimate_level", press)
    monkeypatch.setattr("nls_tune.session.session.conclude_run", press)
    monkeypatch.setattr("sys.argv", ["nls-tune", "search", "--epochs", "6"])
    assert run_app(app, ["--epochs", "6", "--out", str(tmp_path)]) == 130
    said = [line for line in capsys.readouterr().out.splitlines() if line]
    assert said[-1].endswith(f"To go on: nls-tune search --epochs 6 --out {tmp_path}")
    assert content_of(tmp_path)["status"] == "interrupted"
    with pytest.raises(KeyboardInterrupt) as raised:
        session.run_search(epochs=6, out=tmp_path)
    assert raised.value.run == tmp_path


@pytest.mark.parametrize("left", [0, 2])
def test_a_confirmation_is_announced_only_where_something_is_left_of_it(left, monkeypatch, tmp_path):
    config = {"smooth_rate": 0.0, "warmup_epochs": 1, "lr": 0.01}
    selected = {"symmetric:0.2": [{**config, "lr": 0.01 * (1 + i)} for i in range(left)]}
    monkeypatch.setattr("nls_tune.tune.starting.ray_session", lambda address: nullcontext({"CPU": 1.0}))
    monkeypatch.setattr("nls_tune.session.searching.execute", lambda *arguments: "trials")
    monkeypatch.setattr("nls_tune.session.confirming.confirm_configurations", lambda plan, trials: selected)
    seen: list[str] = []

    def look(*arguments, **options):
        seen.append(content_of(tmp_path)["status"])

    monkeypatch.setattr("nls_tune.session.confirming.run_experiment", look)
    console = Console(file=io.StringIO(), width=200)
    result = run(tmp_path, console, confirm_seeds=3)
    assert ("Confirmation with 3 fresh seeds" in console.file.getvalue()) == bool(left)
    assert seen == (["running"] if left else [])  # for whoever watches, and for a kill
    assert result.status == ("interrupted" if left else "finished")


def test_checkpoints_of_a_confirmation_that_is_no_longer_wanted_are_removed(monkeypatch, tmp_path):
    monkeypatch.setattr("nls_tune.tune.starting.ray_session", lambda address: nullcontext({"CPU": 1.0}))
    monkeypatch.setattr("nls_tune.session.searching.execute", lambda *arguments: "trials")
    for stage in ("confirm", "search"):
        trial = TrialSpec("abc", "symmetric:0.2", stage, TrainingSettings())
        TrialCheckpoint(tmp_path / "checkpoints" / stage).start(trial)
    RunDirectory(tmp_path).create()
    run(tmp_path, Console(file=io.StringIO()), confirm_seeds=0)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["search"]


def test_ctrl_c_before_there_is_a_run_leaves_none(made, monkeypatch, tmp_path, capsys):
    def press(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("nls_tune.plan.plan.make_plan", press)
    assert run_app(app, ["--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err in ("", "error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("hidden", "flag", "expected"), [(False, None, 0), (False, False, 0), (False, True, 2), (True, False, 0)]
)
def test_known_noise_is_estimated_on_demand_and_unknown_noise_need_not_be(
    made, monkeypatch, tmp_path, hidden, flag, expected
):
    if hidden:
        hide_the_truth(monkeypatch)
    text = start(tmp_path, estimate_noise=flag)
    assert len(made) == expected
    assert ("Start points hold the noise-cancelling rate of the true noise" in text) != hidden
    assert ("not estimated: no start point holds a noise-cancelling rate" in text) == hidden
    assert ("Estimating the noise of symmetric:0.2" in text) == bool(expected)


def test_a_dry_run_trains_nothing(unknown, tmp_path):
    console = Console(file=io.StringIO(), width=200)
    settings = check_search_settings(**SETTINGS, out=tmp_path / "run")
    assert session.run_settings(settings, console, dry_run=True) is None
    assert unknown == []
    assert "Before the trials the noise is estimated" in console.file.getvalue()
    assert not (tmp_path / "run").exists()


def test_another_choice_of_estimation_is_another_run(made, tmp_path):
    start(tmp_path)
    with pytest.raises(InputError, match=r"settings\.estimate_noise: None -> True"):
        run(tmp_path, estimate_noise=True)
