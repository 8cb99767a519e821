"""One session of a search: plan, run what is missing, confirm, summarise."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nls_tune.errors import InputError
from nls_tune.results import SCHEMA_VERSION, RunDirectory, read_trials

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from nls_tune.analysis.confirmation import LevelConfirmation
    from nls_tune.analysis.level_summaries import LevelSummary
    from nls_tune.budgets import TimeBudget
    from nls_tune.cluster import Slots
    from nls_tune.packing import Packing
    from nls_tune.plan import SearchPlan
    from nls_tune.progress import SearchProgress
    from nls_tune.report.live import ProgressView
    from nls_tune.search_settings import SearchSettings
    from nls_tune.trackers import Tracker


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
    return cast("SearchResult", run_settings(checked, console, dry_run=False))  # only a dry run has none


def run_settings(settings: SearchSettings, console: Console | None, *, dry_run: bool) -> SearchResult | None:
    """Plan, run and summarise a search; a dry run stops after the plan and returns None."""
    from rich.console import Console

    from nls_tune.budgets import TimeBudget
    from nls_tune.cluster import check_machine, check_shared, local_resources, ray_session, slots_of
    from nls_tune.packing import Packing, packing_note
    from nls_tune.plan import make_plan
    from nls_tune.report.console import print_plan
    from nls_tune.trackers import check_trackers
    from nls_tune.warmup import check_store

    console = console or Console(quiet=True)
    with ExitStack() as stack:
        # A running cluster is asked first, because its GPUs decide the plan; one of our own is started last.
        connect = settings.address is not None
        resources = stack.enter_context(ray_session(settings.address)) if connect else local_resources()
        slots = slots_of(resources, settings)
        if not dry_run:
            check_trackers(settings)  # it may make a database
        plan = make_plan(settings, resources.get("GPU", 0), progress=console.is_terminal)
        notes = (packing_note(resources, slots, settings), check_machine(plan.space, settings, slots))
        plan = replace(plan, notes=(*plan.notes, *filter(None, notes)))
        if dry_run:
            print_plan(plan, slots.count, console)
            return None
        run = RunDirectory(settings.out or _default_out(settings.dataset))
        store = plan.warmup_store(run)
        if store is not None and settings.warmup_store is not None:
            check_store(store)  # before anything is made
        run.create()
        stack.enter_context(run.lock())
        content = begin_run(plan, run)
        try:
            if settings.tensorboard:
                _write_events(run)
            plan = _estimate_noise(plan, run, content, console, on_cluster=connect and resources.get("GPU", 0) >= 1)
            print_plan(plan, slots.count, console)
            console.print(f"Results: {run.path}", markup=False, highlight=False, soft_wrap=True)
            used = sum(session.get("search_seconds", 0.0) for session in content["sessions"])
            budget = TimeBudget(settings.time_budget, used)
            if not _is_complete(plan, run, content, budget):
                if store is not None and (warning := check_store(store)):
                    console.print(f"Note: {warning}", markup=False, highlight=False, soft_wrap=True)
                if connect:
                    check_shared(run, None if settings.warmup_store is None else store)
                else:
                    resources = stack.enter_context(ray_session(None))
                    slots = slots_of(resources, settings)
                _run(plan, run, content, Packing(resources, settings, slots), budget, console)
        except KeyboardInterrupt:
            content["status"] = "interrupted"
            run.write_json(content)
        except Exception:
            if content["status"] == "running":  # nothing runs any more, and nobody killed it
                content["status"] = "failed"
                run.write_json(content)
            raise
        # Before Ray is shut down, which takes a second or two, and while the run is ours.
        return conclude_run(plan, run, content, console)


def _default_out(dataset: str) -> Path:
    return Path("runs") / f"{dataset}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def begin_run(plan: SearchPlan, run: RunDirectory) -> dict[str, Any]:
    """Write run.json of a new run, or read that of an earlier one and refuse it if the settings differ."""
    from nls_tune.differences import differences

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


def _write_events(run: RunDirectory) -> None:
    """Write the event files of trials that ended in earlier sessions, which may not have been asked for any."""
    from nls_tune.export import export_tensorboard
    from nls_tune.runs import load_run

    export_tensorboard(load_run(run.path), run.tensorboard, overwrite=True)


def _is_complete(plan: SearchPlan, run: RunDirectory, content: dict[str, Any], budget: TimeBudget) -> bool:
    """Whether search and confirmation have nothing left to do."""
    from nls_tune.confirm import missing_on_all_labels, missing_trials

    trials = read_trials(run.path)
    if content["status"] != "finished" or content.get("search_trials") != _count_search_trials(trials):
        return False
    if content.get("ended_by") == "time_budget" and not budget.used_up():
        return False  # there is more time than there was
    return not missing_trials(plan, trials) and not missing_on_all_labels(plan, trials)


def _estimate_noise(
    plan: SearchPlan, run: RunDirectory, content: dict[str, Any], console: Console, *, on_cluster: bool
) -> SearchPlan:
    """Complete the plan with the estimates that it needs: from run.json, or made now and written there at once."""
    from nls_tune.noise_estimation import NoiseEstimate
    from nls_tune.report.estimates import print_estimate_line

    known = {facts["noise_level"]: facts.get("estimate") for facts in content["plan"]}
    for level in plan.levels:
        if not level.needs_estimate:
            continue
        if found := known.get(level.level):
            plan = plan.with_estimate(NoiseEstimate.from_json(found))
            continue
        what = f"Estimating the noise of {level.level} from its noisy labels"
        console.print(f"{what}{' on a GPU of the cluster' if on_cluster else ''}", markup=False, highlight=False)
        if on_cluster:
            from nls_tune.cluster_estimate import estimate_on_cluster

            estimate = estimate_on_cluster(plan, level)
        else:
            from nls_tune.estimate import estimate_level  # needs torch, which a finished run does without

            estimate = estimate_level(plan, level, progress=console.is_terminal)
        plan = plan.with_estimate(estimate)
        content["plan"] = plan.facts()
        run.write_json(content)
        print_estimate_line(estimate, console)
    return plan


def _run(
    plan: SearchPlan,
    run: RunDirectory,
    content: dict[str, Any],
    packing: Packing,
    budget: TimeBudget,
    console: Console,
) -> None:
    """Run what is missing; whatever happens, run.json says afterwards how it ended."""
    from nls_tune.provenance import provenance
    from nls_tune.report.live import ProgressView
    from nls_tune.trackers import open_trackers

    session = {**provenance(), "started_at": datetime.now(UTC).isoformat(), "slots": asdict(packing.slots)}
    session["vectorize"] = plan.settings.vectorize
    content["sessions"].append(session)
    content["status"] = "running"
    run.write_json(content)

    _tell_of_memory(packing, session, lambda: run.write_json(content), console)

    def save_seconds(seconds: float) -> None:
        session["search_seconds"] = round(seconds, 1)
        run.write_json(content)

    budget.save = save_seconds

    def make_view(progress: SearchProgress) -> ProgressView:
        # For whoever watches from another process: what these trials are, and how many there are to be.
        session["stage"] = {
            "name": progress.stage,
            "started_at": datetime.now(UTC).isoformat(),
            "trials": {name: level.total for name, level in progress.levels.items()},
            "epochs": progress.epochs,
            "time_budget": progress.budget.seconds,
            "batches": progress.batches,
        }
        run.write_json(content)
        return ProgressView(progress, console)

    try:
        _choose_packing(plan, packing, session, console)
        with open_trackers(plan, run, content["run_id"]) as trackers:
            _run_stages(plan, run, content, packing, make_view, budget, trackers, console)
    except Exception:
        content["status"] = "failed"
        raise
    finally:
        session["finished_at"] = datetime.now(UTC).isoformat()
        run.write_json(content)


def _tell_of_memory(packing: Packing, session: dict[str, Any], save: Callable[[], None], console: Console) -> None:
    """Say on the screen and in run.json when trials that ran out of memory change how they run."""

    def lowered(before: int, slots: Slots) -> None:
        session["slots"] = asdict(slots)
        session.setdefault("out_of_memory_with", []).append(before)
        save()
        console.print(
            f"Memory ran out with {before} trials on a GPU: {slots.trials_per_gpu} from now on", highlight=False
        )

    def unbatched() -> None:
        session["out_of_memory_in_a_batch"] = True
        session["stage"]["batches"] = {}
        save()
        console.print("Memory ran out in a batch: the trials run one by one from now on", highlight=False)

    packing.lowered, packing.unbatched = lowered, unbatched


def _run_stages(
    plan: SearchPlan,
    run: RunDirectory,
    content: dict[str, Any],
    packing: Packing,
    make_view: Callable[[SearchProgress], ProgressView],
    budget: TimeBudget,
    trackers: Sequence[Tracker],
    console: Console,
) -> None:
    """Run the search, then what is confirmed of it; ``content`` says afterwards how it ended."""
    from nls_tune.confirm import confirm, missing_on_all_labels
    from nls_tune.execution import execute

    run_id = content["run_id"]
    ended_by = execute(plan, run, run_id, packing, make_view, budget, trackers)
    status = "interrupted" if ended_by == "interrupted" else "finished"
    content["ended_by"] = None if status == "interrupted" else ended_by
    if status == "finished":
        run.remove_warmups()  # the confirmation has other seeds
    if status == "finished" and plan.confirm_seeds():
        console.print(f"Confirmation with {len(plan.confirm_seeds())} fresh seeds", highlight=False)
        status = confirm(plan, run, run_id, packing, make_view, trackers=trackers)
        if status == "finished" and plan.settings.confirm_on == "all":
            console.print("Confirmation on all labels", highlight=False)
            status = confirm(plan, run, run_id, packing, make_view, missing_on_all_labels, trackers)
        if status == "finished":
            run.remove_warmups()
    if status == "finished":
        run.copy_parts()
    content["status"] = status


def _choose_packing(plan: SearchPlan, packing: Packing, session: dict[str, Any], console: Console) -> None:
    """Measure how many trials should share a GPU where the user wants that; it goes into run.json."""
    if plan.settings.trials_per_gpu != "auto":
        return
    from nls_tune.packing_probe import measure_packing

    measured = measure_packing(plan, plan.settings.cpus_per_trial)
    packing.use(measured.trials_per_gpu)
    session |= {"packing": measured.facts(), "slots": asdict(packing.slots)}
    console.print(measured.line(), markup=False, highlight=False, soft_wrap=True)


def _count_search_trials(trials: pd.DataFrame) -> int:
    """A row that somebody removed is missed by this number, and run again."""
    return int((trials["stage"] == "search").sum())


def conclude_run(plan: SearchPlan, run: RunDirectory, content: dict[str, Any], console: Console) -> SearchResult:
    """Summarise the run, write its selection, and print the table."""
    from nls_tune.analysis.confirmation import confirmations
    from nls_tune.analysis.level_summaries import level_summaries, space_of
    from nls_tune.report.confirmation import print_confirmations
    from nls_tune.report.console import epochs_line, print_summaries

    trials, levels = read_trials(run.path), [p.level for p in plan.levels]
    summaries = level_summaries(trials, levels, space_of(content))
    confirmed = confirmations(trials, levels)
    content["search_trials"] = _count_search_trials(trials)
    content["selection"] = [asdict(summary) for summary in summaries]
    content["confirmation"] = [asdict(confirmation) for confirmation in confirmed]
    run.write_json(content)
    console.print()
    print_summaries(summaries, console)
    _say_what_time_left_out(plan, content, summaries, console)
    if confirmed:
        console.print("\nConfirmation", style="bold")
        print_confirmations(confirmed, console)
    if line := epochs_line(trials):
        console.print(line, highlight=False)
    console.print(f"Results: {run.path}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"Plots and tables of them: {shlex.join(['nls-tune', 'report', str(run.path)])}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    return SearchResult(run.path, content["status"], summaries, confirmed)


def _say_what_time_left_out(
    plan: SearchPlan, content: dict[str, Any], summaries: Sequence[LevelSummary], console: Console
) -> None:
    """Say that the time budget ended the search, and at which levels no trial ran at all."""
    from nls_tune.report.text import duration

    if content.get("ended_by") != "time_budget":
        return
    lines = [
        f"{level.level}: no trial began within the time budget, so nothing can be recommended."
        for level in plan.levels
        if level.level not in {summary.noise_level for summary in summaries}
    ]
    used = sum(session.get("search_seconds", 0.0) for session in content["sessions"])
    lines.append(
        f"The time budget ended the search after {duration(used)}, with {content['search_trials']} of "
        f"{plan.num_trials} trials begun; the same command with a larger --time-budget goes on."
    )
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
