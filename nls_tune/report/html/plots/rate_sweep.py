"""The sweep of one noise level: accuracy against smooth rate over fresh seeds."""

from __future__ import annotations

from nls_tune.analysis.rate_sweep import RateSweep
from nls_tune.report.html.plots import common
from nls_tune.report.html.plots.common import Figure, Plot
from nls_tune.report.html.plots.theme import ARM_COLOURS
from nls_tune.report.rate_scale import rate_position, rate_positions
from nls_tune.report.text import interval, number, of_metric, percent, rate
from nls_tune.spaces.settings import RATE_ARMS

_READING = (
    "Each marker is a rate with the best settings that were tried for it: the mean over fresh seeds with its 95 % t "
    "interval; the dashed line is rate 0, which is cross-entropy, and the thin line the best rate on validation. "
    "The best of many rates proves no gain: the confirmation does that."
)
_HOVER = (
    "<b>r = %{customdata[0]}</b>, %{y:.2f} %<br>warm-up %{customdata[1]}, lr %{customdata[2]}"
    "<br>against rate 0: %{customdata[3]} points<extra></extra>"
)
_LEAST_SPAN = 1.0


def rate_sweep_plot(key: str, sweep: RateSweep) -> Plot:
    """Draw the sweep of one noise level."""
    has_test = all(found.test is not None for found in sweep.rates)
    means = [found.test if has_test and found.test else found.validation for found in sweep.rates]
    what = "Test accuracy, %" if has_test else "Validation accuracy (noisy labels), %"
    what, accuracy = (of_metric(text, [sweep.metric]) for text in (what, "accuracy"))
    best, cancelling = sweep.rates[sweep.best], sweep.noise_cancelling_rate
    shown = [0.0, *(found.smooth_rate for found in sweep.rates), *([] if cancelling is None else [cancelling])]
    x = rate_positions(found.smooth_rate for found in sweep.rates)
    look = {"color": "@curve", "width": 1.5}
    data = [common.scatter("lines", x, common.percentages(m.mean for m in means), line=look, hoverinfo="skip",
                           showlegend=False)]  # fmt: skip
    shapes = [common.vertical_line(rate_position(best.smooth_rate), color="@muted", width=1)]
    if cancelling is not None:
        shapes.append(common.vertical_line(rate_position(cancelling), color="@theory", dash="dot", width=2))
    for arm in RATE_ARMS:
        mine = [(found, mean) for found, mean in zip(sweep.rates, means, strict=True) if found.arm == arm]
        if mine:
            data.append(
                common.scatter(
                    "markers",
                    rate_positions(found.smooth_rate for found, _ in mine),
                    common.percentages(mean.mean for _, mean in mine),
                    name=arm,
                    error_y=common.error_bars([mean for _, mean in mine], ARM_COLOURS[arm]),
                    marker=common.arm_marker(arm, 9),
                    customdata=[
                        [rate(f.smooth_rate), str(f.config["warmup_epochs"]), number(f.config["lr"]),
                         interval(f.difference)]
                        for f, _ in mine
                    ],
                    hovertemplate=_HOVER,
                )
            )  # fmt: skip
    zero = next((mean for found, mean in zip(sweep.rates, means, strict=True) if found.arm == "ce"), None)
    if zero is not None:
        shapes.append({**_level(common.percentage(zero.mean)), "line": {"color": "@ce", "dash": "dash", "width": 1.5}})
    ends = [end for mean in means for end in ((mean.low, mean.high) if mean.num_seeds > 1 else (mean.mean,))]
    figure = {
        "data": data,
        "layout": common.layout(
            xaxis=common.rate_axis(shown),
            yaxis={"title": {"text": what}, "range": common.fitted_range(common.percentages(ends), _LEAST_SPAN)},
            shapes=shapes,
        ),
    }
    difference = "" if best.difference is None else f"; against rate 0: {interval(best.difference)} points"
    summary = (
        f"{len(sweep.rates)} rates from {rate(sweep.rates[0].smooth_rate)} to {rate(sweep.rates[-1].smooth_rate)}; "
        f"the highest validation {accuracy} is {percent(best.validation.mean)} at rate {rate(best.smooth_rate)}"
        f"{difference}."
    )
    cancels = None if cancelling is None else f"The dotted line is the noise-cancelling rate, {rate(cancelling)}."
    title = f"{sweep.noise_level}: {accuracy} against smooth rate over fresh seeds"
    return Plot(key, title, _READING, summary, figure, 400, cancels)


def _level(y: float | None) -> Figure:
    return {"type": "line", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": y, "y1": y}
