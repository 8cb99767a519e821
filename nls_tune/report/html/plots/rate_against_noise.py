"""The best smooth rate of each noise level, beside the noise-cancelling rate of theory."""

from __future__ import annotations

from typing import Any

from nls_tune.analysis.rate_against_noise import BestRate, RateAgainstNoise
from nls_tune.report.html.plots.common import (
    Plot,
    error_bars,
    fitted_range,
    joined,
    layout,
    percentage,
    plotly_text,
    rate_axis,
    rate_position,
)
from nls_tune.report.html.plots.theme import ARM_COLOURS, ARM_SYMBOLS
from nls_tune.report.text import ARM_NAMES, percent, rate
from nls_tune.spaces.space import ARMS

_TITLE = "Best smooth rate against noise"
_READING = (
    "Each marker is the rate that the search recommends at a noise level, with the rates that resampled validation "
    "samples would select (95 %); the line is the noise-cancelling rate of symmetric noise: a prior, not an answer."
)
_HOVER = "<b>%{customdata[0]}</b><br>r = %{customdata[1]} (%{customdata[2]} to %{customdata[3]})<extra></extra>"


def rate_against_noise_plot(key: str, found: RateAgainstNoise | None) -> Plot:
    """Draw the best rates of a run; None where no level has any."""
    placed = [] if found is None else [level for level in found.levels if _noise(level) is not None]
    if found is None or not placed:
        reason = (
            "No noise level has a recommended configuration." if found is None else "No level's noise rate is known."
        )
        return Plot(key, _TITLE, _READING, reason, None, note=reason)
    rates = [r for level in placed for r in (level.low, level.smooth_rate, level.high)]
    noise = [0.0, *(percentage(_noise(level)) for level in placed), *map(percentage, found.theory_noise_rates)]
    figure = {
        "data": [_theory(found), *_levels(placed)],
        "layout": layout(
            xaxis={"title": {"text": "Wrong labels, %"}, "range": fitted_range(noise)},
            yaxis=rate_axis([*rates, *found.theory_rates, 0.0]),
        ),
    }
    unknown = [level.noise_level for level in found.levels if _noise(level) is None]
    estimated = [level.noise_level for level in placed if level.noise_rate is None]
    note = joined(
        f"Not drawn, because their noise rate is unknown: {', '.join(unknown)}." if unknown else None,
        f"At their estimated noise rate (open markers): {', '.join(estimated)}." if estimated else None,
    )
    return Plot(key, _TITLE, _READING, _summary(found), figure, 440, note)


def _noise(level: BestRate) -> float | None:
    return level.estimated_noise_rate if level.noise_rate is None else level.noise_rate


def _theory(found: RateAgainstNoise) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"noise-cancelling rate (symmetric, {found.num_classes} classes)",
        "x": [percentage(noise) for noise in found.theory_noise_rates],
        "y": [rate_position(r) for r in found.theory_rates],
        "customdata": [rate(r) for r in found.theory_rates],
        "hovertemplate": "%{x:.1f} % wrong labels: r = %{customdata}<extra>theory</extra>",
        "line": {"color": "@theory", "dash": "dot", "width": 2},
    }


def _levels(levels: list[BestRate]) -> list[dict[str, Any]]:
    traces = []
    for arm in ARMS:
        mine = [level for level in levels if level.arm == arm]
        if not mine:
            continue
        y = [rate_position(level.smooth_rate) for level in mine]
        bars = error_bars([rate_position(v.low) for v in mine], y, [rate_position(v.high) for v in mine])
        suffix = ["-open" if level.noise_rate is None else "" for level in mine]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "recommended: " + ARM_NAMES[arm].replace(">", "&gt;").replace("<", "&lt;"),
                "x": [percentage(_noise(level)) for level in mine],
                "y": y,
                "customdata": [
                    [plotly_text(v.noise_level), rate(v.smooth_rate), rate(v.low), rate(v.high)] for v in mine
                ],
                "hovertemplate": _HOVER,
                "error_y": {**bars, "color": ARM_COLOURS[arm]},
                "marker": {
                    "color": ARM_COLOURS[arm],
                    "symbol": [ARM_SYMBOLS[arm] + part for part in suffix],
                    "size": 11,
                },
            }
        )
    return traces


def _summary(found: RateAgainstNoise) -> str:
    parts = [
        f"{level.noise_level} ({percent(_noise(level))} wrong labels): {rate(level.smooth_rate)}, plausible "
        f"{rate(level.low)} to {rate(level.high)}, noise-cancelling {rate(level.noise_cancelling_rate)}"
        for level in found.levels
    ]
    return "Best rates: " + "; ".join(parts) + "."
