"""One answer: wherever a run is read, each noise level has the same verdict and the same configuration to use."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import asdict
from html import unescape
from random import Random

import pytest
from any_run import STATES, any_rows, run_of, searched
from rich.console import Console

from nls_tune.analysis.analysis import Analysis, RunAnalysis
from nls_tune.analysis.verdicts import find
from nls_tune.report.console.analysis import print_analysis
from nls_tune.report.console.verdicts import print_verdicts
from nls_tune.report.figures.latex import latex_table, latex_text
from nls_tune.report.formats import analysis_json, levels_csv, levels_markdown
from nls_tune.report.html.page import render_page
from nls_tune.report.words import FINDINGS
from nls_tune.session.conclusion import SearchResult

#: 25 runs of each state are 200.
RUNS_PER_STATE = 25
KINDS = {words: kind for kind, words in FINDINGS.items()}
#: In cells, as ``CE, warm-up 2, lr 0.01`` or ``r −2, warm-up 2, lr 0.01``, and in sentences.
CELL = re.compile(r"(?:CE|r (\S+)), warm-up (\d+), lr (\S+)")
SENTENCE = re.compile(r"^use (?:cross-entropy|smooth_rate (\S+)) \(warm-up (\d+), lr ([^\s)]+)\)")


def analysis_of(rows) -> RunAnalysis:
    """What is said of a run, without what no verdict depends on."""
    run = run_of(rows)
    nothing = dict.fromkeys(("rate_curves", "learning_curves", "interactions", "importances"), ())
    return RunAnalysis(**vars(find(run)), run=run, rate_against_noise=None, allocation=None, **nothing)


def shown(config):
    """A configuration to the digits that are shown."""
    return None if config is None else tuple(float(f"{config[k]:.4g}") for k in ("smooth_rate", "warmup_epochs", "lr"))


def parsed(text, pattern=CELL):
    match = pattern.match(" ".join(text.split()))
    return None if match is None else tuple(float((part or "0").replace("−", "-")) for part in match.groups())


def printed(draw, *args, width, **options):
    console = Console(file=io.StringIO(), width=width)
    draw(*args, console, **options)
    return console.file.getvalue()


def read_table(text, count):
    """The answers of the table of verdicts in a text of a console, from the columns of its headings."""
    lines = text.splitlines()
    top = next(i for i, line in enumerate(lines) if re.match(r"noise\b.*\buse\b.*\bverdict\b", line))
    use, test, verdict = (re.search(rf"\b{name}\b", lines[top]).start() for name in ("use", "test", "verdict"))
    rows = []
    for line in lines[top + 1 :]:
        if line[:1].strip() and not (not rows and line.startswith("level ")):  # a heading may have two lines
            if len(rows) == count:
                break
            rows.append(["", "", ""])
        if rows:
            parts = line[: line.find(" ")] if line[:1].strip() else "", line[use:test], line[verdict:]
            rows[-1] = [f"{cell} {part}".strip() for cell, part in zip(rows[-1], parts, strict=True)]
    return {level: (KINDS[" ".join(kind.split())], parsed(cell)) for level, cell, kind in rows}


def read_json(verdicts):
    return {v["noise_level"]: (v["finding"], shown(v["use"] and v["use"]["config"])) for v in verdicts}


def read_csv(text):
    found = {}
    for row in csv.DictReader(io.StringIO(text)):
        use = {k: float(v) for k in ("smooth_rate", "warmup_epochs", "lr") if (v := row[f"use_{k}"])}
        found[row["noise_level"]] = (row["verdict"], shown(use or None))
        if row["use"] == "True":
            assert found[row["noise_level"]][1] == shown({k: float(row[k]) for k in use})
    return found


def read_markdown(text):
    rows = [line[2:-2].split(" | ") for line in text.replace("\\|", "").replace("\\", "").splitlines()[2:]]
    return {unescape(row[1]): (KINDS[row[-1]], parsed(row[-2])) for row in rows}


def read_page(html):
    found = {}
    for card in re.findall(r"<article class=\"card.*?</article>", html, re.DOTALL):
        level, kind, badge = re.search(r"<h3>(.*?)</h3>\s*<span class=\"badge (\w+)\">(.*?)</span>", card).groups()
        use = parsed(unescape(re.search(r"<dt>use</dt><dd>(.*?)</dd>", card, re.DOTALL)[1]))
        why = unescape(re.search(r"<p class=\"headline\">(.*?)</p>", card, re.DOTALL)[1])
        assert parsed(why[:1].lower() + why[1:], SENTENCE) == use
        assert KINDS[badge] == kind
        found[unescape(level)] = (kind, use)
    return found


def read_latex(text, levels):
    names = {latex_text(level): level for level in levels}
    rows = [line.strip().removesuffix(r" \\").split(" & ") for line in (text or "").splitlines()]
    found = {}
    for row in rows:
        if row[0] in names:
            plain = re.sub(r" \\cdot 10\^\{(-?\d+)\}", r"e\1", row[3].replace("$", ""))
            name, *others = plain.split(", ")
            use = None if row[3] == "--" else tuple(float(part) for part in ("0" if name == "CE" else name, *others))
            found[names[row[0]]] = (KINDS[row[-1]], use)
    return found


def read_html(html):
    cells = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in html.split("<tr>")[2:]]
    return {unescape(row[0]): (KINDS[" ".join(row[-1].split())], parsed(unescape(row[2]))) for row in cells}


def surfaces(found: RunAnalysis):
    """Each surface with the answers that it gives; some leave levels out."""
    analysis, verdicts, count = Analysis((found,), None), found.verdicts, len(found.verdicts)
    for width in (60, 80, 120):
        yield f"screen {width}", read_table(printed(print_verdicts, verdicts, width=width), count)
    details = printed(print_analysis, analysis, width=80, details=True)
    yield "analyze", read_table(details, count)
    for verdict in verdicts:
        said = [line.removeprefix(f"{verdict.noise_level}: ") for line in details.splitlines()]
        assert (shown(verdict.use.config) if verdict.use else None) in {parsed(line, SENTENCE) for line in said}
    yield "json", read_json(json.loads(analysis_json(analysis))["runs"][0]["verdicts"])
    yield "page", read_page(render_page(analysis))
    content = found.run.content.model_copy(update={"verdicts": [asdict(verdict) for verdict in verdicts]})
    yield "run.json", read_json(json.loads(content.text())["verdicts"])
    result = SearchResult(found.run.path, "finished", verdicts, found.summaries, found.confirmations)
    yield (
        "result",
        {v.noise_level: (v.finding, shown(v.use and v.use.config)) for v in map(result.best, found.run.levels)},
    )
    yield "notebook", read_html(result._repr_html_())


def check(found: RunAnalysis, where: object) -> None:
    expected = {v.noise_level: (v.finding, shown(v.use.config if v.use else None)) for v in found.verdicts}
    for surface, answers in surfaces(found):
        assert answers == expected, (surface, where)
    analysis = Analysis((found,), None)
    trained = {summary.noise_level for summary in found.summaries if summary.arms}
    for answers in (read_csv(levels_csv(analysis)), read_markdown(levels_markdown(analysis))):
        assert answers == {level: expected[level] for level in trained}, where
    compared = {v.noise_level for v in found.verdicts if v.difference is not None}
    assert read_latex(latex_table(found), found.run.levels) == {level: expected[level] for level in compared}, where
    wide = printed(print_verdicts, found.verdicts, width=10_000)
    for width in (60, 66, 72, 80, 100, 120):  # no word is broken
        assert sorted(printed(print_verdicts, found.verdicts, width=width).split()) == sorted(wide.split()), where
    for level in found.confirmations:
        if level.used is not None:
            assert shown(level.configurations[level.used].config) == expected[level.noise_level][1]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("state", STATES)
def test_every_surface_gives_the_same_answer(state):
    kinds = set()
    for seed in range(RUNS_PER_STATE):
        found = analysis_of(any_rows(Random(f"{state} {seed}"), state))
        check(found, (state, seed))
        kinds |= {verdict.finding for verdict in found.verdicts}
    assert len(kinds) > 1 or state == "all diverged"


def test_no_surface_recommends_a_rate_over_a_cross_entropy_at_chance():
    found = analysis_of(searched({"ce": 0.512, "negative": 0.81}, num_val=4000))
    check(found, "at chance")
    (verdict,) = found.verdicts
    assert (verdict.finding, verdict.reason, verdict.use) == ("not_trained_enough", "ce_at_chance", None)
    screen = printed(print_verdicts, found.verdicts, width=80)
    assert "cross-entropy itself (51.2 % on validation) is within its error of guessing" in screen
    assert "81" not in screen
