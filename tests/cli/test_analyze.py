"""``nls-tune analyze`` and ``nls-tune runs``, as people and as programs use them."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import fields, is_dataclass
from datetime import timedelta

import pandas as pd
import pytest
from fake_runs import BEGIN, write_fake_run
from rich.console import Console

from nls_tune.analysis.analysis import analyze
from nls_tune.analysis.run_overviews import run_overviews
from nls_tune.cli.exit import run_app
from nls_tune.cli.main import app
from nls_tune.report.console.analysis import print_analysis
from nls_tune.report.console.runs import print_runs
from nls_tune.report.console.tables import print_table
from nls_tune.report.formats import plain
from nls_tune.report.table import Table, markdown_text, numbers, words
from nls_tune.runs import load_runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_fake_run(folder / "first", trials=20, confirm_seeds=3, seed=1)
    write_fake_run(folder / "deep" / "second", levels=("symmetric:0.4", "human:worst"), trials=12, num_test=0, seed=2)
    write_fake_run(folder / "diverged", trials=4, all_diverged=True)
    write_fake_run(folder / "crashed", trials=3, unfinished=2, status="running")
    write_fake_run(folder / "empty", trials=0, status="interrupted")
    write_fake_run(folder / "many", levels=[f"symmetric:0.{i}" for i in range(1, 5)], trials=4)
    part = next((write_fake_run(folder / "[red]torn", trials=4) / "trials").glob("[!e]*.parquet"))
    part.write_bytes(b"not Parquet")
    shutil.copytree(folder / "first", folder / "broken")
    (folder / "broken" / "run.json").write_text("{")
    (folder / ".hidden").mkdir()
    shutil.copytree(folder / "empty", folder / ".hidden" / "run")
    return folder


@pytest.fixture(scope="module")
def both(folder):
    """The analysis of the first two runs."""
    return analyze(load_runs([folder / "first", folder / "deep" / "second"]))


@pytest.fixture(scope="module")
def overviews(folder):
    return run_overviews(folder)


@pytest.fixture
def command(capsys):
    def call(*arguments):
        code = run_app(app, [str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


# analyze


def test_json_is_the_analysis_by_its_field_names(folder, command, both):
    code, out, err = command("analyze", folder / "first", folder / "deep" / "second", "--format", "json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert set(found) == {"format_version", "runs", "comparison"}
    for got, one in zip(found["runs"], both.runs, strict=True):
        assert list(got) == [field.name for field in fields(one)]
        assert got["run"]["levels"] == list(one.run.levels)
        assert "trials" not in got["run"]
        for name in ("verdicts", "summaries", "confirmations", "rate_curves", "importances"):
            same(got[name], getattr(one, name))
        same(got["allocation"], one.allocation)
    same(found["comparison"], both.comparison)


def same(got, expected):
    """JSON is what the dataclasses hold, field by field."""
    if is_dataclass(expected):
        expected = {field.name: getattr(expected, field.name) for field in fields(expected)}
    if isinstance(expected, dict):
        assert list(got) == [str(key) for key in expected]
        got, expected = list(got.values()), list(expected.values())
    if isinstance(expected, tuple | list):
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            same(a, b)
    elif isinstance(expected, float) and (expected != expected or abs(expected) == float("inf")):
        assert got is None
    elif hasattr(expected, "isoformat"):
        assert pd.Timestamp(got) == pd.Timestamp(expected)
    else:
        assert got == expected


def test_csv_is_read_back_by_pandas_and_markdown_has_one_line_per_arm(folder, command, both):
    code, out, err = command("analyze", folder / "first", folder / "deep" / "second", "--format", "csv")
    assert (code, err) == (0, "")
    table = pd.read_csv(io.StringIO(out))
    assert {"run", "verdict", "smooth_rate", "best_epoch", "detectable"} < set(table.columns)
    expected = [(r.run.name, level.noise_level, arm) for r in both.runs for level in r.summaries for arm in level.arms]
    assert list(table[["run", "noise_level", "arm"]].itertuples(index=False, name=None)) == expected
    rows = pd.read_parquet(folder / "first" / "trials").set_index("trial_id")
    mine = table[table["run"] == "first"]
    for row in mine.to_dict("records"):
        assert row["val_accuracy"] == rows.loc[row["trial_id"], "best_val_accuracy"]
        confirm = rows.query("stage == 'confirm' and noise_level == @row['noise_level'] and lr == @row['lr']")
        confirm = confirm[confirm["smooth_rate"] == row["smooth_rate"]]
        assert row["confirm_seeds"] == len(confirm) == 3
        assert row["confirm_test_mean"] == pytest.approx(confirm["test_accuracy_at_best"].mean())
        assert row["confirm_test_sd"] == pytest.approx(confirm["test_accuracy_at_best"].std())
    assert mine.groupby("noise_level")["use"].sum().max() <= 1
    assert table[table["run"] == "second"]["test_accuracy_at_best"].isna().all()
    code, out, err = command("analyze", folder / "first", "--format", "markdown")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert len(lines) == 2 + sum(len(level.arms) for level in both.runs[0].summaries)
    assert {line.replace("\\|", "").count("|") for line in lines} == {18}


@pytest.mark.parametrize("name", ["diverged", "crashed", "empty", "[red]torn"])
@pytest.mark.parametrize("format_", ["table", "json", "csv", "markdown"])
def test_a_run_in_any_state_can_be_analysed(folder, command, name, format_):
    code, out, err = command("analyze", folder / name, "--format", format_)
    assert code == 0
    assert out
    assert ("cannot be read" in err) == (name == "[red]torn")
    assert err.count("\n") == (name == "[red]torn")
    if format_ == "json":
        assert json.loads(out)["runs"][0]["run"]["problems"] == ([] if not err else [err.split(": ", 2)[2][:-1]])


def test_no_number_is_cut_and_tables_fit_80_columns(folder):
    three = analyze(load_runs([folder / "first", folder / "deep" / "second", folder / "[red]torn"]))
    for width in (40, 80):
        screen = io.StringIO()
        print_analysis(three, Console(file=screen, width=width), details=True)
        text = screen.getvalue()
        assert "…" not in text
        assert "[red]torn" in text
        for one in (one for found in three.runs[0].importances for one in found.importances):
            assert f"{100 * one.ped_anova:.1f} %" in text
        for heading in ("The search", "Confirmation", "Rate to use against noise", "Where the time went", "by side"):
            assert heading in text
        if width == 80:
            table = text[text.index("Rate to use against noise") : text.index("second  (")]
            assert max(map(len, table.splitlines())) <= 88  # sentences below tables are folded by hand


def test_the_verdicts_come_first_and_details_when_asked_for(folder, command):
    _, short, _ = command("analyze", folder / "first")
    _, out, _ = command("analyze", folder / "first", "--details")
    lines = short.splitlines()
    assert lines[0] == "first  (finished, twonorm, 2 noise levels)"
    assert lines[1] == "No smooth rate is proven better than cross-entropy at 2 noise levels."
    assert lines[-1].startswith("The numbers behind it: nls-tune analyze --details ")
    assert out.startswith("\n".join(lines[:-1]))
    assert out.index("GLSLoss(") < out.index("The search") < out.index("Confirmation")
    assert "GLSLoss" not in short


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["analyze", "nowhere"], "nowhere is not a run"),
        (["analyze", "--format", "yaml", "x"], "unknown format 'yaml'"),
        (["analyze"], "Missing argument"),
        (["runs", "nowhere"], "nowhere is not one"),
        (["runs", "--format", "jsno", "."], "did you mean 'json'?"),
    ],
)
def test_bad_input_is_one_line(command, monkeypatch, tmp_path, arguments, error):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert error in err
    assert err.count("\n") == 1


# runs


def test_runs_are_found_at_any_depth_newest_first_damaged_last(folder, overviews, both):
    by_name = {run.name: run for run in overviews}
    assert set(by_name) == {"first", "deep/second", "diverged", "crashed", "empty", "many", "[red]torn", "broken"}
    assert overviews[-1].name == "broken"
    assert overviews[-1].problem.count("\n") == 0
    assert by_name["crashed"].status == "crashed"
    assert (by_name["crashed"].num_ended, by_name["first"].num_ended, by_name["first"].num_planned) == (6, 40, 40)
    assert by_name["empty"].levels[0].smooth_rate is None
    for level, expected in zip(by_name["first"].levels, both.runs[0].verdicts, strict=True):
        assert (level.finding, level.smooth_rate) == (expected.finding, expected.use.config["smooth_rate"])
        assert level.val_accuracy == expected.use.val_accuracy
    assert run_overviews(folder / "first")[0].name == "first"


def test_the_list_says_rate_and_accuracy_or_how_many(overviews):
    screen = io.StringIO()
    print_runs(overviews, Console(file=screen, width=80), BEGIN + timedelta(hours=30))
    text = screen.getvalue()
    for part in ("4 found", "1 d", "damaged", "[red]torn: ", "broken: "):
        assert part in text
    level = next(run for run in overviews if run.name == "first").levels[1]
    line = next(line for line in text.splitlines() if f"{100 * level.val_accuracy:.1f} %" in line)
    assert "symmetric:0.4" in line
    assert max(len(line) for line in text.splitlines() if not line.startswith(("[red]torn: ", "broken: "))) <= 80


def test_the_list_for_programs(folder, command, overviews):
    code, out, err = command("runs", folder, "--format", "json")
    assert (code, err) == (0, "")
    same(json.loads(out)["runs"], overviews)
    code, out, err = command("runs", folder / "deep", "--format", "csv")
    table = pd.read_csv(io.StringIO(out)).set_index("name")
    assert (code, err, len(table)) == (0, "", 1)
    assert json.loads(table.loc["second", "levels"])[1]["noise_level"] == "human:worst"
    code, out, err = command("runs", folder / "deep", "--format", "markdown")
    assert (code, err, len(out.splitlines())) == (0, "", 3)


def test_no_run_is_said_and_is_no_error(command, tmp_path):
    assert command("runs", tmp_path) == (0, f"No run lies below {tmp_path}.\n", "")
    assert json.loads(command("runs", tmp_path, "--format", "json")[1])["runs"] == []


# Output


def test_what_is_not_finite_is_null_cells_are_not_markdown_and_numbers_are_not_folded():
    assert plain({"a": float("nan"), "b": (float("inf"), 1.5), "c": None}) == {"a": None, "b": [None, 1.5], "c": None}
    line = markdown_text(Table(words("a"), (("x|y <b>\n`[z](u)`",),))).splitlines()[-1]
    assert line == "| x\\|y &lt;b&gt; \\`\\[z\\](u)\\` |"

    screen = io.StringIO()
    table = Table((*words("name"), *numbers("value")), (("a long name " * 5, "1" * 30),))
    print_table(table, Console(file=screen, width=40))
    assert "1" * 30 in screen.getvalue()
    assert screen.getvalue().count("name") == 6
