"""The report page as a file: numbers, escapes, size, empty states, the command."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import zlib
from dataclasses import replace
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from analyses import EPOCHS, HOSTILE, make_analysis, make_comparison, make_run
from fake_runs import write_fake_run
from hypothesis import example, given
from hypothesis import strategies as st
from sweeps import swept_trials

from nls_tune.analysis.analysis import Analysis
from nls_tune.analysis.rate_sweep import rate_sweeps
from nls_tune.analysis.statistics import sample_mean
from nls_tune.cli.exit import run_app
from nls_tune.cli.main import app
from nls_tune.report.html.page import page_bytes, render_page
from nls_tune.report.html.plots.common import plotly_text, rate_axis, thinned
from nls_tune.report.html.plots.theme import PALETTES
from nls_tune.report.html.tables import trials_table
from nls_tune.report.rate_scale import rate_position
from nls_tune.runs.run_json import RunData, RunJson

LEVELS = ("symmetric:0.2", "symmetric:0.4")


class Page(HTMLParser):
    """What a browser sees of the page, without a browser."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.packed: dict[str, list[str]] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._stack: list[str] = []
        self._table: list[list[str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "td", "th"):
            self._stack.append(tag)
        if tag == "script":
            kind = dict(attrs).get("type")
            self._texts = self.scripts if kind is None else self.packed.setdefault(dict(attrs)["id"], [])
            self._texts.append("")
        elif tag == "table":
            self._table = self.tables.setdefault(dict(attrs)["aria-labelledby"].removesuffix("-caption"), [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")

    def handle_endtag(self, tag):
        if tag in self._stack:
            while self._stack.pop() != tag:
                pass

    def handle_data(self, data):
        if "script" in self._stack:
            self._texts[-1] += data
        elif "style" not in self._stack:
            self.text += data
            if "table" in self._stack and self._table and self._table[-1]:
                self._table[-1][-1] = (self._table[-1][-1] + data).strip()

    def unpacked(self, key):
        (packed,) = self.packed[key]
        content = zlib.decompress(base64.b64decode(packed, validate=True), wbits=-15)
        (number,) = (a["data-bytes"] for tag, a in self.elements if tag == "script" and a.get("id") == key)
        assert len(content) == int(number)
        return content.decode()

    @cached_property
    def figures(self):
        return json.loads(self.unpacked("payload"))["figures"]


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return make_analysis(LEVELS)


@pytest.fixture(scope="module")
def page(analysis) -> Page:
    return Page(render_page(analysis))


def percentages(values) -> list[float | None]:
    return [None if v is None else pytest.approx(100 * v, abs=0.00501) for v in values]


def test_every_number_of_the_rate_curves_is_the_dataclass(page, analysis):
    for k, curve in enumerate(analysis.runs[0].rate_curves):
        traces = page.figures[f"rate-{k}"]["data"]
        by_axis = {axis: [t for t in traces if t["yaxis"] == axis] for axis in ("y", "y2")}
        for axis, field, smoothed in (("y", "val_accuracy", curve.validation), ("y2", "test_accuracy", curve.test)):
            drawn = {
                (x, y, *detail)
                for t in by_axis[axis]
                if t["mode"] == "markers"
                for x, y, detail in zip(t["x"], t["y"], t["customdata"], strict=True)
            }
            at = {
                p.trial_id: (round(-math.log(1 - p.smooth_rate), 4) + 0.0, round(100 * getattr(p, field), 2))
                for p in curve.points
            }
            assert drawn == {
                (*at[p.trial_id], p.trial_id, f"{p.smooth_rate:g}".replace("-", "−"), p.warmup_epochs, f"{p.lr:g}")
                for p in curve.points
            }
            lines = [t["y"] for t in by_axis[axis] if t.get("legendgroup") == "mean"]
            assert lines == [percentages(smoothed.low), percentages(smoothed.high), percentages(smoothed.mean)]
        ce = analysis.runs[0].summaries[k].arms["ce"]
        levels = [t["y"] for t in traces if t.get("name") == "selected CE"]
        assert levels == [percentages([ce.val_accuracy] * 2), percentages([ce.test_accuracy_at_best] * 2)]
        line = page.figures[f"rate-{k}"]["layout"]["shapes"][0]
        assert line["x0"] == line["x1"] == pytest.approx(-math.log(1 - curve.noise_cancelling_rate), abs=1e-4)


def test_a_sweep_stands_before_the_trials_with_its_intervals_and_its_table(analysis):
    (sweep,) = rate_sweeps(swept_trials())
    page = Page(render_page(Analysis((replace(analysis.runs[0], rate_sweeps=(sweep,)),), None)))
    keys = list(page.figures)
    assert keys.index("swept-0") < keys.index("rate-0")
    figure = page.figures["swept-0"]
    drawn = {
        x: (y, up)
        for trace in figure["data"]
        if trace["mode"] == "markers"
        for x, y, up in zip(trace["x"], trace["y"], trace["error_y"]["array"], strict=True)
    }
    assert drawn == {
        rate_position(rate.smooth_rate): (
            round(100 * rate.test.mean, 2), pytest.approx(100 * (rate.test.high - rate.test.mean), abs=0.02)
        )
        for rate in sweep.rates
    }  # fmt: skip
    assert [shape["x0"] for shape in figure["layout"]["shapes"]] == [rate_position(-1.0), rate_position(-4.0), 0]
    table = page.tables["sweep"]
    assert [row[1] for row in table if row[0] == "symmetric:0.4"] == ["", "*", "", ""]
    assert "+2.00 [" in table[1][-1] or "+2.00" in table[1][-1]


def test_learning_curves_are_the_dataclass_epoch_by_epoch(page, analysis):
    for k, level in enumerate(analysis.runs[0].learning_curves):
        traces = page.figures[f"curves-{k}"]["data"]
        prominent = [curve for curve in level.curves if curve.role != "other"]
        others = [curve for curve in level.curves if curve.role == "other"]
        for axis, field in (("y", "test_accuracy"), ("y2", "val_accuracy"), ("y3", "train_accuracy")):
            faint, *lines = [t for t in traces if t["yaxis"] == axis and t["mode"] == "lines"]
            assert [t["y"] for t in lines] == [[round(100 * v, 2) for v in getattr(c, field)] for c in prominent]
            assert all((t["x0"], t["dx"]) == (1, 1) for t in lines)
            assert faint["y"] == [v for c in others for v in (*(round(100 * a, 1) for a in getattr(c, field)), None)]
            assert faint["x"] == [*range(1, EPOCHS + 1), None] * len(others)
            marks = [t for t in traces if t["yaxis"] == axis and t["mode"] == "markers"]
            assert [t["x"] for t in marks] == [[EPOCHS, 5]] * len(prominent)
            assert [t["text"] for t in marks] == [["last epoch", "best epoch"]] * len(prominent)
            assert [t["y"] for t in marks] == [percentages(getattr(c, field)[e] for e in (-1, 4)) for c in prominent]
    assert "6 of 20 trials are shown" in page.text


def test_the_other_plots_are_their_dataclasses(page, analysis):
    run = analysis.runs[0]
    for k, level in enumerate(run.confirmations):
        for trace, found in zip(page.figures[f"confirmed-{k}"]["data"], level.configurations, strict=True):
            mean = found.test_at_best
            assert trace["x"] == percentages([mean.mean])
            low, high = trace["x"][0] - trace["error_x"]["arrayminus"][0], trace["x"][0] + trace["error_x"]["array"][0]
            assert (low, high) == (pytest.approx(100 * mean.low, abs=0.02), pytest.approx(100 * mean.high, abs=0.02))
    for k, found in enumerate(run.interactions):
        cells, *points = page.figures[f"cross-{k}"]["data"]
        assert cells["z"] == [percentages(row) for row in found.best]
        assert cells["text"] == [[str(count) for count in row] for row in found.counts]
        scale = math.log10 if found.setting == "lr" else float
        assert cells["y"] == [pytest.approx(scale(edge), abs=1e-4) for edge in found.value_edges]
        assert len(cells["x"]) == len(cells["z"][0]) + 1
        drawn = sorted((x, y) for t in points for x, y in zip(t["x"], t["y"], strict=True))
        assert drawn == sorted((rate_position(p.smooth_rate), round(scale(p.value), 4)) for p in found.points)
    levels, theory = page.figures["noise-0"]["data"][1], page.figures["noise-0"]["data"][0]
    assert levels["x"] == percentages(v.noise_rate for v in run.rate_against_noise.levels)
    assert levels["y"] == [rate_position(v.smooth_rate) for v in run.rate_against_noise.levels]
    assert theory["y"] == [rate_position(v) for v in run.rate_against_noise.theory_rates]
    fanova, ped = page.figures["matters-0"]["data"]
    assert (ped["x"][::-1], fanova["x"][::-1]) == ([70.0, 30.0], [55.0, 45.0])
    bars = {(b, x) for t in page.figures["time-0"]["data"] for b, x in zip(t["base"], t["x"], strict=True)}
    assert bars == {(round(s.start_seconds / 60, 4), round(s.seconds / 60, 4)) for s in run.allocation.spans}


def test_tables_are_the_dataclasses(page, analysis):
    run = analysis.runs[0]
    header, *rows = page.tables["arms"]
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    expected = [(level, arm) for level in run.summaries for arm in level.arms.values()]
    for cell, (level, arm) in zip(cells, expected, strict=True):
        assert (cell["noise level"], cell["arm"]) == (level.noise_level, arm.arm)
        assert cell["use"] == ("*" if arm.arm == level.used else "")
        assert float(cell["rate"].replace("−", "-")) == arm.config["smooth_rate"]
        assert (int(cell["warm-up"]), float(cell["lr"])) == (arm.config["warmup_epochs"], arm.config["lr"])
        shown = [float(cell[name]) for name in ("val %", "test %", "last %")]
        assert shown == percentages([arm.val_accuracy, arm.test_accuracy_at_best, arm.last_test_accuracy])
        assert cell["trials"] == f"{arm.num_completed}/{arm.num_trials}"
    header, *rows = page.tables["confirmed"]
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    pairs = [pair for x in run.confirmations for pair in zip(x.configurations, x.comparisons, strict=True)]
    for cell, (found, comparison) in zip(cells, pairs, strict=True):
        mean, deviation = map(float, cell["test %"].split(" ± "))
        assert [mean, deviation] == percentages([found.test_at_best.mean, found.test_at_best.standard_deviation])
        if comparison is not None and cell["against CE, points"] != "strongest":
            numbers = [float(v) for v in re.findall(r"[-+]\d+\.\d+", cell["against CE, points"].replace("−", "-"))]
            d = comparison.difference
            assert numbers == percentages([d.mean, d.low, d.high])
    header, *rows = page.tables["trials"]
    assert len(rows) == len(run.run.trials)
    column = header.index("val %")
    assert [float(row[column]) for row in rows] == percentages(run.run.trials["best_val_accuracy"])
    assert [row[header.index("trial id")] for row in rows] == run.run.trials["trial_id"].tolist()


def test_a_comparison_shows_each_run_at_each_level():
    names = ("first", "second")
    analysis = make_comparison(names, LEVELS)
    page = Page(render_page(analysis))
    rows = page.tables["compare-levels"][1:]
    assert [(row[0], row[1]) for row in rows] == [(level, name) for level in LEVELS for name in names]
    traces = {t["name"]: t for t in page.figures["compare-accuracy"]["data"]}
    for index, name in enumerate(names):
        at = [level.runs[index] for level in analysis.comparison.levels]
        expected = [r.verdict.use.test.mean if r.verdict.use.num_seeds else r.test_accuracy_at_best for r in at]
        assert traces[name]["x"] == percentages(expected)
    assert [t["name"] for t in page.figures["compare-gain"]["data"]] == ["first"]
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def themed(value, colours, is_colour=False):
    """A figure with its colour names resolved, as the page does it."""
    if isinstance(value, dict):
        return {key: themed(part, colours, "color" in key) for key, part in value.items()}
    if isinstance(value, list):
        return [themed(part, colours, is_colour) for part in value]
    return colours[value[1:]] if is_colour and isinstance(value, str) and value.startswith("@") else value


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_plotly_accepts_every_figure(page, theme):
    from plotly import graph_objects

    comparison = Page(render_page(make_comparison(("a", "b"), LEVELS))).figures
    for figure in (*page.figures.values(), *comparison.values()):
        # It raises for a property or value that plotly does not know.
        graph_objects.Figure(themed(figure, PALETTES[theme]))


@pytest.mark.parametrize("text", [HOSTILE, "</script><b>x</b>", '"><img src=x onerror=alert(1)>', "%{x} &lt;b&gt;"])
def test_text_of_files_is_text(text):
    """It is escaped twice over: as HTML, and as what plotly takes for HTML."""
    html = page_bytes(make_comparison((text, "b"), (text, "symmetric:0.4"), text)).decode()
    page = Page(html)
    assert len(page.scripts) == 3
    assert set(page.packed) == {"payload", "plotly"}
    assert not {"b", "img"} & {tag for tag, _ in page.elements if tag != "title"}
    readable = text.encode(errors="replace").decode()
    assert readable in page.text
    strings = strings_of(page.figures)
    assert any(plotly_text(readable)[:20] in s for s in strings)
    for found in strings:
        ours = r"</?b>|<br>|<extra>.*?</extra>|%\{(x|y|z|text|customdata(\[\d\])?|fullData\.name)(:\.\df)?\}"
        bare = re.sub(ours, "", found)
        assert "<" not in bare
        assert "%{" not in bare


def test_names_that_are_not_unicode_are_written():
    run = make_run(LEVELS, name="a\udcffb")
    content = run.run.content.model_copy(update={"run_id": "a\ud800b"})
    page = Page(page_bytes(Analysis((replace(run, run=replace(run.run, content=content)),), None)).decode())
    assert "a?b" in page.text


def strings_of(value):
    """Return all strings of a JSON value but its keys."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] if isinstance(value, str) else [text for part in parts for text in strings_of(part)]


def test_only_its_own_scripts_may_run_and_nothing_is_fetched(page):
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in (*page.scripts, page.unpacked("plotly"))
    }
    assert set(directives["script-src"].split()) == hashes
    assert directives["default-src"] == "'none'"
    links = [a[name] for _, a in page.elements for name in ("src", "href", "action") if name in a]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert not any(name.startswith("on") for _, a in page.elements for name in a)


def test_what_stands_under_a_plot_is_said_in_words_too(page):
    charts = [a for _, a in page.elements if a.get("class") == "chart"]
    assert {a["id"] for a in charts} == set(page.figures)
    for chart in charts:
        assert (chart["role"], chart["tabindex"]) == ("img", "0")
        assert re.search(r"\d", chart["aria-label"])


def test_a_run_without_trials_says_so_everywhere():
    run = make_run(LEVELS, status="running")
    content = RunJson.model_validate({"schema_version": 1, "status": "running"})
    lists = "verdicts summaries confirmations rate_curves learning_curves interactions importances per_class"
    empty = {**dict.fromkeys(lists.split(), ()), "rate_against_noise": None, "allocation": None}
    run = replace(run, **empty, run=replace(run.run, trials=run.run.trials.iloc[:0], content=content))
    page = Page(render_page(Analysis((run,), None)))
    assert page.figures == {}
    assert sum(a.get("class") == "empty" for _, a in page.elements) == 10
    assert "This run goes on" in page.text
    assert not re.search(r"\bNone\b|\bnan\b|\binf\b", page.text)


def test_what_a_run_says_of_its_test_labels_is_not_said_of_another():
    clean, given, without = (make_run(LEVELS, name=name, has_test=name != "c") for name in "abc")
    content = given.run.content.model_copy(update={"data": RunData(test_clean=False)})
    doubted = tuple(replace(one, doubts=("noisy_test",)) for one in given.verdicts)
    given = replace(given, verdicts=doubted, run=replace(given.run, content=content))
    text = Page(render_page(Analysis((clean, given, without), None))).text
    assert [text.count(f"dataset plain · {labels}") for labels in ("clean test", "given test", "no test set")] == [
        1
    ] * 3
    assert "test labels are clean" not in text
    assert [text.count(f"accuracy on {labels} in") for labels in ("clean labels", "the given test labels")] == [2, 1]


def test_a_run_without_test_set_and_confirmation_shows_validation_only():
    changes = {"has_test": False, "confirmed": False, "status": "crashed", "problems": ("part 7 is torn",)}
    page = Page(render_page(make_analysis(LEVELS, **changes)))
    assert "yaxis2" not in page.figures["rate-0"]["layout"]
    for part in ("There is no test set.", "No configuration has been trained again", "part 7 is torn"):
        assert part in page.text
    assert "confirmed" not in page.tables
    header, *rows = page.tables["arms"]
    assert {row[header.index("test %")] for row in rows} == {"–"}


def test_numbers_that_are_none_draw_nothing():
    """One seed has no interval and no deviation; trials that diverged at once have no accuracy."""
    run = make_run(LEVELS)
    one = sample_mean([0.9])
    level, cross = run.confirmations[0], run.interactions[0]
    once = {"seeds": (1,), "validation": one, "test_at_best": one, "test_at_last": one}
    difference = replace(level.comparisons[1], difference=sample_mean([0.01]), detectable=math.inf)
    configurations = tuple(replace(c, **once) for c in level.configurations)
    level = replace(level, configurations=configurations, comparisons=(None, difference, difference))
    points = tuple(replace(p, val_accuracy=None, status="diverged") for p in cross.points)
    cross = replace(cross, points=points, best=tuple((None,) * len(row) for row in cross.best))
    page = Page(render_page(Analysis((replace(run, confirmations=(level,), interactions=(cross,)),), None)))
    assert page.figures["confirmed-0"]["data"][0]["error_x"]["array"] == [0.0]
    assert "cross-0" not in page.figures
    assert "0 search trials of this level ran to the end, too few to draw; --num-trials gives it more." in page.text
    header, *rows = page.tables["confirmed"]
    assert rows[1][header.index("against CE, points")] == "+1.00"
    assert rows[1][header.index("detectable, points")] == "–"


def test_a_long_table_keeps_the_best_of_every_level():
    trials = make_run(LEVELS).run.trials
    table = trials_table("t", trials, (), most=6)
    kept = trials[trials["trial_id"].isin(row[-2] for row in table.table.rows)]
    best = trials.sort_values("best_val_accuracy").groupby("noise_level").tail(3)
    assert set(kept["trial_id"]) == set(best["trial_id"])
    assert "The 6 best of 14 trials" in table.table.note


@given(st.lists(st.floats(-60, 1), min_size=1, max_size=30))
@example([0.0, 1e-4])
def test_rates_keep_their_order_and_ticks_stand_where_they_say(rates):
    positions = [rate_position(r) for r in rates]
    assert [p for _, p in sorted(zip(rates, positions, strict=True))] == sorted(positions)
    axis = rate_axis(rates)
    low, high = axis["range"]
    assert low < min(positions) <= max(positions) < high
    for position, text in zip(axis["tickvals"], axis["ticktext"], strict=True):
        value = float(text.removeprefix("≥ ").replace("−", "-"))
        assert position == pytest.approx(-math.log(1 - value), abs=1e-3)


@given(st.integers(0, 50), st.integers(2, 20))
def test_thinning_keeps_ends_and_order(count, most):
    found = thinned(list(range(count)), most)
    assert found == sorted(set(found))
    assert len(found) == min(count, most)
    assert not count or (found[0], found[-1]) == (0, count - 1)


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("fake") / "fake", trials=8, epochs=6, confirm_seeds=2)


class TestCommand:
    @pytest.fixture
    def run(self, fake, tmp_path) -> Path:
        return Path(shutil.copytree(fake, tmp_path / "fake"))

    def test_it_writes_beside_the_run_and_says_where_and_how_big(self, run, capsys):
        assert run_app(app, ["report", str(run)]) == 0
        written = run / "report.html"
        assert capsys.readouterr().out == f"Wrote {written} ({written.stat().st_size / 1e6:.1f} MB)\n"
        page = Page(written.read_text(encoding="utf-8"))
        assert "twonorm" in page.text
        trials = pd.read_parquet(run / "trials")
        header, *rows = page.tables["trials"]
        assert {row[header.index("trial id")] for row in rows} == set(trials["trial_id"])

    def test_several_runs_are_written_to_the_working_folder(self, run, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        other = write_fake_run(tmp_path / "other", trials=4, epochs=6, seed=1, status="running")
        assert run_app(app, ["report", str(run), str(other)]) == 0
        assert "The runs side by side" in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
        assert not (run / "report.html").exists()

    @pytest.mark.parametrize(
        ("arguments", "rule"),
        [
            (["fake", "--out", "."], "--out must be a file"),
            (["fake", "--out", "missing/report.html"], "--out must be in a folder that exists"),
            (["."], "is not a run"),
        ],
    )
    def test_bad_input_is_refused_in_one_line(self, run, tmp_path, monkeypatch, capsys, arguments, rule):
        monkeypatch.chdir(tmp_path)
        assert run_app(app, ["report", *arguments]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith("error: ")
        assert rule in err

    @pytest.mark.parametrize(
        "changes", [{"all_diverged": True}, {"trials": 1}, {"num_test": 0}, {"unfinished": 2, "status": "running"}]
    )
    def test_runs_in_any_state_make_a_page(self, tmp_path, changes):
        run = write_fake_run(tmp_path / "odd", **{"trials": 6, "epochs": 5, **changes})
        assert run_app(app, ["report", str(run)]) == 0
        page = Page((run / "report.html").read_text(encoding="utf-8"))
        assert not re.search(r"\bNone\b|\bnan\b|\binf\b", page.text.replace("none_", ""))

    @pytest.mark.slow
    def test_a_thousand_trials_of_a_hundred_epochs_stay_under_three_megabytes(self, tmp_path):
        """Ten noise levels are the most that it is made for, and the worst case: each keeps curves of its own."""
        levels = tuple(f"symmetric:{rate / 25}" for rate in range(10))
        run = write_fake_run(
            tmp_path / "big", levels=levels, trials=100, epochs=100, num_val=997, num_test=997, trials_per_part=100
        )
        assert run_app(app, ["report", str(run)]) == 0
        page = Page((run / "report.html").read_text(encoding="utf-8"))
        assert (run / "report.html").stat().st_size < 3e6
        assert len(page.tables["trials"]) == 1001
