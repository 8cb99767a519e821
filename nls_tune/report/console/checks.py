"""The doctor's findings, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from nls_tune.machine.check import Check, CheckState, worst
from nls_tune.report.formats import FORMAT_VERSION

_STYLES: dict[CheckState, str] = {"ok": "green", "warning": "yellow", "failure": "bold red"}
_SUMMARIES: dict[CheckState, str] = {
    "ok": "All is well.",
    "warning": "A search can run; see the warnings.",
    "failure": "A search may not run; see the failures.",
}


def print_checks(checks: Iterable[Check], console: Console) -> list[Check]:
    """Print each check in one line as soon as it is made, and a summary; return the checks."""
    made = []
    for check in checks:
        line = Text.assemble((f"{check.state:8}", _STYLES[check.state]), f"{check.name:16}{check}")
        console.print(line, soft_wrap=True, highlight=False)
        made.append(check)
    console.print(f"\n{_SUMMARIES[worst(made)]}", highlight=False)
    return made


def checks_json(checks: Sequence[Check]) -> str:
    """Return the checks as one JSON object, by the field names of ``Check``, with the worst state of all."""
    content = {"format_version": FORMAT_VERSION, "state": worst(checks), "checks": [asdict(check) for check in checks]}
    return json.dumps(content)
