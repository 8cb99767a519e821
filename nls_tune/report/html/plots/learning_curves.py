"""Accuracies epoch by epoch at one noise level: training, validation and test, one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nls_tune.analysis.learning_curves import LearningCurve, LevelCurves
from nls_tune.report.html.plots.common import (
    Plot,
    fitted_range,
    joined,
    layout,
    percentage,
    plotly_text,
    rounded,
    significant,
    thinned,
)
from nls_tune.report.html.plots.theme import ARM_COLOURS, ARM_DASHES, ARM_SYMBOLS
from nls_tune.report.text import ARM_NAMES, number, percent, rate

_READING = (
    "A network that memorises wrong labels goes on rising on training while test falls: compare each curve's star "
    "(best epoch by validation, what you would deploy) with its last epoch (open marker)."
)
#: From top to bottom: the axis title and the field.
_PANELS = (
    ("Test (clean labels), %", "test_accuracy"),
    ("Validation (noisy), %", "val_accuracy"),
    ("Training (noisy), %", "train_accuracy"),
)
#: Of a curve that is there to be compared with.
MAX_FAINT_EPOCHS = 40
_ROLES = {"selected": "selected", "default_ce": "CE with the defaults"}


def learning_curves_plot(key: str, level: LevelCurves) -> Plot:
    """Draw the learning curves of one noise level."""
    title = f"{level.noise_level}: learning curves"
    curves = [curve for curve in level.curves if curve.epochs]
    if not curves:
        reason = "No search trial of this level has an epoch."
        return Plot(key, title, _READING, reason, None, note=reason)
    panels = [p for p in _PANELS if any(v is not None for c in curves for v in getattr(c, p[1]))]
    prominent = [curve for curve in curves if curve.role != "other"]
    others = [curve for curve in curves if curve.role == "other"]
    data: list[dict[str, Any]] = []
    for index, (_, field) in enumerate(panels):
        axis = "y" if index == 0 else f"y{index + 1}"
        colour = "@faint" if prominent else "@curve"
        if others:
            data.append(_faint(others, field, axis, index == 0, colour))
        for curve in prominent:
            data += _prominent(curve, field, axis, index == 0)
    shown = len(level.curves)
    note = joined(
        f"{shown:,} of {level.num_trials:,} trials are shown: the selected, CE with the defaults, the best others."
        if shown < level.num_trials
        else None,
        None if len(panels) == len(_PANELS) else "There is no test set.",
        f"Others are drawn at {MAX_FAINT_EPOCHS} of their epochs."
        if any(len(curve.epochs) > MAX_FAINT_EPOCHS for curve in others)
        else None,
        "The axes fit the prominent curves; a double click fits all." if prominent and len(prominent) < shown else None,
    )
    return Plot(
        key,
        title,
        _READING,
        _summary(curves),
        {"data": data, "layout": _layout(panels, prominent)},
        240 + 160 * len(panels),
        note,
    )


def _line(epochs: Sequence[int], values: Sequence[float | None], axis: str) -> dict[str, Any]:
    consecutive = list(epochs) == list(range(epochs[0], epochs[0] + len(epochs)))
    x = {"x0": epochs[0], "dx": 1} if consecutive else {"x": list(epochs)}
    return {"type": "scatter", "mode": "lines", "yaxis": axis, **x, "y": list(values)}


def _faint(curves: list[LearningCurve], field: str, axis: str, legend: bool, colour: str) -> dict[str, Any]:
    """All of them as one line with gaps, and with fewer epochs and digits: they are there to be compared with."""
    x: list[int | None] = []
    y: list[float | None] = []
    for curve in curves:
        for epoch, value in thinned(list(zip(curve.epochs, getattr(curve, field), strict=True)), MAX_FAINT_EPOCHS):
            x.append(epoch)
            y.append(rounded(None if value is None else 100 * value, 1))
        x.append(None)
        y.append(None)
    return {
        "type": "scatter",
        "mode": "lines",
        "yaxis": axis,
        "x": x,
        "y": y,
        "name": "other trials",
        "legendgroup": "others",
        "showlegend": legend,
        "hoverinfo": "skip",
        "line": {"color": colour, "width": 1},
    }


def _name(curve: LearningCurve) -> str:
    what = ARM_NAMES[curve.arm] if curve.arm == "ce" else f"r = {rate(curve.smooth_rate)}"
    return f"{what}, {_ROLES[curve.role]}" if curve.role != "default_ce" else _ROLES[curve.role]


def _prominent(curve: LearningCurve, field: str, axis: str, legend: bool) -> list[dict[str, Any]]:
    is_default = curve.role == "default_ce"
    colour = "@theory" if is_default else ARM_COLOURS[curve.arm]
    symbol = "triangle-up" if is_default else ARM_SYMBOLS[curve.arm]
    group = plotly_text(f"{curve.role} {curve.trial_id}")
    detail = (
        f"r = {rate(curve.smooth_rate)}, warm-up {curve.warmup_epochs}, lr {number(significant(curve.lr) or 0.0)}"
        f"<br>trial {plotly_text(curve.trial_id)}"
    )
    line = {
        **_line(curve.epochs, [percentage(value) for value in getattr(curve, field)], axis),
        "name": plotly_text(_name(curve)),
        "legendgroup": group,
        "showlegend": legend,
        "line": {"color": colour, "width": 2, "dash": "dashdot" if is_default else ARM_DASHES[curve.arm]},
        "text": detail.replace("%{", ""),
        "hovertemplate": "<b>epoch %{x}</b>, %{y:.2f} %<br>%{text}<extra></extra>",
    }
    return [line, _marks(curve, field, axis, group, colour, symbol)]


def _marks(curve: LearningCurve, field: str, axis: str, group: str, colour: str, symbol: str) -> dict[str, Any]:
    """The last epoch and, where one counts, the best."""
    by_epoch = dict(zip(curve.epochs, getattr(curve, field), strict=True))
    marks = [(curve.epochs[-1], f"{symbol}-open", "last epoch", 9)]
    if curve.best_epoch in by_epoch:
        marks.append((curve.best_epoch, "star", "best epoch", 13))
    epochs, shapes, names, sizes = (list(column) for column in zip(*marks, strict=True))
    return {
        "type": "scatter",
        "mode": "markers",
        "yaxis": axis,
        "legendgroup": group,
        "showlegend": False,
        "x": epochs,
        "y": [percentage(by_epoch[epoch]) for epoch in epochs],
        "text": names,
        "marker": {"symbol": shapes, "size": sizes, "color": colour, "line": {"color": colour, "width": 1.5}},
        "hovertemplate": "%{text} %{x}: %{y:.2f} %<extra></extra>",
    }


def _layout(panels: list[tuple[str, str]], prominent: list[LearningCurve]) -> dict[str, Any]:
    found = layout(xaxis={"title": {"text": "Epoch"}, "anchor": f"y{len(panels)}" if len(panels) > 1 else "y"})
    height = 1 / len(panels)
    for index, (title, field) in enumerate(panels):
        top = 1 - index * height
        # One trial that collapses would press all others into a line.
        fitted = fitted_range((percentage(v) for curve in prominent for v in getattr(curve, field)), least=1.0)
        found["yaxis" if index == 0 else f"yaxis{index + 1}"] = {
            "title": {"text": title},
            "domain": [round(max(0.0, top - height + 0.035), 3), round(top, 3)],
            **({} if fitted is None else {"range": fitted}),
        }
    return found


def _summary(curves: list[LearningCurve]) -> str:
    parts = []
    for curve in curves:
        if curve.role == "other" or curve.best_epoch not in curve.epochs:
            continue
        at = curve.epochs.index(curve.best_epoch)
        text = f"{_name(curve)}: best epoch {curve.best_epoch} of {curve.epochs[-1]}, validation "
        text += f"{percent(curve.val_accuracy[at])} there and {percent(curve.val_accuracy[-1])} at the end"
        if curve.test_accuracy[at] is not None:
            text += f", test {percent(curve.test_accuracy[at])} and {percent(curve.test_accuracy[-1])}"
        parts.append(text)
    return ("; ".join(parts) or f"{len(curves)} trials, none of which has an epoch that counts") + "."
