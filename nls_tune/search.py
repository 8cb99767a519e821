"""The search: ``run_search`` from Python, ``python -m nls_tune.search`` from the shell."""

from __future__ import annotations

import json
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from nls_tune.errors import InputError
from nls_tune.results import SCHEMA_VERSION, RunDirectory, read_trials

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from nls_tune.analysis.confirmation import LevelConfirmation
    from nls_tune.analysis.level_summaries import LevelSummary
    from nls_tune.cluster import Slots
    from nls_tune.plan import SearchPlan
    from nls_tune.progress import SearchProgress
    from nls_tune.search_settings import SearchSettings


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves behind.

    Attributes:
        run: The run directory.
        status: ``finished`` or ``interrupted``.
        levels: One summary a noise level.
        confirmation: What fresh seeds say, one a level; empty without a confirmation.
    """

    run: Path
    status: str
    levels: tuple[LevelSummary, ...]
    confirmation: tuple[LevelConfirmation, ...]


def run_search(
    dataset: str = "twonorm",
    *,
    noise: str | Sequence[str] | None = None,
    space: str | Path | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    console: Console | None = None,
    **settings: Any,
) -> SearchResult:
    """Search the smooth rate for each noise level of a dataset.

    The same call with the same ``out`` resumes a run that did not finish.

    Args:
        dataset: Name of a dataset.
        noise: Noise levels, as a list or comma-separated; by default those of the dataset.
        space: Name of a shipped search space or a YAML file; by default the dataset's own.
        overrides: Changes of the space: ``{"model": "cnn9", "lr.low": 1e-5}``, or ``KEY=VALUE`` strings.
        console: Where to print plan, progress and results; None prints nothing.
        **settings: Other fields of ``SearchSettings``, for example ``num_trials``, ``epochs``, ``out``.

    Returns:
        The run directory and one summary a level.

    Raises:
        InputError: Where the command would exit with 2.
        RuntimeError: If every trial failed.
    """
    from nls_tune.search_settings import check_search_settings

    if isinstance(noise, str):
        noise = tuple(part.strip() for part in noise.split(","))
    if isinstance(overrides, Mapping):
        overrides = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    checked = check_search_settings(
        dataset=dataset,
        noise=None if noise is None else tuple(noise),
        space=None if space is None else str(space),
        overrides=tuple(overrides),
        **settings,
    )
    return cast("SearchResult", _search(checked, console, dry_run=False))  # only a dry run has none


def _search(settings: SearchSettings, console: Console | None, *, dry_run: bool) -> SearchResult | None:
    """Plan, run and summarise a search; a dry run stops after the plan and returns None."""
    from rich.console import Console

    from nls_tune.cluster import check_shared, local_resources, ray_session, slots_of
    from nls_tune.confirm import missing_trials
    from nls_tune.plan import make_plan
    from nls_tune.report.console import print_plan

    console = console or Console(quiet=True)
    with ExitStack() as stack:
        # A running cluster is asked first, because its GPUs decide the plan; one of our own is started last.
        connect = settings.address is not None
        resources = stack.enter_context(ray_session(settings.address)) if connect else local_resources()
        slots = slots_of(resources, settings)
        plan = make_plan(settings, resources.get("GPU", 0), progress=console.is_terminal)
        if dry_run:
            print_plan(plan, slots.count, console)
            return None
        run = RunDirectory(settings.out or _default_out(settings.dataset))
        run.create()
        stack.enter_context(run.lock())
        content = _begin(plan, run)
        print_plan(plan, slots.count, console)
        console.print(f"Results: {run.path}", markup=False, highlight=False, soft_wrap=True)
        trials = read_trials(run.path)
        complete = content["status"] == "finished" and content.get("search_trials") == _count_search_trials(trials)
        if not complete or missing_trials(plan, trials):
            try:
                if connect:
                    check_shared(run)
                else:
                    slots = slots_of(stack.enter_context(ray_session(None)), settings)
                _run(plan, run, content, slots, console)
            except KeyboardInterrupt:
                content["status"] = "interrupted"
                run.write_json(content)
    return _conclude(plan, run, content, console)


def _default_out(dataset: str) -> Path:
    return Path("runs") / f"{dataset}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def _begin(plan: SearchPlan, run: RunDirectory) -> dict[str, Any]:
    """Write run.json of a new run, or read that of an earlier one and refuse it if the settings differ."""
    from nls_tune.plan import differences

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
        "status": "running",
        "created_at": now.isoformat(),
        "sessions": [],
        "identity": plan.identity(),
        "plan": plan.facts(),
        "selection": [],
        "confirmation": [],
    }
    run.write_json(content)
    return content


def _run(plan: SearchPlan, run: RunDirectory, content: dict[str, Any], slots: Slots, console: Console) -> None:
    """Run what is missing; whatever happens, run.json says afterwards how it ended."""
    from nls_tune.confirm import confirm
    from nls_tune.execution import execute
    from nls_tune.provenance import provenance
    from nls_tune.report.live import ProgressView

    session = {**provenance(), "started_at": datetime.now(UTC).isoformat(), "slots": asdict(slots)}
    content["sessions"].append(session)
    content["status"] = "running"
    run.write_json(content)

    def make_view(progress: SearchProgress) -> ProgressView:
        return ProgressView(progress, console)

    try:
        status = execute(plan, run, content["run_id"], slots, make_view)
        if status == "finished" and plan.confirm_seeds():
            console.print(f"Confirmation with {len(plan.confirm_seeds())} fresh seeds", highlight=False)
            status = confirm(plan, run, content["run_id"], slots, make_view)
        content["status"] = status
    except Exception:
        content["status"] = "failed"
        raise
    finally:
        session["finished_at"] = datetime.now(UTC).isoformat()
        run.write_json(content)


def _count_search_trials(trials: pd.DataFrame) -> int:
    """A row that somebody removed is missed by this number, and run again."""
    return int((trials["stage"] == "search").sum())


def _conclude(plan: SearchPlan, run: RunDirectory, content: dict[str, Any], console: Console) -> SearchResult:
    """Summarise the run, write its selection, and print the table."""
    from nls_tune.analysis.confirmation import confirmations
    from nls_tune.analysis.level_summaries import level_summaries
    from nls_tune.report.confirmation import print_confirmations
    from nls_tune.report.console import print_summaries

    trials, levels = read_trials(run.path), [p.level for p in plan.levels]
    summaries, confirmed = level_summaries(trials, levels), confirmations(trials, levels)
    content["search_trials"] = _count_search_trials(trials)
    content["selection"] = [asdict(summary) for summary in summaries]
    content["confirmation"] = [asdict(confirmation) for confirmation in confirmed]
    run.write_json(content)
    console.print()
    print_summaries(summaries, console)
    if confirmed:
        console.print("\nConfirmation", style="bold")
        print_confirmations(confirmed, console)
    console.print(f"Results: {run.path}", markup=False, highlight=False, soft_wrap=True)
    return SearchResult(run.path, content["status"], summaries, confirmed)


# The command line. Typer reads names, types, defaults and help from the signature.

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


_Dataset = Annotated[str, typer.Option(help="Name of the dataset.")]
_Noise = Annotated[
    str | None,
    typer.Option(
        help="Noise levels, comma-separated: clean, symmetric:0.4, pairflip:0.3, asymmetric:0.3, instance:0.4, "
        "matrix:FILE, human:worst. By default those of the dataset."
    ),
]
_Space = Annotated[str | None, typer.Option(help="Shipped search space or YAML file. By default the dataset's own.")]
_Preset = Annotated[str, typer.Option(help="Preset of the space: gpu, cpu, or auto (gpu where there is one).")]
_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Fix a setting (optimizer=adamw) or change a key of the space (lr.low=1e-5, budget.grace_epochs=4). "
        "May be repeated.",
    ),
]
_Model = Annotated[str | None, typer.Option(help="Name of the network; short for --set model=NAME.")]
_NumTrials = Annotated[int | None, typer.Option(help="Trials a noise level, start points and all arms included.")]
_Epochs = Annotated[int | None, typer.Option(help="Epochs a trial, warm-up included.")]
_TrainSize = Annotated[int | None, typer.Option(help="Training samples to use.")]
_ConfirmSeeds = Annotated[
    int | None, typer.Option(help="Fresh seeds with which the winners and CE are trained again; 0 turns it off.")
]
_ValFraction = Annotated[
    float | None, typer.Option(help="Share of the labelled samples held out for validation (noisy labels).")
]
_NoiseSeed = Annotated[int, typer.Option(help="Seed of synthetic noise.")]
_Seed = Annotated[int, typer.Option(help="Seed of training, split and search.")]
_Objective = Annotated[str, typer.Option(help="Epoch that counts: best or last.")]
_Sampler = Annotated[
    str, typer.Option(help="Where configurations come from: tpe, random, gp, cmaes, grid (spaces of choices).")
]
_Scheduler = Annotated[str, typer.Option(help="asha, or none: every trial runs to its end.")]
_DataDir = Annotated[
    Path | None, typer.Option(help="Folder of data files. By default $NLS_TUNE_DATA, else the user's cache.")
]
_Out = Annotated[Path | None, typer.Option(help="Run directory; an unfinished one is resumed. [runs/DATASET-TIME]")]
_TrialsPerGpu = Annotated[int, typer.Option(help="Trials that share a GPU.")]
_CpusPerTrial = Annotated[int, typer.Option(help="CPU threads a trial.")]
_Address = Annotated[str | None, typer.Option(help="Existing Ray cluster, for example auto.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]


@app.command()
def search(
    dataset: _Dataset = "twonorm",
    noise: _Noise = None,
    space: _Space = None,
    preset: _Preset = "auto",
    set_: _Set = None,
    model: _Model = None,
    num_trials: _NumTrials = None,
    epochs: _Epochs = None,
    train_size: _TrainSize = None,
    confirm_seeds: _ConfirmSeeds = None,
    val_fraction: _ValFraction = None,
    noise_seed: _NoiseSeed = 0,
    seed: _Seed = 0,
    objective: _Objective = "best",
    sampler: _Sampler = "tpe",
    scheduler: _Scheduler = "asha",
    data_dir: _DataDir = None,
    out: _Out = None,
    trials_per_gpu: _TrialsPerGpu = 1,
    cpus_per_trial: _CpusPerTrial = 1,
    address: _Address = None,
    dry_run: _DryRun = False,
) -> int:
    """Search the smooth rate for each noise level of a dataset."""
    from rich.console import Console

    from nls_tune.search_settings import check_search_settings

    overrides = (*(set_ or []), *([] if model is None else [f"model={model}"]))
    settings = check_search_settings(
        dataset=dataset,
        noise=None if noise is None else tuple(part.strip() for part in noise.split(",")),
        space=space,
        preset=preset,
        overrides=overrides,
        num_trials=num_trials,
        epochs=epochs,
        train_size=train_size,
        confirm_seeds=confirm_seeds,
        val_fraction=val_fraction,
        noise_seed=noise_seed,
        seed=seed,
        objective=objective,
        sampler=sampler,
        scheduler=scheduler,
        data_dir=data_dir,
        out=out,
        trials_per_gpu=trials_per_gpu,
        cpus_per_trial=cpus_per_trial,
        address=address,
    )
    console = Console()
    if (result := _search(settings, console, dry_run=dry_run)) is None or result.status == "finished":
        return 0
    console.print(
        f"Interrupted; what was finished is kept. To go on: {_resume_command(result.run)}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    return 130


def _resume_command(run: Path) -> str:
    """This command with the run directory that it chose."""
    arguments = sys.argv[1:]
    if not any(a == "--out" or a.startswith("--out=") for a in arguments):
        arguments = [*arguments, "--out", str(run)]
    program = ["nls-tune"] if Path(sys.argv[0]).name == "nls-tune" else ["python", "-m", "nls_tune.search"]
    return shlex.join([*program, *arguments])


if __name__ == "__main__":
    from nls_tune.command_line import run_app

    sys.exit(run_app(app))
