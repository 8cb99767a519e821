"""The sections of the report page, in their order: which plots and tables stand where, and why one is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nls_tune.analysis.analysis import RunAnalysis
from nls_tune.analysis.comparison import Comparison
from nls_tune.report.annotators import annotators_table
from nls_tune.report.html.plots.allocation import allocation_plot
from nls_tune.report.html.plots.annotators import annotator_plot
from nls_tune.report.html.plots.common import Plot
from nls_tune.report.html.plots.comparison import comparison_plots
from nls_tune.report.html.plots.confirmation import confirmation_plot
from nls_tune.report.html.plots.importances import importances_plot
from nls_tune.report.html.plots.interactions import interaction_plot
from nls_tune.report.html.plots.learning_curves import learning_curves_plot
from nls_tune.report.html.plots.levels import levels_plot
from nls_tune.report.html.plots.rate_against_noise import rate_against_noise_plot
from nls_tune.report.html.plots.rate_curves import rate_curve_plot
from nls_tune.report.html.plots.rate_sweep import rate_sweep_plot
from nls_tune.report.html.tables import PageTable, trials_table
from nls_tune.report.run_tables import (
    arms_table,
    classes_table,
    comparison_table,
    confirmation_table,
    costs_table,
    differences_table,
    searched_settings,
    sweep_table,
)
from nls_tune.report.text import of_metric
from nls_tune.report.words import methods_table


class _AtLevel(Protocol):
    @property
    def noise_level(self) -> str: ...


_T = TypeVar("_T", bound=_AtLevel)
#: The plots of more annotators than this are shown one at a time.
_MOST_TOGETHER = 6


@dataclass(frozen=True)
class Panel:
    """Plots that are shown together: those of one noise level, or all."""

    label: str
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class Section:
    """A section of the page: panels of plots, one per noise level or one for all of them, and tables below.

    ``choose`` shows one panel at a time, chosen by its label, which is a ``chooser``. ``empty`` says why there is
    nothing, if there is nothing.
    """

    key: str
    title: str
    panels: tuple[Panel, ...] = ()
    choose: bool = False
    tables: tuple[PageTable, ...] = ()
    empty: str | None = None
    chooser: str = "Noise level"

    @property
    def readings(self) -> tuple[str, ...]:
        """How to read the plots; plots of one kind share their sentence."""
        return tuple(dict.fromkeys(plot.reading for panel in self.panels for plot in panel.plots))


def run_sections(found: RunAnalysis, prefix: str) -> tuple[Section, ...]:
    """Return the sections of one run; all keys begin with the prefix, so that several runs fit into one page."""
    nothing = None if len(found.run.trials) else "No trial has ended."
    return (
        Section(
            f"{prefix}levels",
            "All noise levels",
            () if nothing else _all(levels_plot(f"{prefix}levels-0", found.confirmations, found.rate_sweeps)),
            empty=nothing,
        ),
        _rates(found, prefix, nothing),
        Section(
            f"{prefix}noise",
            "Rate to use against noise",
            () if nothing else _all(rate_against_noise_plot(f"{prefix}noise-0", found.rate_against_noise)),
            empty=nothing,
        ),
        _confirmation(found, prefix),
        *_annotators(found, prefix),
        _classes(found, prefix),
        _chosen(
            f"{prefix}curves",
            "Learning curves: memorisation",
            found.learning_curves,
            learning_curves_plot,
            "No search trial has an epoch.",
        ),
        _chosen(
            f"{prefix}cross",
            "Rate with learning rate and warm-up",
            found.interactions,
            interaction_plot,
            nothing or "No search trial was completed, or learning rate and warm-up had one value only.",
        ),
        _importances(found, prefix, nothing),
        _allocation(found, prefix),
        _trials(found, prefix, nothing),
    )


def comparison_sections(comparison: Comparison) -> tuple[Section, ...]:
    """Return the section that compares several runs."""
    tables = [PageTable("compare-levels", "What each run says", comparison_table(comparison))]
    if comparison.differences:
        tables.append(PageTable("compare-settings", "Settings that differ", differences_table(comparison)))
    return (Section("compare", "The runs side by side", _all(*comparison_plots(comparison)), tables=tuple(tables)),)


def _all(*plots: Plot) -> tuple[Panel, ...]:
    return (Panel("all", plots),) if plots else ()


def _plots(items: Iterable[_T], key: str, draw: Callable[[str, _T], Plot]) -> tuple[Plot, ...]:
    return tuple(draw(f"{key}-{index}", item) for index, item in enumerate(items))


def _chosen(key: str, title: str, items: Sequence[_T], draw: Callable[[str, _T], Plot], empty: str) -> Section:
    """Return a section with one panel per noise level, in the order in which the levels come."""
    panels: dict[str, list[Plot]] = {}
    for item, plot in zip(items, _plots(items, key, draw), strict=True):
        panels.setdefault(item.noise_level, []).append(plot)
    shown = tuple(Panel(level, tuple(plots)) for level, plots in panels.items())
    return Section(key, title, shown, choose=True, empty=None if shown else empty)


def _rates(found: RunAnalysis, prefix: str, nothing: str | None) -> Section:
    summaries = {summary.noise_level: summary for summary in found.summaries}
    plots = tuple(
        rate_curve_plot(f"{prefix}rate-{i}", curve, summaries.get(curve.noise_level))
        for i, curve in enumerate(found.rate_curves)
    )
    plots = (*_plots(found.rate_sweeps, f"{prefix}swept", rate_sweep_plot), *plots)
    table = arms_table(found.summaries)
    tables = (PageTable(f"{prefix}arms", "Selected trial of each arm", table),) if table.rows else ()
    if found.rate_sweeps:
        tables = (PageTable(f"{prefix}sweep", "Rates over fresh seeds", sweep_table(found.rate_sweeps)), *tables)
    empty = nothing or (None if plots or tables else "No search trial has been completed.")
    title = of_metric("Accuracy against smooth rate", [found.run.content.metric])
    return Section(f"{prefix}rates", title, _all(*plots), tables=tables, empty=empty)


def _confirmation(found: RunAnalysis, prefix: str) -> Section:
    key, title = f"{prefix}confirmation", "Confirmation with fresh seeds"
    if not found.confirmations:
        going_on = " yet" if found.run.status == "running" else ""
        empty = (
            f"No configuration has been trained again with fresh seeds{going_on}, so every difference on this page may "
            "be luck; --confirm-seeds 5 on the same command does it."
        )
        return Section(key, title, empty=empty)
    plots = _plots(found.confirmations, f"{prefix}confirmed", confirmation_plot)
    tables = [PageTable(f"{prefix}confirmed", "Confirmed configurations", confirmation_table(found.confirmations))]
    if (methods := methods_table(found.verdicts)).rows:
        tables.insert(0, PageTable(f"{prefix}methods", "The methods", methods))
    return Section(key, title, _all(*plots), tables=tuple(tables))


def _annotators(found: RunAnalysis, prefix: str) -> tuple[Section, ...]:
    """Return the section of the annotators of a user's own data, if there are any."""
    data = found.run.content.data
    if data is None or not data.annotators:
        return ()
    key, title = f"{prefix}annotators", "The annotators"
    plots = {
        one.name: annotator_plot(f"{key}-{i}", one, one.matrix, data.class_names)
        for i, one in enumerate(data.annotators)
        if one.matrix is not None
    }
    tables = (PageTable(f"{key}-table", "Annotators", annotators_table(data.annotators), long=True),)
    if choose := len(plots) > _MOST_TOGETHER:
        panels = tuple(Panel(name, (plot,)) for name, plot in plots.items())
    else:
        panels = _all(*plots.values())
    return (Section(key, title, panels, choose=choose, tables=tables, chooser="Annotator"),)


