"""The errors of an annotator: how often each right class is given each label."""

from __future__ import annotations

from collections.abc import Sequence

from nls_tune.report.html.plots import common
from nls_tune.report.html.plots.common import Plot
from nls_tune.report.text import percent
from nls_tune.runs.run_json import RunAnnotator

_READING = (
    "A cell is the share of the items of a class (row) that the annotator gave a label (column), by Dawid and Skene's "
    "method: right labels are on the diagonal."
)
#: Cells of more classes than this are too small for numbers.
_MOST_NUMBERED = 10


def annotator_plot(key: str, one: RunAnnotator, matrix: Sequence[Sequence[float]], class_names: Sequence[str]) -> Plot:
    """Draw the confusion matrix of an annotator."""
    names = [common.plotly_text(name) for name in class_names]
    values = [common.percentages(row) for row in matrix]
    bar = {"orientation": "h", "thickness": 10, "y": 1.0, "yanchor": "bottom", "len": 0.8}
    trace = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": values,
        "zmin": 0,
        "zmax": 100,
        "colorscale": [[0, "@page"], [1, "@run-0"]],
        "showscale": len(names) > _MOST_NUMBERED,
        "hovertemplate": "right: %{y}<br>label: %{x}<br>%{z:.1f} %<extra></extra>",
        "texttemplate": "%{z:.0f}" if len(names) <= _MOST_NUMBERED else "",
        "textfont": {"size": 14},
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"title": {"text": "Share of the class, %", "side": "top"}, **bar},
    }
    axis = {"type": "category", "showgrid": False}
    layout = common.layout(
        xaxis={"title": {"text": "Label given"}, **axis},
        yaxis={"title": {"text": "Right class"}, "autorange": "reversed", "automargin": True, **axis},
    )
    title = f"{one.name}: {percent(one.error_rate)} of {one.num_labels:,} labels wrong, as estimated"
    return Plot(key, title, _READING, _summary(matrix, class_names), {"data": [trace], "layout": layout}, 420)


def _summary(matrix: Sequence[Sequence[float]], class_names: Sequence[str]) -> str:
    """Name the largest confusions."""
    cells = [(share, i, j) for i, row in enumerate(matrix) for j, share in enumerate(row) if i != j]
    largest = sorted(cells, key=lambda cell: -cell[0])[:3]
    found = ", ".join(f"{class_names[i]} as {class_names[j]} {percent(share)}" for share, i, j in largest)
    return f"The most frequent confusions: {found}."
