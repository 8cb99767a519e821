"""Which trial held which slot when."""

from __future__ import annotations

from typing import Any

from nls_tune.analysis.allocation import Allocation, TrialSpan
from nls_tune.report.html.plots.common import Plot, layout, plotly_text, rounded
from nls_tune.report.html.plots.theme import ARM_COLOURS
from nls_tune.report.text import ARM_NAMES, duration, paused, percent, rate
from nls_tune.spaces.space import ARMS

_TITLE = "Which trial held which slot when"
_READING = (
    "Each bar is a trial in the slot that it held, short ones were stopped or diverged, striped ones are the "
    "confirmation's, those of a batch share the height of their slot; gaps are time in which a slot had nothing to do. "
    "Pauses between sessions are left out."
)
#: Bars of more trials could not be told apart.
MAX_SPANS = 2000
_UNITS = ((2 * 86400, 86400, "days"), (2 * 3600, 3600, "hours"), (2 * 60, 60, "minutes"), (0, 1, "seconds"))
_HOVER = (
    "<b>%{customdata[0]}, r = %{customdata[1]}</b> (%{customdata[2]}, %{customdata[3]})<br>%{customdata[4]} epochs, "
    "%{customdata[5]} of them reused, %{customdata[6]}<br>trial %{customdata[7]}<extra></extra>"
)


def allocation_plot(key: str, found: Allocation | None) -> Plot:
    """Draw the slots of a run; None where no trial has ended."""
    if found is None or not found.spans:
        reason = "No trial has ended."
        return Plot(key, _TITLE, _READING, reason, None, note=reason)
    # The longest ones: what is left out is what could not be seen.
    spans = sorted(sorted(found.spans, key=lambda s: s.seconds)[-MAX_SPANS:], key=lambda s: s.start_seconds)
    note = (
        f"The longest {len(spans):,} of {len(found.spans):,} trials are drawn."
        if len(spans) < len(found.spans)
        else None
    )
    divisor, unit = next((d, name) for least, d, name in _UNITS if found.wall_seconds >= least)
    slots = {span.slot: span for span in spans}
    figure = {
        "data": _traces(spans, divisor),
        "layout": layout(
            barmode="overlay",
            xaxis={"title": {"text": f"Time since the first trial, {unit}"}, "rangemode": "tozero"},
            yaxis={
                "title": {"text": "Slot"},
                "tickvals": sorted(slots),
                "ticktext": [str(slot) for slot in sorted(slots)],
                "autorange": "reversed",
            },
        ),
    }
    summary = (
        f"{len(found.spans):,} trials in {found.num_slots} slots over "
        f"{duration(found.wall_seconds)}{paused(found.paused_seconds)}; the slots were "
        f"busy {percent(found.busy_share)} of the time."
    )
    return Plot(key, _TITLE, _READING, summary, figure, min(900, 170 + 34 * found.num_slots), note)


def _traces(spans: list[TrialSpan], divisor: int) -> list[dict[str, Any]]:
    traces = []
    for is_search in (True, False):
        for arm in ARMS:
            mine = [s for s in spans if s.arm == arm and (s.stage == "search") is is_search]
            if mine:
                traces.append(_bars(mine, divisor, arm, is_search))
    return traces


def _bars(spans: list[TrialSpan], divisor: int, arm: Any, is_search: bool) -> dict[str, Any]:
    name = ARM_NAMES[arm] + ("" if is_search else ", confirmation")
    stripes = {"shape": "/", "fgcolor": "@page", "bgcolor": ARM_COLOURS[arm], "solidity": 0.3, "size": 7}
    pattern = {} if is_search else {"pattern": stripes}
    return {
        "type": "bar",
        "orientation": "h",
        "name": plotly_text(name),
        "y": [s.slot for s in spans],
        "width": 0.75,
        "base": [rounded(span.start_seconds / divisor, 4) for span in spans],
        "x": [rounded(span.seconds / divisor, 4) for span in spans],
        "customdata": [
            [
                plotly_text(s.noise_level),
                rate(s.smooth_rate),
                plotly_text(s.stage),
                plotly_text(s.status),
                s.epochs,
                s.epochs_reused,
                duration(s.seconds),
                plotly_text(s.trial_id),
            ]
            for s in spans
        ],
        "hovertemplate": _HOVER,
        "marker": {"color": ARM_COLOURS[arm], "line": {"color": "@page", "width": 0.5}, **pattern},
    }
