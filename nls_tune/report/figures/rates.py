"""Figures of smooth rates: accuracy against the rate, and the best rate against the noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from nls_tune.analysis.rate_against_noise import BestRate
from nls_tune.analysis.rate_curves import RateCurve, RatePoint, SmoothedCurve
from nls_tune.report.figures import style
from nls_tune.report.figures.panels import USUAL_RATE, label_panels, legend_below, mark_theory, panels
from nls_tune.report.figures.sweep import accuracy_over_rates
from nls_tune.report.rate_scale import rate_position, rate_positions
from nls_tune.report.text import of_metric
from nls_tune.spaces.settings import RATE_ARMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nls_tune.analysis.analysis import RunAnalysis

#: A point this many times further below the median than the best is above it is marked at the lower edge.
_FAR = 8.0
#: More markers than this become pixels in SVG and PDF files.
_MOST_VECTORS = 2000


def accuracy_against_rate(run: RunAnalysis) -> Figure | str:
    """Draw the rates of a sweep; without one of every level the trials with the local mean, and CE's level."""
    curves = [curve for curve in run.rate_curves if curve.points]
    if run.rate_sweeps and {sweep.noise_level for sweep in run.rate_sweeps} >= {curve.noise_level for curve in curves}:
        return accuracy_over_rates(run.rate_sweeps)
    if not curves:
        return "no search trial has run to its end"
    arms = {summary.noise_level: summary.arms for summary in run.summaries}
    metrics = [run.run.content.metric]
    has_test = any(point.test_accuracy is not None for curve in curves for point in curve.points)
    figure, columns = panels(len(curves), [1.35, 1.35] if has_test else [1.6])
    rates = [0.0, *(point.smooth_rate for curve in curves for point in curve.points)]
    cancelling = [curve.noise_cancelling_rate for curve in curves if curve.noise_cancelling_rate is not None]
    rates += [rate for rate in cancelling if rate >= 2 * min([*rates, USUAL_RATE])]
    for curve, column in zip(curves, columns, strict=True):
        ce = arms.get(curve.noise_level, {}).get("ce")
        tests = [(p, p.test_accuracy) for p in curve.points if p.test_accuracy is not None]
        values = [(p, p.val_accuracy) for p in curve.points]
        if has_test:
            _panel(column[0], curve, tests, curve.test, ce.test_accuracy_at_best if ce else None)
        _panel(column[-1], curve, values, curve.validation, ce.val_accuracy if ce else None)
        column[0].set_title(style.level_label(curve.noise_level))
        label_panels(columns, column, rates, metrics)
    title = "Accuracy against smooth rate, spaced by log(1 − r), for each noise level"
    figure.suptitle(of_metric(title, metrics))
    legend_below(figure, [axis for column in columns for axis in column])
    return figure


def _panel(
    axis: Axes,
    curve: RateCurve,
    values: Sequence[tuple[RatePoint, float]],
    smoothed: SmoothedCurve | None,
    ce_level: float | None,
) -> None:
    mark_theory(axis, curve.noise_cancelling_rate)
    if ce_level is not None:
        axis.axhline(
            ce_level, color=style.ARM_COLOURS["ce"], linestyle=(0, (4, 2)), linewidth=0.9, zorder=2, label="selected CE"
        )
    if smoothed is not None:
        x = rate_positions(smoothed.rates)
        axis.fill_between(x, smoothed.low, smoothed.high, color=style.SMOOTHER, alpha=0.18, linewidth=0, zorder=1)
        axis.plot(x, smoothed.mean, color=style.SMOOTHER, zorder=3, label="local mean, 95 % band")
    for arm in RATE_ARMS:
        mine = [(rate_position(point.smooth_rate), value) for point, value in values if point.arm == arm]
        if mine:
            axis.plot(
                *zip(*mine, strict=True), linestyle="none", marker=style.ARM_MARKERS[arm], color=style.ARM_COLOURS[arm],
                markersize=3.6, markeredgecolor="white", markeredgewidth=0.4, zorder=4, label=arm,
                rasterized=len(mine) > _MOST_VECTORS,
            )  # fmt: skip
    style.percentages(axis)
    _leave_out_far_ones(axis, values, ce_level)


def _leave_out_far_ones(axis: Axes, values: Sequence[tuple[RatePoint, float]], ce_level: float | None) -> None:
    """Give the panel to the bulk of the points; arrows at its lower edge stand for those far below."""
    ordered = sorted(value for _, value in values)
    if not ordered:
        return
    best, median = ordered[-1], ordered[len(ordered) // 2]
    limit = median - _FAR * max(best - median, 0.002)
    near = [value for value in ordered if value >= limit]
    axis.set_ylim(style.limits(near if ce_level is None else [*near, ce_level]))
    for point, value in values:
        if value < limit:
            axis.plot(
                [rate_position(point.smooth_rate)], [0.03], transform=axis.get_xaxis_transform(), linestyle="none",
                color=style.ARM_COLOURS[point.arm], marker="v", markersize=3.2, markerfacecolor="none",
                markeredgewidth=0.7,
            )  # fmt: skip
    if far := len(ordered) - sum(value >= limit for value in ordered):
        axis.text(0.02, 0.12, f"▽ {far} lower", transform=axis.transAxes, fontsize=5.5, color=style.MUTED)


def best_rate_against_noise(run: RunAnalysis) -> Figure | str:
    """Draw the rate to use at each level over its noise, with the line of theory."""
    found = run.rate_against_noise
    if found is None or not found.levels:
        return "no verdict says what to use"
    placed = [(level, noise) for level in found.levels if (noise := level.known_or_estimated) is not None]
    if not placed:
        return "the noise rate of no level is known or estimated"
    figure = Figure(figsize=(style.SINGLE, 2.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(
        found.theory_noise_rates, rate_positions(found.theory_rates), color=style.THEORY, linestyle=(0, (1, 1.2)),
        linewidth=1.4, label="noise-cancelling rate\n(symmetric noise)",
    )  # fmt: skip
    for arm in RATE_ARMS:
        for known in (True, False):
            mine = [(r, n) for r, n in placed if r.arm == arm and (r.noise_rate is not None) == known]
            if mine:
                _best_rates(axis, mine, known)
    rates = [level.smooth_rate for level, _ in placed]
    theory = [rate for rate in found.theory_rates if rate >= 2 * min([*rates, USUAL_RATE])]
    style.label_rates(axis, "y", [0.0, *rates, *theory], inches=2.0)
    style.percentages(axis, "x", bins=6)
    axis.set_xlabel("noise rate (share of wrong labels), %")
    axis.set_ylabel("smooth rate to use, spaced by log(1 − r)")
    axis.set_title("Rate to use against label noise")
    axis.legend(loc="best", fontsize=6)
    if missing := [style.label(level.noise_level, 20) for level in found.levels if level.known_or_estimated is None]:
        axis.text(
            0.02,
            0.02,
            f"noise unknown: {', '.join(missing[:3])}",
            transform=axis.transAxes,
            fontsize=5.5,
            color=style.MUTED,
        )
    return figure


def _best_rates(axis: Axes, placed: Sequence[tuple[BestRate, float]], known: bool) -> None:
    arm = placed[0][0].arm
    axis.plot(
        [noise for _, noise in placed], rate_positions(level.smooth_rate for level, _ in placed),
        marker=style.ARM_MARKERS[arm], color=style.ARM_COLOURS[arm], markersize=4.5, linestyle="none",
        markerfacecolor=style.ARM_COLOURS[arm] if known else "white",
        label=arm if known else f"{arm}, noise estimated",
    )  # fmt: skip
