"""One session of a search: it plans, searches, confirms and concludes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from nls_tune.plan.settings import SearchSettings
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_trials
from nls_tune.runs.run_json import RunJson, RunSession, RunSlots, RunStage
from nls_tune.session.beginning import default_out, remove_unwanted_checkpoints, write_missing_events
from nls_tune.session.conclusion import SearchResult, conclude_run, count_search_trials
from nls_tune.session.continuing import standing, stored_settings
from nls_tune.session.forecast import measured_epoch, probed_epoch
from nls_tune.session.signatures import settings_of_call, with_settings
from nls_tune.session.storing import SessionStorage
from nls_tune.tune.interrupts import InterruptedAgainError, InterruptedRunError, held_back, interruptible

if TYPE_CHECKING:
    from rich.console import Console

    from nls_tune.datasets import Data
    from nls_tune.plan.level_data import LevelData
    from nls_tune.plan.plan import SearchPlan
    from nls_tune.report.console.live import ProgressView
    from nls_tune.runs.progress import SearchProgress
    from nls_tune.tune.cluster import Slots

#: What a stage is called on the screen; the search needs no heading.
_HEADINGS = {
    "confirm": "Confirmation with {} fresh seeds", "confirm_all": "Confirmation on all labels",
    "sweep_search": "Settings for each rate of the sweep", "sweep": "Sweep over rates with {} fresh seeds",
}  # fmt: skip


@with_settings
def run_search(
    dataset: str | Data = "digits",
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
        dataset: Name of a dataset, or your own ``Data``.
        noise: Noise levels, as a list or comma-separated; by default those of the dataset.
        space: Name of a shipped search space or a YAML file; by default the dataset's own.
        overrides: Changes of the space: ``{"model": "cnn9", "lr.low": 1e-5}``, or ``KEY=VALUE`` strings.
        console: Where to print plan, progress and results; by default the notebook in a notebook, else nowhere.
        **settings: The other fields of ``SearchSettings``, for example ``num_trials``, ``epochs``, ``out``.

    Returns:
        The run directory, the verdicts, and what they rest on.

    Raises:
        InputError: Where the command would exit with 2.
        RuntimeError: If every trial failed.
        KeyboardInterrupt: If Ctrl-C was pressed more than once; after one, the partial result is returned.
    """
    from rich.console import Console

    checked, data = settings_of_call(dataset, noise, space, overrides, settings)
    here = Console()
    shown = console or (here if here.is_jupyter else None)
    return cast("SearchResult", run_settings(checked, shown, data=data))  # only a dry run has none


def run_settings(
    settings: SearchSettings,
    console: Console | None,
    *,
    dry_run: bool = False,
    assume_gpus: int | None = None,
    data: Data | None = None,
) -> SearchResult | None:
    """Plan, search, confirm and conclude; a dry run ends after the plan, if asked for other GPUs, and returns None.

    Raises:
        InterruptedRunError: If it was interrupted again after a first time, or while nothing ran any more.
    """
    with interruptible(), Session(settings, console, dry_run=dry_run, assume_gpus=assume_gpus, data=data) as session:
        session.plan()
        if dry_run:
            session.print_plan()
            return None
        session.begin()
        if session.is_complete():
            session.announce()
        else:
            with session.at_work():
                session.announce()
                session.start()
                session.search()
                session.confirm()
        return session.conclude()


