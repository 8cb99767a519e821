"""Plans of data that several annotators labelled: their errors, the noise of each level, and what is refused."""

import numpy as np
import pytest
from own_files import annotated
from rich.console import Console

from nls_tune import Data, InputError
from nls_tune.cli.exit import run_app
from nls_tune.cli.main import app
from nls_tune.plan.annotators import annotator_facts
from nls_tune.plan.plan import SearchPlan, make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.report.annotators import annotators_table
from nls_tune.report.console.search import print_plan
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.run_json import RunAnnotator, RunJson
from nls_tune.session.beginning import begin_run

LEVELS = ("majority", "soft", "dawid-skene", "annotator:a", "annotator:c")


def plan_of(number: int = 1_500, *, clean: bool = True, **settings: object) -> SearchPlan:
    known = {"clean_labels": "truth"} if clean else {"drop": "truth"}
    data = Data.from_dataframe(annotated(number), annotators=["a", "b", "c"], **known)
    return make_plan(check_search_settings(**settings), 0, progress=False, data=data)


def test_estimated_errors_are_within_five_points_with_gaps():
    for one, error in zip(annotator_facts(plan_of().source), (0.1, 0.25, 0.4), strict=True):
        assert one.true_error_rate == pytest.approx(error, abs=0.06)
        assert one.error_rate == pytest.approx(one.true_error_rate, abs=0.05)
        assert 0.7 * 1_500 < one.num_labels < 0.8 * 1_500
        np.testing.assert_allclose(np.sum(one.matrix, axis=1), 1, atol=1e-5)


def test_the_noise_of_every_level_is_estimated_without_a_network():
    plan = plan_of(noise=LEVELS)
    for level in plan.levels:
        found = level.estimate
        assert found.model == "dawid-skene"
        assert found.noise_rate == pytest.approx(level.noise_rate, abs=0.05)
        assert found.true_noise_rate == pytest.approx(level.noise_rate)
        assert found.low < found.noise_rate < found.high
        np.testing.assert_allclose(np.sum(found.matrix, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(found.matrix, found.true_matrix, atol=0.2)
        assert level.prior == "estimate"
        assert level.start["negative"][0]["smooth_rate"] == pytest.approx(found.noise_cancelling_rate, rel=1e-3)
    single = {one.name: one.error_rate for one in annotator_facts(plan.source)}
    assert plan.level_plan("annotator:c").estimate.noise_rate == pytest.approx(single["c"], abs=1e-5)


def test_true_noise_is_unknown_without_clean_labels_and_estimates_can_be_left_out():
    plan = plan_of(400, clean=False, noise=LEVELS)
    assert {level.noise_rate for level in plan.levels} == {None}
    assert {level.estimate.true_noise_rate for level in plan.levels} == {None}
    plan = plan_of(400, clean=False, noise=LEVELS, estimate_noise=False)
    assert {level.estimate for level in plan.levels} == {None}
    assert plan.levels[0].prior == "none"
    assert [level.level for level in plan_of(400).levels] == ["majority"]


def test_losses_that_take_one_label_are_refused_where_labels_are_soft():
    message = "'soft' trains on class probabilities, and loss gce takes one label per sample; ce and gls take them"
    with pytest.raises(InputError, match=message) as raised:
        plan_of(200, noise=("majority", "soft"), methods=("ce", "gls", "gce"))
    assert "\n" not in str(raised.value)
    plan_of(200, noise=("majority", "dawid-skene"), methods=("ce", "gls", "gce"))
    plan_of(200, noise=("soft",), methods=("ce", "gls"))


@pytest.mark.parametrize(
    ("level", "message"),
    [("a", "did you mean annotator:a"), ("annotator:d", "valid: a, b, c"), ("given", "use majority")],
)
def test_a_level_that_was_meant_otherwise_is_named(level, message):
    with pytest.raises(InputError, match=message):
        plan_of(200, noise=(level,))


def test_a_plan_shows_annotators_and_the_run_keeps_them(tmp_path):
    plan = plan_of(400, noise=LEVELS)
    console = Console(width=100, record=True, force_terminal=False)
    print_plan(plan, 1, console)
    shown = console.export_text()
    assert "annotator labels estimated error true error with a with b with c" in " ".join(shown.split())
    assert "annotator:a has " in shown
    run = RunDirectory(tmp_path / "run")
    run.create()
    begin_run(plan, run)
    kept = RunJson.parse(run.run_json.read_text(), "run.json").data.annotators
    assert kept == annotator_facts(plan.source)
    assert len(run.run_json.read_bytes()) < 40_000


def test_many_annotators_are_cut_and_have_no_pairs():
    many = [RunAnnotator(name=f"p{i}", num_labels=10, error_rate=i / 100) for i in range(30)]
    table = annotators_table(many, 20)
    assert [row[0] for row in table.rows] == [f"p{i}" for i in range(29, 9, -1)]
    assert len(table.columns) == 3
    assert "the 20 of 30 annotators" in table.note


def test_the_estimate_command_takes_annotators(tmp_path, monkeypatch, capsys):
    annotated(200).to_csv(tmp_path / "t.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert run_app(app, ["estimate", "--table", "t.csv", "--annotators", "a,b,c", "--clean-labels", "truth"]) == 0
    out = capsys.readouterr().out
    assert "estimated error true error" in " ".join(out.split())
    assert "Dawid and Skene's, by the labels of several annotators" in out
    assert "own, majority" not in out
    assert "confident learning" not in out
