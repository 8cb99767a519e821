"""Which trial held which slot when."""

from __future__ import annotations

from nls_tune.analysis.allocation import Allocation, TrialSpan
from nls_tune.report.html.plots.common import Figure, Plot, layout, plotly_text, rounded
from nls_tune.report.html.plots.theme import ARM_COLOURS
from nls_tune.report.text import duration, paused, percent, rate
from nls_tune.spaces.settings import Arm, ordered_arms

_TITLE = "Which trial held which slot when"
_READING = (
    "Each bar is a trial in the slot that it held, short ones were stopped or diverged, striped ones came after the "
    "search, those of a batch share the height of their slot; gaps are time in which a slot had nothing to do. Pauses "
    "between sessions are left out."
)
#: Bars of more trials could not be told apart.
MAX_SPANS = 2000
_UNITS = ((2 * 86400, 86400, "days"), (2 * 3600, 3600, "hours"), (2 * 60, 60, "minutes"), (0, 1, "seconds"))
_HOVER = (
    "<b>%{customdata[0]}, r = %{customdata[1]}</b> (%{customdata[2]}, %{customdata[3]})<br>%{customdata[4]} epochs, "
    "%{customdata[5]} of them reused, %{customdata[6]}<br>trial %{customdata[7]}<extra></extra>"
)


def allocation_plot(key: str, found: Allocation | None) -> Plot:
    """Draw the slots of a run; ``found`` is None where no trial has ended."""
    if found is None or not found.spans:
        return Plot.empty(key, _TITLE, _READING, "No trial has ended.")
    # The longest ones: what is left out is what could not be seen.
    spans = sorted(sorted(found.spans, key=lambda s: s.seconds)[-MAX_SPANS:], key=lambda s: s.start_seconds)
    longest = f"The longest {len(spans):,} of {len(found.spans):,} trials are drawn."
    note = longest if len(spans) < len(found.spans) else None
    divisor, unit = next((d, name) for least, d, name in _UNITS if found.wall_seconds >= least)
    slots = sorted({span.slot for span in spans})
    data = []
    for is_search in (True, False):
        for arm in ordered_arms(span.arm for span in spans):
            if mine := [s for s in spans if s.arm == arm and (s.stage == "search") is is_search]:
                data.append(_bars(mine, divisor, arm, is_search))
    yaxis = {"title": {"text": "Slot"}, "tickvals": slots, "ticktext": list(map(str, slots)), "autorange": "reversed"}
    xaxis = {"title": {"text": f"Time since the first trial, {unit}"}, "rangemode": "tozero"}
    figure = {"data": data, "layout": layout(barmode="overlay", xaxis=xaxis, yaxis=yaxis)}
    summary = (
        f"{len(found.spans):,} trials in {found.num_slots} slots over "
        f"{duration(found.wall_seconds)}{paused(found.paused_seconds)}; the slots were "
        f"busy {percent(found.busy_share)} of the time."
    )
    return Plot(key, _TITLE, _READING, summary, figure, min(900, 170 + 34 * found.num_slots), note)


def _bars(spans: list[TrialSpan], divisor: int, arm: Arm, is_search: bool) -> Figure:
    stripes = {"shape": "/", "fgcolor": "@page", "bgcolor": ARM_COLOURS[arm], "solidity": 0.3, "size": 7}
    pattern = {} if is_search else {"pattern": stripes}
    return {
        "type": "bar",
        "orientation": "h",
        "name": arm if is_search else f"{arm}, after the search",
        "y": [span.slot for span in spans],
        "width": 0.75,
        "base": [rounded(span.start_seconds / divisor, 4) for span in spans],
        "x": [rounded(span.seconds / divisor, 4) for span in spans],
        "customdata": [
            [
                *(plotly_text(s.noise_level), rate(s.smooth_rate), plotly_text(s.stage), plotly_text(s.status)),
                *(s.epochs, s.epochs_reused, duration(s.seconds), plotly_text(s.trial_id)),
            ]
            for s in spans
        ],
        "hovertemplate": _HOVER,
        "marker": {"color": ARM_COLOURS[arm], "line": {"color": "@page", "width": 0.5}, **pattern},
    }
