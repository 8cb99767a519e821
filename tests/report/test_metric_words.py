"""A run that selects by another metric: every screen, page and file tells that metric's values, and names it."""

import io
import json
import re
from html import unescape
from pathlib import Path

import pytest
from fake_runs import OTHER_METRICS, write_fake_run
from rich.console import Console

from nls_tune.analysis.analysis import Analysis, analyze
from nls_tune.report.console.analysis import print_analysis
from nls_tune.report.figures.files import write_figures
from nls_tune.report.figures.latex import latex_table
from nls_tune.report.formats import analysis_json, levels_csv
from nls_tune.report.html.page import render_page
from nls_tune.report.text import of_metric
from nls_tune.runs import load_run
from nls_tune.runs.directory import RunDirectory

METRIC = "balanced_accuracy"


@pytest.fixture(scope="module")
def analyses(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analysis, Analysis]:
    """One run as it selects by accuracy, and as it selects by the metric, which ranks its trials alike."""
    path = tmp_path_factory.mktemp("metric") / "run"
    write_fake_run(path, levels=("symmetric:0.2", "symmetric:0.4"), trials=24, epochs=8, confirm_seeds=3)
    usual = analyze([load_run(path)])
    directory = RunDirectory(path)
    content = directory.read_json()
    content.identity.settings["metric"] = METRIC
    directory.write_json(content)
    return usual, analyze([load_run(path)])


def test_a_text_about_accuracy_becomes_one_about_the_metric():
    text = "Accuracy: validation accuracy"
    assert of_metric(text, ["accuracy"]) == text
    assert of_metric(text, [METRIC, METRIC]) == "Balanced accuracy: validation balanced accuracy"
    assert of_metric(text, ["macro_f1"]) == "Macro F1: validation macro F1"
    assert of_metric(text, ["accuracy", "macro_f1"]) == "Metric: validation metric"


def test_the_values_are_those_of_the_metric(analyses):
    usual, found = (analysis.runs[0] for analysis in analyses)
    share = OTHER_METRICS[METRIC]
    for before, now in zip(usual.summaries, found.summaries, strict=True):
        for arm, selected in before.arms.items():
            assert now.arms[arm].trial_id == selected.trial_id
            assert now.arms[arm].val_accuracy == pytest.approx(share * selected.val_accuracy)
            assert now.arms[arm].last_test_accuracy == pytest.approx(share * selected.last_test_accuracy)
    for before, now in zip(usual.verdicts, found.verdicts, strict=True):
        assert now.difference.mean == pytest.approx(share * before.difference.mean)
        assert (now.metric, now.search_difference) == (METRIC, None)
    points = [point.val_accuracy for curve in found.rate_curves for point in curve.points]
    assert points == pytest.approx([share * p.val_accuracy for curve in usual.rate_curves for p in curve.points])
    assert set(levels_csv(analyses[1]).splitlines()[1].split(",")) >= {METRIC}
    assert json.loads(analysis_json(analyses[1]))["runs"][0]["verdicts"][0]["metric"] == METRIC


def strange(text: str) -> list[str]:
    """The places where a text speaks of accuracy, and neither of balanced accuracy nor of what training shows."""
    return [
        text[max(0, m.start() - 60) : m.end() + 20]
        for m in re.finditer(r"(?<!balanced )(?<!Balanced )(?<!training )\baccuracy", unescape(text), re.IGNORECASE)
    ]


def test_no_screen_page_or_table_speaks_of_accuracy(analyses):
    out = io.StringIO()
    print_analysis(analyses[1], Console(file=out, width=200), details=True)
    page = render_page(analyses[1])
    words = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    for text in (" ".join(out.getvalue().split()), words, latex_table(analyses[1].runs[0])):
        assert re.search("balanced accuracy", text, re.IGNORECASE)
        assert strange(text) == []


def test_figures_are_drawn(analyses, tmp_path: Path):
    assert write_figures(analyses[1], tmp_path)
