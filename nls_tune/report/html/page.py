"""The report as one HTML page: plots, tables and provenance in a file that opens anywhere, offline."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from nls_tune._version import __version__
from nls_tune.analysis.analysis import Analysis, RunAnalysis
from nls_tune.report.html.plots.theme import PALETTES, templates
from nls_tune.report.html.provenance import Provenance, provenance_of
from nls_tune.report.html.sections import Section, comparison_sections, run_sections
from nls_tune.report.text import amount, duration, paused
from nls_tune.report.words import Words, common_doubts, summary_line, table_note, verdict_table, verdict_words
from nls_tune.runs import Run

_STATUSES = {
    "running": "This run goes on. The page shows what was there when it was written; write it again for more.",
    "interrupted": "This run was interrupted. What had ended is here; the command below goes on with it.",
    "crashed": "The process of this run was killed. What had ended is here; the command below goes on with it.",
    "failed": "This run failed. What had ended is here; the command below goes on with it.",
    "finished": None,
}


@dataclass(frozen=True)
class RunPart:
    """One run in the page; ``prefix`` is the beginning of its keys."""

    prefix: str
    run: Run
    status_note: str | None
    facts: tuple[str, ...]
    headline: str
    rows: tuple[tuple[Words, tuple[str, ...]], ...]
    table_note: str
    doubts: tuple[str, ...]
    sections: tuple[Section, ...]
    provenance: Provenance


def render_page(analysis: Analysis, written_at: datetime | None = None) -> str:
    """Return the page as HTML, with the time at which it is written, by default now."""
    several = len(analysis.runs) > 1
    parts = [_run_part(found, f"r{i + 1}-" if several else "") for i, found in enumerate(analysis.runs)]
    comparison = () if analysis.comparison is None else comparison_sections(analysis.comparison)
    sections = [*comparison, *(section for part in parts for section in part.sections)]
    plots = [plot for section in sections for panel in section.panels for plot in panel.plots]
    payload = {
        "figures": {plot.key: plot.figure for plot in plots if plot.figure is not None},
        "palettes": PALETTES,
        "templates": templates(),
    }
    scripts = {"theme": _asset("theme.js"), "unpack": _asset("unpack.js"), "page": _asset("page.js")}
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            title=" and ".join(part.run.name for part in parts) if len(parts) < 4 else f"{len(parts)} runs",
            several=several,
            parts=parts,
            comparison=comparison,
            payload=_pack(_dumps(payload)),
            plotly=_packed_plotly(),
            scripts=scripts,
            hashes=[_csp_hash(script) for script in (*scripts.values(), _plotly())],
            css=_asset("page.css"),
            written_at=(written_at or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M:%S UTC"),
            version=__version__,
        )
    )


def page_bytes(analysis: Analysis) -> bytes:
    """Return the page as a file holds it; bytes that are not Unicode (folders may have any name) are replaced."""
    return render_page(analysis).encode("utf-8", errors="replace")


def _run_part(found: RunAnalysis, prefix: str) -> RunPart:
    said = [verdict_words(verdict) for verdict in found.verdicts]
    return RunPart(
        prefix=prefix,
        run=found.run,
        status_note=_STATUSES[found.run.status],
        facts=_facts(found),
        headline=summary_line(found.verdicts) if said else "No trial has ended yet.",
        rows=tuple(zip(said, verdict_table(found.verdicts).rows, strict=True)),
        table_note=table_note(found.verdicts),
        doubts=common_doubts(said),
        sections=run_sections(found, prefix),
        provenance=provenance_of(found.run, prefix),
    )


def _facts(found: RunAnalysis) -> tuple[str, ...]:
    """Say in a few words what the run is: data, levels, trials, time."""
    run = found.run
    dataset = run.content.identity.settings.get("dataset")
    facts = [] if dataset is None else [f"dataset {dataset}"]
    if len(run.trials):
        given = run.content.data is not None and not run.content.data.test_clean
        labels = "given test labels" if given else "clean test labels"
        facts.append(labels if run.trials["num_test"].any() else "no test set")
    facts.append(amount(len(run.levels), "noise level"))
    search = int((run.trials["stage"] == "search").sum())
    swept = int(run.trials["stage"].isin(["sweep_search", "sweep"]).sum())
    others = len(run.trials) - search - swept
    planned = sum(run.content.planned_trials.values())
    of_planned = f" of {planned:,}" if planned >= search else ""
    facts.append(f"{search:,}{of_planned} search trial{'' if search == 1 and not of_planned else 's'} ended")
    if others:
        facts.append(f"{amount(others, 'confirmation trial')} ended")
    if swept:
        facts.append(f"{amount(swept, 'trial')} of the sweep ended")
    if found.allocation is not None:
        wall, pauses = duration(found.allocation.wall_seconds), paused(found.allocation.paused_seconds)
        facts.append(f"{wall} from the first start to the last end{pauses}")
    return tuple(facts)


@cache
def environment() -> Environment:
    """Return what renders the templates of pages: whatever is put into them is escaped."""
    found = Environment(
        loader=PackageLoader("nls_tune.report.html"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # A number is not parted from its sign at the end of a line.
    found.filters["unparted"] = lambda text: text.replace(" %", "\u00a0%")
    return found


def _dumps(value: Any) -> str:
    # JSON has no NaN: a number that slipped through must fail here and not in a browser.
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Packed:
    """A text for ``unpack.js``: its UTF-8, of so many bytes, as raw deflate (RFC 1951) in base64."""

    text: str
    num_bytes: int


def _pack(text: str) -> Packed:
    content = text.encode("utf-8", errors="replace")
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return Packed(base64.b64encode(deflate.compress(content) + deflate.flush()).decode(), len(content))


@cache
def _packed_plotly() -> Packed:
    return _pack(_plotly())


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    # Browsers read line ends so before they compare hashes.
    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")


def _csp_hash(script: str) -> str:
    """Return the name of a script in a Content-Security-Policy: no other script runs in the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
