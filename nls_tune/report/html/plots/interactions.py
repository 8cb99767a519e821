"""Smooth rate against learning rate or warm-up at one noise level: the best of each cell, and the trials."""

from __future__ import annotations

import math

from nls_tune.analysis.interactions import Interaction, InteractionPoint
from nls_tune.report.html.plots import common
from nls_tune.report.html.plots.common import Figure, Plot
from nls_tune.report.rate_scale import rate_positions
from nls_tune.report.text import number, of_metric, percent, rate

_NAMES = {
    "lr": ("learning rate", "Learning rate of the GLS phase (log)"),
    "warmup_epochs": ("warm-up", "Warm-up, epochs"),
}
_READING = (
    "A cell is the highest validation accuracy of the completed trials in it, empty where there is none; markers are "
    "the trials, and where crosses gather, training diverges."
)
#: Name, symbol and size of the marks of trials, by how they ended.
_ENDS = {
    "completed": ("completed", "circle", 8),
    "stopped": ("stopped early", "circle-open", 7),
    "diverged": ("diverged", "x", 8),
}
_HOVER = (
    "<b>%{fullData.name}</b>: %{customdata[3]}<br>r = %{customdata[1]}, UNIT %{customdata[2]}"
    "<br>trial %{customdata[0]}<extra></extra>"
)


def interaction_plot(key: str, found: Interaction) -> Plot:
    """Draw one interaction."""
    reading = of_metric(_READING, [found.metric])
    short, axis_title = _NAMES[found.setting]
    title = f"{found.noise_level}: rate and {short}"
    if few := common.too_few(sum(point.status == "completed" for point in found.points)):
        return Plot.empty(key, title, reading, few)
    is_log = found.setting == "lr"
    points = common.thinned(found.points)
    data = [_cells(found, is_log)]
    data += [_points(found, status, points, is_log) for status in _ENDS if any(p.status == status for p in points)]
    edges = [edge for edge in found.rate_edges if math.isfinite(edge)]
    ticks = _log_ticks([*found.value_edges, *(point.value for point in points)]) if is_log else {}
    figure = {
        "data": data,
        "layout": common.layout(
            xaxis=common.rate_axis([*edges, *(point.smooth_rate for point in points)]),
            yaxis={"title": {"text": axis_title}, **ticks},
        ),
    }
    note = common.thinning_note(len(points), len(found.points), "trials")
    return Plot(key, title, reading, _summary(found, short), figure, 440, note)


def _position(value: float, is_log: bool) -> float:
    return round(math.log10(value), 4) if is_log and value > 0 else round(value, 4)


def _cells(found: Interaction, is_log: bool) -> Figure:
    bar = {"orientation": "h", "thickness": 10, "y": 1.0, "yanchor": "bottom", "len": 0.8}
    return {
        "type": "heatmap",
        "x": rate_positions(found.rate_edges),
        "y": [_position(edge, is_log) for edge in found.value_edges],
        "z": [common.percentages(row) for row in found.best],
        "text": [[str(count) for count in row] for row in found.counts],
        "colorscale": "Cividis",
        "hoverongaps": False,
        "hovertemplate": "best of the cell: %{z:.2f} %<br>completed trials: %{text}<extra></extra>",
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"title": {"text": "Validation, %", "side": "top"}, **bar},
    }


def _points(found: Interaction, status: str, points: list[InteractionPoint], is_log: bool) -> Figure:
    name, symbol, size = _ENDS[status]
    mine = [point for point in points if point.status == status]
    colour = "@bad" if status == "diverged" else "@ink"
    edge = {"color": "@page" if status == "completed" else colour, "width": 1.5}
    return common.scatter(
        "markers",
        rate_positions(point.smooth_rate for point in mine),
        [_position(point.value, is_log) for point in mine],
        name=name,
        customdata=[
            [common.plotly_text(p.trial_id), rate(p.smooth_rate), number(p.value), percent(p.val_accuracy, 2)]
            for p in mine
        ],
        hovertemplate=_HOVER.replace("UNIT", "lr" if is_log else "warm-up"),
        marker={"symbol": symbol, "size": size, "color": colour, "line": edge},
    )


def _log_ticks(values: list[float]) -> Figure:
    known = [value for value in values if value > 0 and math.isfinite(value)]
    if not known:
        return {}
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    steps = (1, 3) if high - low <= 4 else (1,)
    ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    return {
        "tickvals": [round(math.log10(t), 4) for t in ticks],
        "ticktext": [number(t) for t in ticks],
    }


def _summary(found: Interaction, short: str) -> str:
    ends = [f"{sum(p.status == status for p in found.points)} {name}" for status, (name, _, _) in _ENDS.items()]
    text = f"{len(found.points)} trials ({', '.join(ends)})"
    best = max(
        (p for p in found.points if p.status == "completed" and p.val_accuracy is not None),
        key=lambda p: p.val_accuracy or 0.0,
        default=None,
    )
    if best is None:
        return text + "."
    where = f"rate {rate(best.smooth_rate)} and {short} {number(best.value)}"
    return f"{text}; the best is at {where}, validation {percent(best.val_accuracy)}."
