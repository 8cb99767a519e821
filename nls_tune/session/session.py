"""One session of a search: plan, run what is missing, confirm, summarise."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_trials
from nls_tune.session.conclusion import SearchResult, conclude_run, count_search_trials
from nls_tune.session.run_json import _default_out, _says_finished, _session, begin_run
from nls_tune.tune.interrupts import InterruptedRunError

if TYPE_CHECKING:
    from rich.console import Console

    from nls_tune.plan.plan import SearchPlan
    from nls_tune.plan.settings import SearchSettings
    from nls_tune.report.console.live import ProgressView
    from nls_tune.runs.progress import SearchProgress
    from nls_tune.runs.time_budget import TimeBudget
    from nls_tune.tune.cluster import Slots
    from nls_tune.tune.packing import Packing
    from nls_tune.tune.tracker import Tracker


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
        KeyboardInterrupt: If Ctrl-C was pressed more than once; after one, what there is is returned.
    """
    from nls_tune.plan.settings import check_search_settings

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
    return cast("SearchResult", run_settings(checked, console, dry_run=False))  # only a dry run has none


def run_settings(settings: SearchSettings, console: Console | None, *, dry_run: bool) -> SearchResult | None:
    """Plan, run and summarise a search; a dry run stops after the plan and returns None.

    Raises:
        InterruptedRunError: If Ctrl-C was pressed again after a first one, or while nothing ran any more.
    """
    from rich.console import Console

    run = RunDirectory(settings.out or _default_out(settings.dataset))
    try:
        return _run_settings(settings, run, console or Console(quiet=True), dry_run=dry_run)
    except KeyboardInterrupt:
        if dry_run or not run.run_json.exists():
            raise
        raise InterruptedRunError(run.path) from None


def _run_settings(
    settings: SearchSettings, run: RunDirectory, console: Console, *, dry_run: bool
) -> SearchResult | None:
    from nls_tune.plan.plan import make_plan
    from nls_tune.report.console.search import print_plan
    from nls_tune.runs.time_budget import TimeBudget
    from nls_tune.training.warmup import check_store
    from nls_tune.tune.cluster import check_machine, check_preset, local_resources, ray_session, slots_of
    from nls_tune.tune.packing import packing_note
    from nls_tune.tune.trackers import check_trackers

    with ExitStack() as stack:
        # A running cluster is asked first, because its GPUs decide the plan; one of our own is started last.
        connect = settings.address is not None
        resources = stack.enter_context(ray_session(settings.address)) if connect else local_resources()
        slots = slots_of(resources, settings)
        # A run that is finished needs and tells nothing, unless it turns out below that more is wanted.
        waits = dry_run or _says_finished(run)
        if not waits:
            check_preset(settings, slots)
            check_trackers(settings)  # it may make a database
        plan = make_plan(settings, resources.get("GPU", 0), progress=console.is_terminal)
        notes = (packing_note(resources, slots, settings), check_machine(plan.space, settings, slots))
        plan = replace(plan, notes=(*plan.notes, *filter(None, notes)))
        if dry_run:
            print_plan(plan, slots.count, console)
            return None
        store = plan.warmup_store(run)
        if store is not None and settings.warmup_store is not None:
            check_store(store)  # before anything is made
        run.create()
        stack.enter_context(run.lock())
        content = begin_run(plan, run)
        if settings.tensorboard:
            _write_events(run)
        used = sum(session.get("search_seconds", 0.0) for session in content["sessions"])
        budget = TimeBudget(settings.time_budget, used)
        if _is_complete(plan, run, content, budget):
            plan = _announce(plan, run, content, slots, console)
        else:
            if waits:
                check_preset(settings, slots)
                check_trackers(settings)
            with _session(run, content, slots) as session:
                plan = _announce(plan, run, content, slots, console)
                resources = _make_ready(plan, run, store, resources, stack, console)
                _run(plan, run, content, session, resources, budget, console)
        # Before Ray is shut down, which takes a second or two, and while the run is ours.
        return conclude_run(plan, run, content, console)


def _announce(
    plan: SearchPlan, run: RunDirectory, content: dict[str, Any], slots: Slots, console: Console
) -> SearchPlan:
    """Complete the plan with what is estimated, and print it."""
    from nls_tune.report.console.search import print_plan
    from nls_tune.session.estimating import with_estimates

    plan = with_estimates(plan, run, content, slots, console)
    print_plan(plan, slots.count, console)
    console.print(f"Results: {run.path}", markup=False, highlight=False, soft_wrap=True)
    return plan


def _make_ready(
    plan: SearchPlan,
    run: RunDirectory,
    store: Path | None,
    resources: dict[str, float],
    stack: ExitStack,
    console: Console,
) -> dict[str, float]:
    """Start Ray, or check that its nodes see the folders that they need; return what Ray has."""
    from nls_tune.training.warmup import check_store
    from nls_tune.tune.cluster import check_shared, ray_session

    if store is not None and (warning := check_store(store)):
        console.print(f"Note: {warning}", markup=False, highlight=False, soft_wrap=True)
    if plan.settings.address is None:
        return stack.enter_context(ray_session(None))
    check_shared(run, None if plan.settings.warmup_store is None else store)
    return resources


