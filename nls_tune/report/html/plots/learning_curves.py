"""Accuracies epoch by epoch at one noise level: training, validation and test, one above the other."""

from __future__ import annotations

from collections.abc import Sequence

from nls_tune.analysis.learning_curves import LearningCurve, LevelCurves
from nls_tune.report.html.plots import common
from nls_tune.report.html.plots.common import Figure, Plot
from nls_tune.report.html.plots.theme import ARM_COLOURS, ARM_DASHES, ARM_SYMBOLS
from nls_tune.report.text import number, of_metric, percent, rate, rate_name

_READING = (
    "A network that memorises wrong labels goes on rising on training while test falls: compare each curve's star "
    "(best epoch by validation, what you would deploy) with its last epoch (open marker)."
)
#: The panels from top to bottom: the axis title and the field.
_PANELS = (
    ("Test, %", "test_accuracy"),
    ("Validation (noisy), %", "val_accuracy"),
    ("Training (noisy), %", "train_accuracy"),
)
#: Epochs of a curve that is there to be compared with.
MAX_FAINT_EPOCHS = 40


def learning_curves_plot(key: str, level: LevelCurves) -> Plot:
    """Draw the learning curves of one noise level."""
    title = f"{level.noise_level}: learning curves"
    curves = [curve for curve in level.curves if curve.epochs]
    if not curves:
        return Plot.empty(key, title, _READING, "No search trial of this level has an epoch.")
    panels = [panel for panel in _PANELS if any(v is not None for c in curves for v in getattr(c, panel[1]))]
    prominent = [curve for curve in curves if curve.role != "other"]
    others = [curve for curve in curves if curve.role == "other"]
    data: list[Figure] = []
    for index, (_, field) in enumerate(panels):
        axis = "y" if index == 0 else f"y{index + 1}"
        if others:
            data.append(_faint(others, field, axis, "@faint" if prominent else "@curve"))
        for curve in prominent:
            data += _prominent(curve, field, axis)
    shown = len(level.curves)
    note = common.joined(
        f"{shown:,} of {level.num_trials:,} trials are shown: the selected, CE with the defaults, the best others."
        if shown < level.num_trials
        else None,
        None if len(panels) == len(_PANELS) else "There is no test set.",
        None
        if level.metric == "accuracy"
        else f"Test and validation show {of_metric('accuracy', [level.metric])}, training accuracy.",
        f"Others are drawn at {MAX_FAINT_EPOCHS} of their epochs."
        if any(len(curve.epochs) > MAX_FAINT_EPOCHS for curve in others)
        else None,
        "The axes fit the prominent curves; a double click fits all." if prominent and len(prominent) < shown else None,
    )
    figure = {"data": data, "layout": _layout(panels, prominent)}
    return Plot(key, title, _READING, _summary(curves), figure, 240 + 160 * len(panels), note)


def _faint(curves: list[LearningCurve], field: str, axis: str, colour: str) -> Figure:
    """All of them as one line with gaps, and with fewer epochs and digits: they are there to be compared with."""
    points: list[tuple[int | None, float | None]] = []
    for curve in curves:
        for epoch, value in common.thinned(
            list(zip(curve.epochs, getattr(curve, field), strict=True)), MAX_FAINT_EPOCHS
        ):
            points.append((epoch, common.rounded(None if value is None else 100 * value, 1)))
        points.append((None, None))
    x, y = zip(*points, strict=True)
    legend = {"name": "other trials", "legendgroup": "others", "showlegend": axis == "y"}
    return common.scatter("lines", x, y, yaxis=axis, **legend, hoverinfo="skip", line={"color": colour, "width": 1})


def _name(curve: LearningCurve) -> str:
    if curve.role == "default_ce":
        return "CE with the defaults"
    return f"{rate_name(curve.arm, curve.smooth_rate)}, selected"


def _prominent(curve: LearningCurve, field: str, axis: str) -> list[Figure]:
    """The curve, and marks at its last epoch and, where one counts, at its best."""
    colour, symbol, dash = ARM_COLOURS[curve.arm], ARM_SYMBOLS[curve.arm], ARM_DASHES[curve.arm]
    if curve.role == "default_ce":
        colour, symbol, dash = "@theory", "triangle-up", "dashdot"
    values: Sequence[float | None] = getattr(curve, field)
    group = {"yaxis": axis, "legendgroup": common.plotly_text(f"{curve.role} {curve.trial_id}")}
    detail = (
        f"r = {rate(curve.smooth_rate)}, warm-up {curve.warmup_epochs}, lr {number(curve.lr)}"
        f"<br>trial {common.plotly_text(curve.trial_id)}"
    )
    line = common.scatter(
        "lines",
        curve.epochs,
        common.percentages(values),
        **group,
        name=common.plotly_text(_name(curve)),
        showlegend=axis == "y",
        line={"color": colour, "width": 2, "dash": dash},
        text=detail.replace("%{", ""),
        hovertemplate="<b>epoch %{x}</b>, %{y:.2f} %<br>%{text}<extra></extra>",
    )
    first, last = curve.epochs[0], curve.epochs[-1]
    if list(curve.epochs) == list(range(first, last + 1)):
        del line["x"]
        line |= {"x0": first, "dx": 1}
    marks = [(last, f"{symbol}-open", "last epoch", 9)]
    if curve.best_epoch is not None and curve.best_epoch in curve.epochs:
        marks.append((curve.best_epoch, "star", "best epoch", 13))
    epochs, shapes, names, sizes = (list(column) for column in zip(*marks, strict=True))
    by_epoch = dict(zip(curve.epochs, values, strict=True))
    return [
        line,
        common.scatter(
            "markers",
            epochs,
            [common.percentage(by_epoch[epoch]) for epoch, *_ in marks],
            **group,
            showlegend=False,
            text=names,
            marker={"symbol": shapes, "size": sizes, "color": colour, "line": {"color": colour, "width": 1.5}},
            hovertemplate="%{text} %{x}: %{y:.2f} %<extra></extra>",
        ),
    ]


def _layout(panels: list[tuple[str, str]], prominent: list[LearningCurve]) -> Figure:
    found = common.layout(xaxis={"title": {"text": "Epoch"}, "anchor": f"y{len(panels)}" if len(panels) > 1 else "y"})
    height = 1 / len(panels)
    for index, (title, field) in enumerate(panels):
        top = 1 - index * height
        # One trial that collapses would press all others into a line.
        fitted = common.fitted_range(
            common.percentages(v for curve in prominent for v in getattr(curve, field)), least=1.0
        )
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
