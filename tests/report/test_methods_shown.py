"""Every method has one row on the page, in LaTeX and in the figure of the confirmation, with the same verdict."""

import re
from dataclasses import replace

from any_run import run_of
from method_rows import SIX, rows
from trial_rows import trials_frame

from nls_tune.analysis.analysis import analyze
from nls_tune.report.figures.latex import latex_table
from nls_tune.report.html.page import render_page
from nls_tune.report.words import FINDINGS

GAIN = 100 * SIX.mean()


def analysis():
    run = run_of(rows())
    return analyze([replace(run, trials=trials_frame(rows()))])


def test_the_page_has_a_row_per_method():
    page = render_page(analysis())
    table = page[page.index('id="methods"') :].split("</table>")[0]
    cells = [re.findall(r"<td>(.*?)(?=<td>|$)", row, re.DOTALL) for row in table.split("<tr")[2:]]
    found = {row[1].strip(): " ".join(re.sub(r"<[^>]+>", "", " ".join(row)).split()) for row in cells}
    assert list(found) == ["gls", "gce", "elr"]
    assert FINDINGS["better"] in found["gce"]
    assert f"+{GAIN:.2f}" in found["gce"]
    assert FINDINGS["no_proven_difference"] in found["gls"]
    assert FINDINGS["no_proven_difference"] in found["elr"]


def test_latex_has_a_row_per_method_below_cross_entropy():
    text = latex_table(analysis().runs[0])
    lines = [line.strip().removesuffix(r" \\").split(" & ") for line in text.splitlines() if " & " in line]
    heading, *found = lines
    assert heading[1] == "Method"
    assert [line[1] for line in found] == ["ce", "gls", "gce", "elr"]
    assert ["gce\\_q" in line[2] for line in found] == [False, False, True, False]
    assert [line[-1] for line in found] == [
        "strongest CE",
        *(FINDINGS[name] for name in ("no_proven_difference", "better", "no_proven_difference")),
    ]
    assert found[0][4] == "--"
    assert f"{GAIN:.2f}" in found[2][4]
