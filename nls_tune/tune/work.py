"""The tools that search and confirmation of one session share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import SearchPlan
from nls_tune.report.console.live import ProgressView
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.progress import SearchProgress
from nls_tune.runs.storage.mirror import Mirror
from nls_tune.runs.storage.store import Store
from nls_tune.tune.lost import LostTrials
from nls_tune.tune.packing import Packing
from nls_tune.tune.tracker import Tracker


@dataclass(frozen=True, kw_only=True)
class Work:
    """The plan, data, folders and followers that search and confirmation of one session share.

    ``make_view`` makes the view of a stage's progress; ``trackers`` follow the trials besides the run directory.
    ``lost`` knows the trials whose process was lost. The ``mirror`` uploads the run directory to the ``store``.
    """

    plan: SearchPlan
    data: LevelData
    run: RunDirectory
    run_id: str
    packing: Packing
    make_view: Callable[[SearchProgress], ProgressView]
    trackers: Sequence[Tracker] = ()
    store: Store | None = None
    mirror: Mirror | None = None
    lost: LostTrials = field(default_factory=LostTrials)
