"""Where a run comes from, as names and values for the report page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nls_tune.report.html.tables import PageTable
from nls_tune.report.table import Column, Table, words
from nls_tune.report.text import duration
from nls_tune.runs import Run
from nls_tune.runs.run_json import RunSession

_MAX_VALUE = 400


@dataclass(frozen=True)
class Provenance:
    """What a reader needs to do the same again; None where the last command or the search space (JSON) is unknown.

    ``facts`` are groups of names and values: a heading, then the pairs.
    """

    command: str | None
    facts: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    sessions: PageTable
    fingerprints: PageTable
    space: str | None


def provenance_of(run: Run, prefix: str) -> Provenance:
    """Collect the provenance of a run; the keys of its tables begin with ``prefix``."""
    content = run.content
    last = content.sessions[-1] if content.sessions else RunSession()
    identity = content.identity.model_dump(mode="json")
    about = {
        "run": content.run_id,
        "folder": run.place,
        "created": content.created_at,
        "schema version": content.schema_version,
        "git commit": last.git_commit,
    }
    groups: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("Run", about),
        ("Settings", content.identity.settings),
        ("Versions", last.versions),
        ("Hardware", last.hardware),
    )
    return Provenance(
        command=None if last.command is None else _command(last.command),
        facts=tuple((title, tuple((name, _value(v)) for name, v in pairs.items())) for title, pairs in groups if pairs),
        sessions=_sessions(f"{prefix}sessions", content.sessions),
        fingerprints=PageTable(
            f"{prefix}fingerprints",
            "Fingerprints of the data (SHA-256)",
            Table(words("noise level", "fingerprint"), tuple(content.identity.fingerprints.items())),
        ),
        space=json.dumps(identity["space"], indent=2, ensure_ascii=False) if content.searched else None,
    )


def _command(recorded: str) -> str:
    """Return the command as it can be typed: ``python -m nls_tune.search`` is recorded by the name of its file."""
    program, _, arguments = recorded.partition(" ")
    return f"python -m nls_tune.search {arguments}".rstrip() if program == "search.py" else recorded


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple) and not any(isinstance(part, list | tuple | dict) for part in value):
        text = ", ".join(str(part) for part in value) or "none"
    else:
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…"


def _sessions(key: str, sessions: Sequence[RunSession]) -> PageTable:
    rows = tuple(
        (
            str(index + 1),
            _time(session.started_at),
            _time(session.finished_at),
            duration(session.search_seconds) if session.search_seconds else "–",
            str(session.slots.count),
            _value(session.hardware.get("node")),
            _value(session.command),
        )
        for index, session in enumerate(sessions)
    )
    columns = (Column("session"), *words("started (UTC)", "ended (UTC)", "search"), Column("slots"))
    return PageTable(key, "Sessions", Table((*columns, *words("node", "command")), rows))


def _time(value: datetime | None) -> str:
    return "–" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
