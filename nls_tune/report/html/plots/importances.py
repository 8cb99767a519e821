"""Which settings matter at one noise level."""

from __future__ import annotations

from nls_tune.analysis.importances import LevelImportances
from nls_tune.report.html.plots.common import Figure, Plot, layout, percentages, plotly_text
from nls_tune.report.text import of_metric, percent

_READING = (
    "Longer bars matter more for validation accuracy; the two methods ask different questions, and where they disagree "
    "or trials are few, neither is to be trusted far."
)


def importances_plot(key: str, level: LevelImportances) -> Plot:
    """Draw the importances of one noise level."""
    title, reading = f"{level.noise_level}: what matters", of_metric(_READING, [level.metric])
    if not level.importances:
        return Plot.empty(key, title, reading, f"{(level.reason or 'There are none').rstrip('.')}.")
    ordered = level.importances[::-1]  # plotly's axis grows upwards
    settings = [plotly_text(found.setting) for found in ordered]

    def bars(name: str, values: list[float | None], marker: Figure) -> Figure:
        hover = "%{y}: %{x:.1f} %<extra>%{fullData.name}</extra>"
        return {"type": "bar", "orientation": "h", "name": name, "y": settings, "x": values, "marker": marker,
                "hovertemplate": hover}  # fmt: skip

    stripes = {"shape": "/", "fgcolor": "@page", "bgcolor": "@positive", "solidity": 0.3}
    figure = {
        "data": [
            bars(
                "fANOVA: share of the variance",
                percentages(found.fanova for found in ordered),
                {"color": "@positive", "pattern": stripes},
            ),
            bars(
                "PED-ANOVA: being among the best",
                percentages(found.ped_anova for found in ordered),
                {"color": "@negative"},
            ),
        ],
        "layout": layout(
            barmode="group",
            bargap=0.3,
            xaxis={"title": {"text": "Importance, %"}, "range": [0, 100]},
            yaxis={"type": "category"},
            legend={**layout()["legend"], "traceorder": "reversed"},
        ),
    }
    parts = [f"{v.setting} {percent(v.ped_anova, 0)} (fANOVA {percent(v.fanova, 0)})" for v in level.importances]
    summary = f"PED-ANOVA over {level.num_trials} completed trials: {', '.join(parts)}."
    note = f"From {level.num_trials:,} completed trials."
    return Plot(key, title, reading, summary, figure, 150 + 55 * len(ordered), note)
