"""The sections of the report page, in their order: which plots and tables stand where, and why one is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nls_tune.analysis.analysis import RunAnalysis
from nls_tune.analysis.comparison import Comparison
from nls_tune.report.html.plots.allocation import allocation_plot
from nls_tune.report.html.plots.common import Plot
from nls_tune.report.html.plots.comparison import comparison_plots
from nls_tune.report.html.plots.confirmation import confirmation_plot
from nls_tune.report.html.plots.importances import importances_plot
from nls_tune.report.html.plots.interactions import interaction_plot
from nls_tune.report.html.plots.learning_curves import learning_curves_plot
from nls_tune.report.html.plots.rate_against_noise import rate_against_noise_plot
from nls_tune.report.html.plots.rate_curves import rate_curve_plot
from nls_tune.report.html.tables import (
    Table,
    arms_table,
    comparison_table,
    confirmation_table,
    costs_table,
    differences_table,
    searched_settings,
    trials_table,
)


@dataclass(frozen=True)
class Panel:
    """Plots of one noise level, or of all."""

    label: str
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        key: Unique in a page.
        title: Plain text.
        panels: One a noise level, or one for all of them.
        choose: Whether one panel is shown at a time, chosen by its label; else all.
        tables: Below the plots.
        empty: Why there is nothing; None if there is something.
    """

    key: str
    title: str
    panels: tuple[Panel, ...] = ()
    choose: bool = False
    tables: tuple[Table, ...] = ()
    empty: str | None = None

    @property
    def readings(self) -> tuple[str, ...]:
        """How to read the plots; plots of one kind share their sentence."""
        return tuple(dict.fromkeys(plot.reading for panel in self.panels for plot in panel.plots))


def run_sections(found: RunAnalysis, prefix: str) -> tuple[Section, ...]:
    """Return the sections of one run.

    Args:
        found: What the run says.
        prefix: Of all keys, so that several runs fit into one page.
    """
    trials = found.run.trials
    nothing = None if len(trials) else "No trial has ended."
    return (
        _rates(found, prefix, nothing),
        _noise(found, prefix, nothing),
        _confirmation(found, prefix),
        _learning(found, prefix),
        _interactions(found, prefix, nothing),
        _importances(found, prefix, nothing),
        _allocation(found, prefix),
        _trials(found, prefix, nothing),
    )


def comparison_sections(comparison: Comparison) -> tuple[Section, ...]:
    """Return the section that compares several runs."""
    tables = [comparison_table("compare-levels", comparison)]
    if comparison.differences:
        tables.append(differences_table("compare-settings", comparison))
    panel = Panel("all", comparison_plots(comparison))
    return (Section("compare", "The runs side by side", (panel,), tables=tuple(tables)),)


def _by_level(items: Iterable[Any], prefix: str, name: str, draw: Callable[[str, Any], Plot]) -> tuple[Panel, ...]:
    """One panel a noise level, in the order in which the levels come."""
    panels: dict[str, list[Plot]] = {}
    for index, item in enumerate(items):
        panels.setdefault(item.noise_level, []).append(draw(f"{prefix}{name}-{index}", item))
    return tuple(Panel(level, tuple(plots)) for level, plots in panels.items())


def _together(panels: Sequence[Panel]) -> tuple[Panel, ...]:
    plots = tuple(plot for panel in panels for plot in panel.plots)
    return (Panel("all", plots),) if plots else ()


def _rates(found: RunAnalysis, prefix: str, nothing: str | None) -> Section:
    summaries = {summary.noise_level: summary for summary in found.summaries}
    panels = _by_level(
        found.rate_curves,
        prefix,
        "rate",
        lambda key, curve: rate_curve_plot(key, curve, summaries.get(curve.noise_level)),
    )
    table = arms_table(f"{prefix}arms", found.summaries)
    empty = nothing or (None if panels or table.rows else "No search trial has been completed.")
    return Section(
        f"{prefix}rates",
        "Accuracy against smooth rate",
        _together(panels),
        tables=(table,) if table.rows else (),
        empty=empty,
    )


def _noise(found: RunAnalysis, prefix: str, nothing: str | None) -> Section:
    panel = Panel("all", (rate_against_noise_plot(f"{prefix}noise-0", found.rate_against_noise),))
    return Section(f"{prefix}noise", "How the best rate depends on noise", () if nothing else (panel,), empty=nothing)


def _confirmation(found: RunAnalysis, prefix: str) -> Section:
    key, title = f"{prefix}confirmation", "Confirmation with fresh seeds"
    if not found.confirmations:
        going_on = " yet" if found.run.status == "running" else ""
        empty = (
            f"No configuration has been trained again with fresh seeds{going_on}, so every gain on this page may be "
            "luck; --confirm-seeds 5 on the same command does it."
        )
        return Section(key, title, empty=empty)
    panels = _by_level(found.confirmations, prefix, "confirmed", confirmation_plot)
    return Section(
        key, title, _together(panels), tables=(confirmation_table(f"{prefix}confirmed", found.confirmations),)
    )


def _learning(found: RunAnalysis, prefix: str) -> Section:
    panels = _by_level(found.learning_curves, prefix, "curves", learning_curves_plot)
    empty = None if panels else "No search trial has an epoch."
    return Section(f"{prefix}curves", "Learning curves: memorisation", panels, choose=True, empty=empty)


def _interactions(found: RunAnalysis, prefix: str, nothing: str | None) -> Section:
    panels = _by_level(found.interactions, prefix, "cross", interaction_plot)
    empty = nothing or (
        None if panels else "No search trial was completed, or learning rate and warm-up had one value only."
    )
    return Section(f"{prefix}cross", "Rate with learning rate and warm-up", panels, choose=True, empty=empty)


def _importances(found: RunAnalysis, prefix: str, nothing: str | None) -> Section:
    panels = _by_level(found.importances, prefix, "matters", importances_plot)
    empty = nothing or (None if panels else "No search trial has ended.")
    return Section(f"{prefix}matters", "What matters", _together(panels), empty=empty)


def _allocation(found: RunAnalysis, prefix: str) -> Section:
    title = "Where the time went"
    if found.allocation is None:
        return Section(f"{prefix}time", title, empty="No trial has ended.")
    panel = Panel("all", (allocation_plot(f"{prefix}time-0", found.allocation),))
    return Section(f"{prefix}time", title, (panel,), tables=(costs_table(f"{prefix}costs", found.allocation),))


def _trials(found: RunAnalysis, prefix: str, nothing: str | None) -> Section:
    tables = () if nothing else (trials_table(f"{prefix}trials", found.run.trials, searched_settings(found.summaries)),)
    return Section(f"{prefix}all-trials", "All trials", tables=tables, empty=nothing)
