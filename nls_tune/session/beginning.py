"""The beginning of a run, or of its next session: folder, run.json, and the refusal of other settings."""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from nls_tune.errors import InputError
from nls_tune.files import json_text, write_atomically
from nls_tune.plan.annotators import annotator_facts
from nls_tune.plan.plan import SearchPlan
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import load_run, read_trials
from nls_tune.runs.run_json import RunData, RunJson
from nls_tune.runs.schemas import SCHEMA_VERSION
from nls_tune.session.continuing import first_of, grow, growth, refusals

_logger = logging.getLogger(__name__)


def default_out(dataset: str) -> Path:
    """Return the run directory of a search that was given none."""
    return Path("runs") / _new_name(dataset, datetime.now(UTC))


def _new_name(dataset: str, begins: datetime) -> str:
    """The random end tells searches apart that begin in the same second."""
    return f"{dataset}-{begins:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def begin_run(plan: SearchPlan, run: RunDirectory) -> RunJson:
    """Write run.json of a new run, or read that of an earlier session, and warn of damaged parts there.

    Raises:
        InputError: If the run has other settings, or its run.json cannot be read.
    """
    if run.run_json.exists():
        content = run.read_json()
        refuse_others(content, plan, run.path, "--out")
        for line in run.tidy():
            _logger.warning("%s: %s", run.path, line)
        if growth(content, plan) is not None:
            grow(content, plan)
            run.write_json(content)
        return content
    begins = datetime.now(UTC)
    content = RunJson(
        schema_version=SCHEMA_VERSION,
        run_id=_new_name(plan.info.name, begins),
        status="interrupted",  # until a session works on it
        created_at=begins,
        identity=plan.identity(),
        plan=plan.run_levels(),
    )
    if (own := plan.source.own) is not None:
        content.data = RunData(
            class_names=list(own.class_names),
            val_clean=own.val_clean,
            test_clean=own.test_clean,
            notes=list(own.notes),
            annotators=annotator_facts(plan.source),
        )
        text = json_text(own.preprocessing)
        write_atomically(run.path / "preprocessing.json", f"{text}\n".encode())
    run.write_json(content)
    return content


def refuse_others(content: RunJson, plan: SearchPlan, place: str | Path, flag: str) -> None:
    """Raise InputError if a run has other settings than a plan; the flag is what gives it another place."""
    if found := refusals(content, plan):
        raise InputError(
            f"{place} is a run with other settings: {first_of(found)}; give another {flag}, or the same settings"
        )


def write_missing_events(run: RunDirectory) -> None:
    """Write the TensorBoard files that trials of earlier sessions lack: those sessions may not have written any."""
    from nls_tune.export.tensorboard import event_file, export_tensorboard

    rows = read_trials(run.path).to_dict("records")
    lacking = {row["trial_id"] for row in rows if not event_file(run.tensorboard, row).exists()}
    if lacking:
        found = load_run(run.path)
        trials = found.trials[found.trials["trial_id"].isin(lacking)]
        export_tensorboard(replace(found, trials=trials), run.tensorboard, overwrite=True)


def remove_unwanted_checkpoints(run: RunDirectory) -> None:
    """Remove checkpoints of an interrupted confirmation that later had other configurations or fewer seeds."""
    from nls_tune.runs.checkpoint import TrialCheckpoint

    for folder in run.checkpoints.iterdir():
        checkpoint = TrialCheckpoint(folder)
        trial = checkpoint.read_trial()
        if trial is not None and trial.stage != "search":
            checkpoint.remove()
