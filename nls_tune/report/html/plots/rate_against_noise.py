"""The best smooth rate of each noise level, beside the noise-cancelling rate of theory."""

from __future__ import annotations

from nls_tune.analysis.rate_against_noise import BestRate, RateAgainstNoise
from nls_tune.report.html.plots import common
from nls_tune.report.html.plots.common import Figure, Plot
from nls_tune.report.html.plots.theme import ARM_SYMBOLS
from nls_tune.report.rate_scale import rate_positions
from nls_tune.report.text import percent, rate
from nls_tune.spaces.settings import RATE_ARMS, Arm

_TITLE = "Rate to use against noise"
_READING = (
    "Each marker is the rate that the verdict says to use at a noise level; the line is the noise-cancelling rate of "
    "symmetric noise: a prior, not an answer."
)
_HOVER = "<b>%{customdata[0]}</b><br>r = %{customdata[1]}<extra></extra>"


def rate_against_noise_plot(key: str, found: RateAgainstNoise | None) -> Plot:
    """Draw the rates to use of a run; ``found`` is None where no level has any."""
    if found is None:
        return Plot.empty(key, _TITLE, _READING, "No verdict says what to use.")
    placed = [level for level in found.levels if level.known_or_estimated is not None]
    if not placed:
        return Plot.empty(key, _TITLE, _READING, "No level's noise rate is known.")
    rates = [level.smooth_rate for level in placed]
    noise = [
        0.0,
        *common.percentages(level.known_or_estimated for level in placed),
        *common.percentages(found.theory_noise_rates),
    ]
    by_arm = {arm: [level for level in placed if level.arm == arm] for arm in RATE_ARMS}
    figure = {
        "data": [_theory(found), *(_levels(arm, levels) for arm, levels in by_arm.items() if levels)],
        "layout": common.layout(
            xaxis={"title": {"text": "Wrong labels, %"}, "range": common.fitted_range(noise)},
            yaxis=common.rate_axis([*rates, *found.theory_rates, 0.0]),
        ),
    }
    unknown = [level.noise_level for level in found.levels if level.known_or_estimated is None]
    estimated = [level.noise_level for level in placed if level.noise_rate is None]
    note = common.joined(
        f"Not drawn, because their noise rate is unknown: {', '.join(unknown)}." if unknown else None,
        f"At their estimated noise rate (open markers): {', '.join(estimated)}." if estimated else None,
    )
    return Plot(key, _TITLE, _READING, _summary(found), figure, 440, note)


def _theory(found: RateAgainstNoise) -> Figure:
    return common.scatter(
        "lines",
        common.percentages(found.theory_noise_rates),
        rate_positions(found.theory_rates),
        name=f"noise-cancelling rate (symmetric, {found.num_classes} classes)",
        customdata=[rate(r) for r in found.theory_rates],
        hovertemplate="%{x:.1f} % wrong labels: r = %{customdata}<extra>theory</extra>",
        line={"color": "@theory", "dash": "dot", "width": 2},
    )


def _levels(arm: Arm, levels: list[BestRate]) -> Figure:
    symbols = [ARM_SYMBOLS[arm] + ("-open" if level.noise_rate is None else "") for level in levels]
    return common.scatter(
        "markers",
        common.percentages(level.known_or_estimated for level in levels),
        rate_positions(level.smooth_rate for level in levels),
        name=f"use: {arm}",
        customdata=[[common.plotly_text(level.noise_level), rate(level.smooth_rate)] for level in levels],
        hovertemplate=_HOVER,
        marker={**common.arm_marker(arm, 11), "symbol": symbols},
    )


def _summary(found: RateAgainstNoise) -> str:
    parts = [
        f"{level.noise_level} ({percent(level.known_or_estimated)} wrong labels): {rate(level.smooth_rate)}, "
        f"noise-cancelling {rate(level.noise_cancelling_rate)}"
        for level in found.levels
    ]
    return "Rates to use: " + "; ".join(parts) + "."
