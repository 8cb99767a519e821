"""Tables as text for papers: nothing in a cell is taken as LaTeX."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nls_tune.report.table import Column, Table, latex_text, words


def test_a_table_is_a_tabular_with_rules():
    text = latex_text(Table((*words("row"), Column("test %")), (("a_b", "91.97 ± 0.10"), ("c", "–"))))
    assert text.splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"row & test \% \\",
        r"\midrule",
        r"a\_b & 91.97 $\pm$ 0.10 \\",
        r"c & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("50 & 3", r"50 \& 3"),
        ("−0.5", "$-$0.5"),
        ("a\nb", "a b"),
        ("~^<>", r"\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}"),
    ],
)
def test_cells_hold_no_latex(cell, written):
    assert f"\n{written} \\\\\n" in latex_text(Table(words("x"), ((cell,),)))


@given(st.text())
def test_every_row_has_its_columns(cell):
    lines = latex_text(Table(words("x", "y"), ((cell, cell),))).splitlines()
    row = lines[4]
    assert row.replace(r"\&", "").count("&") == 1
    assert row.endswith(r" \\")