def _write_events(run: RunDirectory) -> None:
    """Write the event files that trials of earlier sessions lack, which may not have been asked for any."""
    from nls_tune.export.tensorboard import event_file, export_tensorboard
    from nls_tune.runs import load_run

    rows = read_trials(run.path).to_dict("records")
    lacking = {row["trial_id"] for row in rows if not event_file(run.tensorboard, row).exists()}
    if lacking:
        found = load_run(run.path)
        trials = found.trials[found.trials["trial_id"].isin(lacking)]
        export_tensorboard(replace(found, trials=trials), run.tensorboard, overwrite=True)


def _is_complete(plan: SearchPlan, run: RunDirectory, content: dict[str, Any], budget: TimeBudget) -> bool:
    """Whether search and confirmation have nothing left to do."""
    from nls_tune.session.confirming import missing_on_all_labels, missing_trials

    trials = read_trials(run.path)
    if content["status"] != "finished" or content.get("search_trials") != count_search_trials(trials):
        return False
    if content.get("ended_by") == "time_budget" and not budget.used_up():
        return False  # there is more time than there was
    return not missing_trials(plan, trials) and not missing_on_all_labels(plan, trials)


def _run(
    plan: SearchPlan,
    run: RunDirectory,
    content: dict[str, Any],
    session: dict[str, Any],
    resources: dict[str, float],
    budget: TimeBudget,
    console: Console,
) -> None:
    """Run what is missing; ``content`` says afterwards how it ended, and ``session``, its last one, what it was."""
    from nls_tune.report.console.live import ProgressView
    from nls_tune.tune.cluster import slots_of
    from nls_tune.tune.packing import Packing
    from nls_tune.tune.trackers import open_trackers

    slots = slots_of(resources, plan.settings)
    session["slots"] = asdict(slots)
    packing = Packing(resources, plan.settings, slots)
    _tell_of_memory(packing, session, lambda: run.write_json(content), console)

    def save_seconds(seconds: float) -> None:
        session["search_seconds"] = round(seconds, 1)
        run.write_json(content)

    budget.save = save_seconds

    headings = {
        "confirm": f"Confirmation with {len(plan.confirm_seeds())} fresh seeds",
        "confirm_all": "Confirmation on all labels",
    }

    def make_view(progress: SearchProgress) -> ProgressView:
        # For whoever watches from another process: what these trials are, and how many there are to be.
        session["stage"] = {
            "name": progress.stage,
            "started_at": datetime.now(UTC).isoformat(),
            "trials": {name: level.total for name, level in progress.levels.items()},
            "epochs": progress.epochs,
            "time_budget": progress.budget.seconds,
        }
        run.write_json(content)
        if heading := headings.get(progress.stage):
            console.print(heading, highlight=False)
        return ProgressView(progress, console)

    with open_trackers(plan, run, content["run_id"]) as trackers:
        _run_stages(plan, run, content, packing, make_view, budget, trackers)


def _tell_of_memory(packing: Packing, session: dict[str, Any], save: Callable[[], None], console: Console) -> None:
    """Say on the screen and in run.json when trials that ran out of memory change how they run."""

    def lowered(before: int, slots: Slots) -> None:
        session["slots"] = asdict(slots)
        session.setdefault("out_of_memory_with", []).append(before)
        save()
        console.print(
            f"Memory ran out with {before} trials on a GPU: {slots.trials_per_gpu} from now on", highlight=False
        )

    packing.lowered = lowered


def _run_stages(
    plan: SearchPlan,
    run: RunDirectory,
    content: dict[str, Any],
    packing: Packing,
    make_view: Callable[[SearchProgress], ProgressView],
    budget: TimeBudget,
    trackers: Sequence[Tracker],
) -> None:
    """Run the search, then what is confirmed of it; ``content`` says afterwards how it ended."""
    from nls_tune.session.confirming import confirm, missing_on_all_labels
    from nls_tune.session.searching import execute

    run_id = content["run_id"]
    ended_by = execute(plan, run, run_id, packing, make_view, budget, trackers)
    status = "interrupted" if ended_by == "interrupted" else "finished"
    content["ended_by"] = None if status == "interrupted" else ended_by
    if status == "finished":
        run.remove_warmups()  # the confirmation has other seeds
    if status == "finished" and plan.confirm_seeds():
        status = confirm(plan, run, run_id, packing, make_view, trackers=trackers)
        if status == "finished" and plan.settings.confirm_on == "all":
            status = confirm(plan, run, run_id, packing, make_view, missing_on_all_labels, trackers)
        if status == "finished":
            run.remove_warmups()
    if status == "finished":
        _remove_unwanted(run)
        run.copy_parts()
    content["status"] = status


def _remove_unwanted(run: RunDirectory) -> None:
    """Remove checkpoints of a confirmation that was interrupted and then had other configurations or fewer seeds."""
    from nls_tune.runs.checkpoint import TrialCheckpoint

    for folder in run.checkpoints.iterdir():
        checkpoint = TrialCheckpoint(folder)
        trial = checkpoint.read_trial()
        if trial is not None and trial.stage != "search":
            checkpoint.remove()
