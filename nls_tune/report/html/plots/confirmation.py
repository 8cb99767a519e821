"""The confirmed configurations of one noise level over fresh seeds: means with intervals."""

from __future__ import annotations

import math
from typing import Any

from nls_tune.analysis.confirmation import ConfirmedConfiguration, LevelConfirmation
from nls_tune.analysis.statistics import SampleMean
from nls_tune.report.html.plots.common import Plot, error_bars, joined, layout, percentage, plotly_text
from nls_tune.report.html.plots.theme import ARM_COLOURS, ARM_SYMBOLS
from nls_tune.report.text import configuration, percent, rate

_READING = (
    "Each marker is the mean over fresh seeds with its 95 % t interval, the larger one the recommended configuration; "
    "intervals that overlap prove nothing either way: the differences seed by seed are in the table below."
)
_HOVER = "<b>%{customdata[0]}</b><br>%{x:.2f} % (%{customdata[1]})<br>seeds: %{customdata[2]}<extra></extra>"


def confirmation_plot(key: str, level: LevelConfirmation) -> Plot:
    """Draw the confirmation of one noise level."""
    has_test = any(found.test_at_best for found in level.configurations)
    title = f"{level.noise_level}: over fresh seeds"
    what = "Test accuracy (clean labels), %" if has_test else "Validation accuracy (noisy labels), %"
    order = list(range(len(level.configurations)))
    data = [trace for row in order if (trace := _marker(level, row, has_test)) is not None]
    shapes = []
    strongest = None if level.strongest_ce is None else _mean(level.configurations[level.strongest_ce], has_test)
    if strongest is not None:
        x = percentage(strongest.mean)
        line = {"color": "@ce", "dash": "dash", "width": 1}
        shapes.append({"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line})
    figure = {
        "data": data,
        "layout": layout(
            xaxis={"title": {"text": what}},
            yaxis={
                "tickvals": order,
                "ticktext": [_label(level, row) for row in order],
                "range": [len(order) - 0.5, -0.5],
                "showgrid": False,
            },
            shapes=shapes,
            showlegend=False,
        ),
    }
    one = [found for found in level.configurations if len(found.seeds) < 2]
    note = joined(
        None if has_test else "There is no test set, so this is validation accuracy.",
        f"{len(one)} of {len(order)} configurations have one seed, which has no interval." if one else None,
        "The dashed line is the strongest cross-entropy." if strongest else None,
    )
    return Plot(key, title, _READING, _summary(level, has_test), figure, 130 + 46 * len(order), note)


def _mean(found: ConfirmedConfiguration, has_test: bool) -> SampleMean | None:
    return found.test_at_best if has_test else found.validation


def _label(level: LevelConfirmation, row: int) -> str:
    found = level.configurations[row]
    marks = ["strongest"] if row == level.strongest_ce else []
    marks += ["recommended"] if row == level.recommended else []
    name = "CE" if found.arm == "ce" else f"r = {rate(found.config['smooth_rate'])}"
    return plotly_text(name) + (f"<br><b>{', '.join(marks)}</b>" if marks else "")


def _marker(level: LevelConfirmation, row: int, has_test: bool) -> dict[str, Any] | None:
    found = level.configurations[row]
    mean = _mean(found, has_test)
    if mean is None:
        return None
    x, low, high = percentage(mean.mean), percentage(mean.low), percentage(mean.high)
    interval = f"{percent(mean.low, 2)} to {percent(mean.high, 2)}" if math.isfinite(mean.low) else "no interval"
    recommended = row == level.recommended
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plotly_text(configuration(found.config)),
        "x": [x],
        "y": [row],
        "error_x": {**error_bars([low], [x], [high]), "color": ARM_COLOURS[found.arm]},
        "marker": {
            "color": ARM_COLOURS[found.arm],
            "symbol": ARM_SYMBOLS[found.arm],
            "size": 14 if recommended else 9,
        },
        "customdata": [[plotly_text(configuration(found.config)), interval, len(found.seeds)]],
        "hovertemplate": _HOVER,
    }


def _summary(level: LevelConfirmation, has_test: bool) -> str:
    parts = []
    for row, found in enumerate(level.configurations):
        mean = _mean(found, has_test)
        name = _label(level, row).replace("<br><b>", " (").replace("</b>", ")")
        spread = (
            ""
            if mean is None or not math.isfinite(mean.low)
            else f" ({percent(mean.low, 2)} to {percent(mean.high, 2)})"
        )
        parts.append(f"{name}: {percent(None if mean is None else mean.mean, 2)}{spread}, {len(found.seeds)} seeds")
    return f"{'Test' if has_test else 'Validation'} accuracy: {'; '.join(parts)}."
