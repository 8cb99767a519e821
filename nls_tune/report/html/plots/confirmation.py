"""The confirmed configurations of one noise level over fresh seeds: means with intervals."""

from __future__ import annotations

import math

from nls_tune.analysis.confirmation import LevelConfirmation
from nls_tune.analysis.statistics import SampleMean
from nls_tune.report.html.plots import common
from nls_tune.report.html.plots.common import Figure, Plot
from nls_tune.report.html.plots.theme import ARM_COLOURS
from nls_tune.report.text import configuration, of_metric, percent, rate_name
from nls_tune.report.words import choice_marks

_READING = (
    "Each marker is the mean over fresh seeds with its 95 % t interval, the larger one what the verdict says to use; "
    "intervals that overlap prove nothing either way: the differences seed by seed are in the table below."
)
_HOVER = "<b>%{customdata[0]}</b><br>%{x:.2f} % (%{customdata[1]})<br>seeds: %{customdata[2]}<extra></extra>"


def confirmation_plot(key: str, level: LevelConfirmation) -> Plot:
    """Draw the confirmation of one noise level."""
    has_test = any(found.test_at_best for found in level.configurations)
    means = [found.test_at_best if has_test else found.validation for found in level.configurations]
    what = "Test accuracy, %" if has_test else "Validation accuracy (noisy labels), %"
    what, accuracy = (of_metric(text, [level.metric]) for text in (what, "accuracy"))
    rows = list(range(len(means)))
    strongest = None if level.strongest_ce is None else means[level.strongest_ce]
    lines = (
        []
        if strongest is None
        else [common.vertical_line(common.percentage(strongest.mean), color="@ce", dash="dash", width=1)]
    )
    figure = {
        "data": [_marker(level, row, mean) for row, mean in zip(rows, means, strict=True) if mean is not None],
        "layout": common.layout(
            xaxis={"title": {"text": what}},
            yaxis={
                "tickvals": rows,
                "ticktext": [_label(level, row) for row in rows],
                "range": [len(rows) - 0.5, -0.5],
                "showgrid": False,
            },
            shapes=lines,
            showlegend=False,
        ),
    }
    one = sum(len(found.seeds) < 2 for found in level.configurations)
    note = common.joined(
        None if has_test else f"There is no test set, so this is validation {accuracy}.",
        f"{one} of {len(rows)} configurations have one seed, which has no interval." if one else None,
        "The dashed line is the strongest cross-entropy." if strongest else None,
    )
    title = f"{level.noise_level}: over fresh seeds"
    parts = [_in_words(level, row, mean) for row, mean in zip(rows, means, strict=True)]
    summary = f"{'Test' if has_test else 'Validation'} {accuracy}: {'; '.join(parts)}."
    return Plot(key, title, _READING, summary, figure, 130 + 46 * len(rows), note)


def _name(level: LevelConfirmation, row: int) -> str:
    found = level.configurations[row]
    return rate_name(found.arm, found.config["smooth_rate"])


def _label(level: LevelConfirmation, row: int) -> str:
    marks = choice_marks(level, row)
    return common.plotly_text(_name(level, row)) + (f"<br><b>{marks}</b>" if marks else "")


def _interval(mean: SampleMean) -> str | None:
    return f"{percent(mean.low, 2)} to {percent(mean.high, 2)}" if math.isfinite(mean.low) else None


def _marker(level: LevelConfirmation, row: int, mean: SampleMean) -> Figure:
    found = level.configurations[row]
    name = common.plotly_text(configuration(found.config))
    return common.scatter(
        "markers",
        [common.percentage(mean.mean)],
        [row],
        name=name,
        error_x=common.error_bars([mean], ARM_COLOURS[found.arm]),
        marker=common.arm_marker(found.arm, 14 if row == level.used else 9),
        customdata=[[name, _interval(mean) or "no interval", len(found.seeds)]],
        hovertemplate=_HOVER,
    )


def _in_words(level: LevelConfirmation, row: int, mean: SampleMean | None) -> str:
    marks, spread = choice_marks(level, row), None if mean is None else _interval(mean)
    name = _name(level, row) + (f" ({marks})" if marks else "")
    value = percent(None if mean is None else mean.mean, 2) + (f" ({spread})" if spread else "")
    return f"{name}: {value}, {len(level.configurations[row].seeds)} seeds"
