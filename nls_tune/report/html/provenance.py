"""The provenance of a run, as names and values for the page. run.json may have any shape: nothing is trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nls_tune.report.html.tables import PageTable
from nls_tune.report.table import Column, Table, words
from nls_tune.report.text import duration
from nls_tune.runs import Run

_MAX_VALUE = 400


@dataclass(frozen=True)
class Provenance:
    """What a reader needs to do the same again.

    Attributes:
        command: The last session's command; None where unknown.
        facts: Groups of names and values: a heading, then the pairs.
        sessions: One row per session.
        fingerprints: One row per noise level.
        space: The search space as JSON; None where unknown.
    """

    command: str | None
    facts: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    sessions: PageTable
    fingerprints: PageTable
    space: str | None


def provenance_of(run: Run, prefix: str) -> Provenance:
    """Collect the provenance of a run; the keys of its tables begin with ``prefix``."""
    content = run.content
    sessions = [_mapping(session) for session in content.get("sessions") or () if isinstance(session, Mapping)]
    last = sessions[-1] if sessions else {}
    identity = _mapping(content.get("identity"))
    space = identity.get("space")
    about = {
        "run": content.get("run_id"),
        "folder": run.path,
        "created": content.get("created_at"),
        "schema version": content.get("schema_version"),
        "git commit": last.get("git_commit"),
    }
    groups = (
        ("Run", about),
        ("Settings", _mapping(identity.get("settings"))),
        ("Versions", _mapping(last.get("versions"))),
        ("Hardware", _mapping(last.get("hardware"))),
    )
    command = last.get("command")
    return Provenance(
        command=None if command is None else _command(str(command)),
        facts=tuple((title, tuple((str(k), _value(v)) for k, v in pairs.items())) for title, pairs in groups if pairs),
        sessions=_sessions(f"{prefix}sessions", sessions),
        fingerprints=PageTable(
            f"{prefix}fingerprints",
            "Fingerprints of the data (SHA-256)",
            Table(
                words("Noise level", "Fingerprint"),
                tuple((str(k), _value(v)) for k, v in _mapping(identity.get("fingerprints")).items()),
            ),
        ),
        space=None if space is None else json.dumps(space, indent=2, ensure_ascii=False, default=str),
    )


def _command(recorded: str) -> str:
    """The command as it can be typed: ``python -m nls_tune.search`` is recorded by the name of its file."""
    program, _, arguments = recorded.partition(" ")
    return f"python -m nls_tune.search {arguments}".rstrip() if program == "search.py" else recorded


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple) and not any(isinstance(part, list | tuple | dict) for part in value):
        text = ", ".join(str(part) for part in value) or "none"
    else:
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…"


def _sessions(key: str, sessions: list[Mapping[str, Any]]) -> PageTable:
    rows = []
    for index, session in enumerate(sessions):
        seconds = session.get("search_seconds")
        rows.append(
            (
                str(index + 1),
                _time(session.get("started_at")),
                _time(session.get("finished_at")),
                duration(seconds) if isinstance(seconds, int | float) else "–",
                _value(_mapping(session.get("slots")).get("count")),
                _value(_mapping(session.get("hardware")).get("node")),
                _value(session.get("command")),
            )
        )
    columns = (Column("Session"), *words("Started (UTC)", "Ended (UTC)", "Search"), Column("Slots"))
    return PageTable(key, "Sessions", Table((*columns, *words("Node", "Command")), tuple(rows)))


def _time(value: Any) -> str:
    return _value(value).partition(".")[0].replace("T", " ").removesuffix("+00:00")