class Session:
    """One session of a search, from its plan to its result.

    Args:
        settings: What the user asked for.
        console: Where to print; None prints nothing.
        dry_run: Whether the session ends with its plan.
        assume_gpus: The GPUs of the machine that a dry run plans for; None for this one.
        data: A user's own data; by default those that the settings name.
    """

    def __init__(
        self,
        settings: SearchSettings,
        console: Console | None,
        *,
        dry_run: bool = False,
        assume_gpus: int | None = None,
        data: Data | None = None,
    ) -> None:
        from rich.console import Console

        self.settings, self._own = settings, data or settings.data
        name = settings.dataset if self._own is None else self._own.name
        self.run = RunDirectory(settings.out or default_out(name))
        self.slots: Slots
        self._console = console or Console(quiet=True)
        self._dry_run, self._assume_gpus = dry_run, assume_gpus
        self._stack = ExitStack()
        self._resources: dict[str, float] = {}
        self._checked = False
        self._outcome: Literal["finished", "interrupted"]
        self._plan: SearchPlan
        self._data: LevelData
        self._content: RunJson
        self._storage: SessionStorage
        self._session: RunSession

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: Any) -> None:
        """Leave the cluster and the run.

        Raises:
            InterruptedRunError: In place of a KeyboardInterrupt once there is a run that can go on.
        """
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        can_go_on = not self._dry_run and self.run.run_json.exists()
        try:
            self._stack.__exit__(kind, *raised)
        except KeyboardInterrupt:
            if not can_go_on:
                raise
            interrupted = True
        if interrupted and can_go_on:
            raise InterruptedRunError(self.run.path) from None

    # Planning

    def plan(self) -> None:
        """Check everything, load the data and plan the search; on a cluster, connect first: its GPUs decide the plan.

        Raises:
            InputError: For anything that cannot work.
        """
        from nls_tune.plan.level_data import LevelData
        from nls_tune.plan.plan import make_plan
        from nls_tune.tune.cluster import assumed_resources, check_machine, local_resources, slots_of
        from nls_tune.tune.packing import packing_note
        from nls_tune.tune.starting import ray_session

        settings, assumed = self.settings, self._assume_gpus
        if not self._dry_run:
            self._storage = SessionStorage(settings, self.run, self._say)
        if assumed is not None:
            self._resources = assumed_resources(assumed, settings)
        elif settings.address is not None:
            self._resources = self._stack.enter_context(ray_session(settings.address))
        else:
            self._resources = local_resources()
        self.slots = slots_of(self._resources, settings)
        if not self._dry_run and not self._storage.is_finished():
            self._check_machine()  # a finished run needs no machine, unless it turns out that more is wanted
        num_gpus, is_assumed = self._resources.get("GPU", 0), assumed is not None
        plan = make_plan(settings, num_gpus, assumed=is_assumed, progress=self._console.is_terminal, data=self._own)
        notes = (
            packing_note(self._resources, self.slots, settings),
            None if is_assumed else check_machine(plan.space, settings, self.slots),
        )
        self._plan = replace(plan, notes=(*plan.notes, *filter(None, notes)))
        self._data = LevelData(plan)

    def _check_machine(self) -> None:
        """Check the preset and the trackers, once; that of MLflow may make a database."""
        from nls_tune.tune.cluster import check_preset
        from nls_tune.tune.trackers import check_trackers

        if not self._checked:
            check_preset(self.settings, self.slots)
            check_trackers(self.settings)
            self._checked = True

    def print_plan(self) -> None:
        """Print the plan; a dry run also says what the search would do in a run directory that there is already."""
        from nls_tune.report.console.search import print_plan

        epoch_time = measured_epoch(self._plan, self.run)
        here = self._assume_gpus is None and self.settings.address is None and not self.slots.gpus_per_trial
        if epoch_time is None and here and not self._console.quiet:
            epoch_time = probed_epoch(self._plan, self.slots.count, self.slots.cpus_per_trial)
        print_plan(self._plan, self.slots.count, self._console, epoch_time)
        if self._dry_run and (line := standing(self._plan, self.run)) is not None:
            self._say(line)

    def begin(self) -> None:
        """Make or take over the run directory, and hold it until the session ends.

        Raises:
            InputError: If another process holds it, or it is a run with other settings.
        """
        from nls_tune.runs.time_budget import TimeBudget
        from nls_tune.training.warmup import check_store
        from nls_tune.tune.starting import check_path

        check_path("--out", self.run.path)
        store = self._plan.warmup_store(self.run)
        if store is not None and self.settings.warmup_store is not None:
            check_store(store)  # before anything is made
        self._content = self._stack.enter_context(self._storage.begun(self._plan))
        if self.settings.tensorboard:
            write_missing_events(self.run)
        self._budget = TimeBudget(self.settings.time_budget, self._content.search_seconds, self._save_seconds)

    def is_complete(self) -> bool:
        """Return whether search and confirmation have nothing left to do."""
        from nls_tune.session.sweeping import AFTER_SEARCH

        content, trials = self._content, read_trials(self.run.path)
        if content.status != "finished" or content.search_trials != count_search_trials(trials):
            return False
        if content.ended_by == "time_budget" and not self._budget.used_up():
            return False  # there is more time than there was
        return not any(missing(self._plan, self._data, trials) for missing in AFTER_SEARCH)

    def announce(self) -> None:
        """Complete the plan with the estimates of the noise, and print it."""
        from nls_tune.plan.level_data import LevelData
        from nls_tune.session.estimating import with_estimates

        self._plan = with_estimates(self._plan, self.run, self._content, self.slots, self._console)
        self._data = LevelData(self._plan)  # an estimate may hold the matrix that a loss corrects for
        self.print_plan()
        self._say(f"Results: {self.run.path}")

    # Working

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Say in run.json that a session works on the run, and afterwards, whatever happens, how it ended.

        Raises:
            KeyboardInterrupt: If the session was interrupted twice; after one interruption the session concludes.
        """
        from nls_tune.machine.provenance import provenance

        self._check_machine()
        content = self._content
        in_memory = self._own is not None and not self._own.is_on_disk
        facts = {**provenance(), **stored_settings(self.settings, in_memory=in_memory), "slots": asdict(self.slots)}
        self._session = RunSession.model_validate({**facts, "started_at": datetime.now(UTC)})
        content.sessions.append(self._session)
        content.status = "running"
        self._save()
        try:
            with ExitStack() as self._at_work:
                yield
        except KeyboardInterrupt as error:
            again = isinstance(error, InterruptedAgainError) or self._is_interrupted()
            content.status = "interrupted"
            if again:
                raise
        except BaseException as error:
            # A BaseException comes from outside, for example when the reader of the output has left.
            content.status = "failed" if isinstance(error, Exception) else "interrupted"
            raise
        finally:
            self._session.finished_at = datetime.now(UTC)
            with held_back():
                self._save()

    def start(self) -> None:
        """Start Ray here, or check that the nodes of the cluster can take part; open the trackers."""
        from nls_tune.training.warmup import check_store
        from nls_tune.tune.cluster import slots_of
        from nls_tune.tune.packing import Packing
        from nls_tune.tune.shared import checked_nodes
        from nls_tune.tune.starting import ray_session
        from nls_tune.tune.trackers import open_trackers
        from nls_tune.tune.work import Work

        store, run_id = self._plan.warmup_store(self.run), str(self._content.run_id)
        if store is not None and not self.settings.has_warmups_per_node and (warning := check_store(store)):
            self._say(f"Note: {warning}")
        if self.settings.address is None:
            self._resources = self._stack.enter_context(ray_session(None))
        else:
            self._at_work.enter_context(checked_nodes(self.settings, self.run, store, self._storage.store, run_id))
        self.slots = slots_of(self._resources, self.settings)
        self._session.slots = RunSlots(**asdict(self.slots))
        self._work = Work(
            plan=self._plan,
            data=self._data,
            run=self.run,
            run_id=run_id,
            packing=Packing(self._resources, self.settings, self.slots, self._memory_ran_out),
            make_view=self._show,
            trackers=self._at_work.enter_context(open_trackers(self._plan, self.run, run_id)),
            store=self._storage.store,
            mirror=self._storage.mirror,
        )

    def search(self) -> None:
        """Run what is missing of the search."""
        from nls_tune.session.searching import execute

        ended_by = execute(self._work, self._budget)
        self._content.ended_by = None if ended_by == "interrupted" else ended_by
        self._outcome = "interrupted" if ended_by == "interrupted" else "finished"
        if self._outcome == "finished":
            self.run.remove_warmups()  # the confirmation has other seeds

    def confirm(self) -> None:
        """Train again with fresh seeds what the search has selected, and the sweep, unless it was interrupted."""
        from nls_tune.session.confirming import confirm
        from nls_tune.session.sweeping import AFTER_SEARCH

        for missing in AFTER_SEARCH:
            if self._outcome == "finished":
                self._outcome = confirm(self._work, missing)
        if self._outcome == "finished":
            self.run.remove_warmups()
            remove_unwanted_checkpoints(self.run)
            self.run.copy_parts()
        # Not before: until all stages have ended the run goes on, and whoever watches it reads that here.
        self._content.status = self._outcome

    def conclude(self) -> SearchResult:
        """Summarise the run, write what was found, and print it.

        This happens before Ray is shut down, which takes a second or two, and while the run is held.
        """
        return conclude_run(self._plan, self.run, self._content, self._console)

    def _show(self, progress: SearchProgress) -> ProgressView:
        """Make the view of a stage, and say in run.json what its trials are, for who watches from another process."""
        from nls_tune.report.console.live import ProgressView

        self._session.stage = RunStage(
            name=progress.stage,
            started_at=datetime.now(UTC),
            trials={name: level.total for name, level in progress.levels.items()},
            epochs=progress.epochs,
            epochs_after=progress.epochs_after,
            time_budget=progress.budget.seconds,
        )
        self._save()
        if heading := _HEADINGS.get(progress.stage):
            self._console.print(heading.format(len(self._plan.confirm_seeds())), highlight=False)
        return ProgressView(progress, self._console)

    def _memory_ran_out(self, before: int, slots: Slots) -> None:
        """Say on the screen and in run.json that fewer trials share a GPU from now on."""
        self._session.slots = RunSlots(**asdict(slots))
        self._session.out_of_memory_with.append(before)
        self._save()
        self._say(f"Memory ran out with {before} trials per GPU: {slots.trials_per_gpu} from now on")

    def _is_interrupted(self) -> bool:
        return self._content.status == "interrupted"

    def _save_seconds(self, seconds: float) -> None:
        self._session.search_seconds = round(seconds, 1)
        self._save()

    def _save(self) -> None:
        self.run.write_json(self._content)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
