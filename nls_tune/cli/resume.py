"""``nls-tune resume``: go on with a run, without its command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nls_tune.cli.flags import with_flags

_Run = Annotated[str, typer.Argument(metavar="RUN", help="Run directory, or URL of a run.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, and what would differ, and stop.")]
_HELP = {
    "num_trials": "Trials per noise level: as many as before, or more.",
    "time_budget": "Wall time of the search, over all sessions of the run: 90s, 30m, 1.5h.",
    "confirm_seeds": "Fresh seeds of the confirmation.",
    "out": "With a URL: the run directory here, by default runs/ and the last name of the URL.",
}


@with_flags(
    "num_trials", "time_budget", "confirm_seeds", "sweep", "sweep_trials", "max_concurrent", "trial_timeout",
    "data_dir", "images", "table", "arrays", "address", "out", "storage", "mlflow", "wandb", help_=_HELP,
)  # fmt: skip
def resume(run: _Run, *, dry_run: _DryRun = False, **flags: Any) -> int:
    """Go on with a search: with the settings of its last session, and what is given here.

    A finished run goes on where there is more to do: more trials, more time, more seeds.
    """
    from nls_tune.cli.search import run_and_report
    from nls_tune.errors import InputError
    from nls_tune.runs.directory import RunDirectory
    from nls_tune.runs.storage.copies import local_copy
    from nls_tune.runs.storage.opening import is_url
    from nls_tune.session.continuing import settings_of_run

    given = {name: value for name, value in flags.items() if value is not None}
    if is_url(run):
        copy = local_copy(run)
        given |= {"storage": run, "out": (flags["out"] or Path("runs") / copy.name).absolute()}
        return run_and_report(settings_of_run(RunDirectory(copy), given), dry_run=dry_run)
    if "out" in given:
        raise InputError(f"--out goes with the URL of a run, {run} is a run directory already; leave it out")
    return run_and_report(settings_of_run(RunDirectory(run), given), dry_run=dry_run)
