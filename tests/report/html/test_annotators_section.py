"""The section of the report page that shows annotators: heat maps of their errors, and a table."""

from dataclasses import replace

import numpy as np
import pytest
from analyses import HOSTILE, make_run

from nls_tune.analysis.analysis import Analysis, RunAnalysis
from nls_tune.report.html.page import render_page
from nls_tune.report.html.sections import Section, run_sections
from nls_tune.runs.run_json import RunAnnotator, RunData

CLASSES = ("cat", "dog", "owl")


def run_with(people: int, classes: tuple[str, ...] = CLASSES, *, matrices: bool = True, name: str = "p") -> RunAnalysis:
    rng = np.random.default_rng(0)
    annotators = [
        RunAnnotator(
            name=f"{name}{i}",
            num_labels=100 + i,
            error_rate=i / 10,
            agreement=[None if j == (i + 1) % people else 0.5 for j in range(people)],
            matrix=rng.dirichlet(np.ones(len(classes)), len(classes)).tolist() if matrices else None,
        )
        for i in range(people)
    ]
    found = make_run(("majority",))
    content = found.run.content.model_copy(update={"data": RunData(class_names=list(classes), annotators=annotators)})
    return replace(found, run=replace(found.run, content=content))


def section_of(found: RunAnalysis) -> Section:
    return next(section for section in run_sections(found, "") if section.key == "annotators")


def test_every_annotator_has_its_matrix_and_its_row():
    found = run_with(3)
    section = section_of(found)
    (panel,) = section.panels
    for plot, one in zip(panel.plots, found.run.content.data.annotators, strict=True):
        (trace,) = plot.figure["data"]
        assert (trace["type"], trace["x"], trace["y"]) == ("heatmap", list(CLASSES), list(CLASSES))
        np.testing.assert_allclose(trace["z"], 100 * np.array(one.matrix), atol=0.00501)
        assert plot.title.startswith(f"{one.name}: {100 * one.error_rate:.1f} % of {one.num_labels} labels wrong")
        largest = max(share for i, row in enumerate(one.matrix) for j, share in enumerate(row) if i != j)
        assert f"{100 * largest:.1f} %" in plot.summary
    (table,) = section.tables
    assert table.table.rows[0] == ("p0", "100", "0.0 %", "–", "–", "50.0 %")
    assert not section.choose


def test_of_many_annotators_one_is_chosen_and_without_matrices_there_is_the_table():
    section = section_of(run_with(7))
    assert section.choose
    assert [panel.label for panel in section.panels] == [f"p{i}" for i in range(7)]
    assert "<legend>Annotator</legend>" in render_page(Analysis((run_with(7),), None))
    section = section_of(run_with(30, matrices=False))
    assert (section.panels, len(section.tables[0].table.rows)) == ((), 30)


@pytest.mark.parametrize("data", [None, RunData(class_names=["cat", "dog"])])
def test_a_run_without_annotators_has_no_such_section(data):
    found = make_run(("given",))
    content = found.run.content.model_copy(update={"data": data})
    found = replace(found, run=replace(found.run, content=content))
    assert all(section.key != "annotators" for section in run_sections(found, ""))


def test_names_are_text():
    html = render_page(Analysis((run_with(3, (HOSTILE, "b", "c"), name=HOSTILE),), None))
    assert HOSTILE not in html