def _classes(found: RunAnalysis, prefix: str) -> Section:
    table = PageTable(f"{prefix}per-class", "Each class", classes_table(found.per_class), long=True)
    empty = None if found.per_class else "Nothing is recommended, or an early version recorded no counts by class."
    return Section(f"{prefix}classes", "Each class", tables=(table,) if found.per_class else (), empty=empty)


def _importances(found: RunAnalysis, prefix: str, nothing: str | None) -> Section:
    plots = _plots(found.importances, f"{prefix}matters", importances_plot)
    empty = nothing or (None if plots else "No search trial has ended.")
    return Section(f"{prefix}matters", "What matters", _all(*plots), empty=empty)


def _allocation(found: RunAnalysis, prefix: str) -> Section:
    key, title = f"{prefix}time", "Where the time went"
    if found.allocation is None:
        return Section(key, title, empty="No trial has ended.")
    costs = PageTable(f"{prefix}costs", "Cost of each group", costs_table(found.allocation), long=True)
    return Section(key, title, _all(allocation_plot(f"{key}-0", found.allocation)), tables=(costs,))


def _trials(found: RunAnalysis, prefix: str, nothing: str | None) -> Section:
    others, metric = searched_settings(found.summaries), found.run.content.metric
    tables = () if nothing else (trials_table(f"{prefix}trials", found.run.trials, others, metric=metric),)
    return Section(f"{prefix}all-trials", "All trials", tables=tables, empty=nothing)
