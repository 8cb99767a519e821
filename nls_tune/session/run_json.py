"""How run.json of a session is begun, kept and compared with that of an earlier one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nls_tune.errors import InputError
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.schemas import SCHEMA_VERSION
from nls_tune.tune.interrupts import InterruptedAgainError, held_back

if TYPE_CHECKING:
    from nls_tune.plan.plan import SearchPlan
    from nls_tune.tune.cluster import Slots


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List what differs between two nested mappings, as ``key: before -> now``."""
    found = []
    for key in [*before, *(k for k in now if k not in before)]:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old} -> {new}")
    return found


def _says_finished(run: RunDirectory) -> bool:
    return run.run_json.exists() and run.read_json().get("status") == "finished"


@contextmanager
def _session(run: RunDirectory, content: dict[str, Any], slots: Slots) -> Iterator[dict[str, Any]]:
    """Say in run.json that a session works on the run, and afterwards, whatever happens, how it ended.

    Raises:
        KeyboardInterrupt: If it is interrupted and was so before; once, that is how it ended.
    """
    from nls_tune.machine.provenance import provenance

    session = {**provenance(), "started_at": datetime.now(UTC).isoformat(), "slots": asdict(slots)}
    content["sessions"].append(session)
    content["status"] = "running"
    run.write_json(content)
    try:
        yield session
    except KeyboardInterrupt as error:
        again = isinstance(error, InterruptedAgainError) or content["status"] == "interrupted"
        content["status"] = "interrupted"
        if again:
            raise
    except BaseException as error:
        # What is no Exception comes from outside, as when the reader of the output has left.
        content["status"] = "failed" if isinstance(error, Exception) else "interrupted"
        raise
    finally:
        session["finished_at"] = datetime.now(UTC).isoformat()
        with held_back():
            run.write_json(content)


def _default_out(dataset: str) -> Path:
    return Path("runs") / f"{dataset}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def begin_run(plan: SearchPlan, run: RunDirectory) -> dict[str, Any]:
    """Write run.json of a new run, or read that of an earlier one and refuse it if the settings differ."""
    if run.run_json.exists():
        content = run.read_json()
        if found := differences(content.get("identity", {}), plan.identity()):
            raise InputError(
                f"{run.path} is a run with other settings: {'; '.join(found)}; give another --out, or the same settings"
            )
        return content
    now = datetime.now(UTC)
    content = {
        "schema_version": SCHEMA_VERSION,
        "run_id": f"{plan.info.name}-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}",
        "status": "interrupted",  # until a session works on it
        "created_at": now.isoformat(),
        "sessions": [],
        "identity": plan.identity(),
        "plan": plan.facts(),
        "selection": [],
        "confirmation": [],
    }
    run.write_json(content)
    return content
