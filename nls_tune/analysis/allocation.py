"""Which trial held which slot when, and what ASHA and shared warm-ups saved."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from nls_tune.runs.run_json import RunSession
from nls_tune.spaces.settings import Arm, ordered_arms

if TYPE_CHECKING:
    import pandas as pd

#: In the order in which a run has them.
_STAGES = ("search", "confirm", "confirm_all", "sweep_search", "sweep")


@dataclass(frozen=True)
class TrialSpan:
    """One trial in time; two trials of one slot do not overlap.

    Seconds leave out the pauses between sessions; ``start_seconds`` count from the start of the run's first trial.
    ``seconds`` are 0 where the clock was set back. ``epochs`` include reused ones.
    """

    trial_id: str
    stage: str
    noise_level: str
    arm: Arm
    smooth_rate: float
    status: str
    node: str
    device: str
    slot: int
    start_seconds: float
    seconds: float
    epochs: int
    epochs_reused: int


@dataclass(frozen=True)
class GroupCost:
    """What one group (noise level, arm) cost in one stage.

    Reused epochs come from shared warm-ups and are not among the trained ones. Saved epochs were not trained because
    ASHA, or the end of the time budget, stopped the trial.
    """

    stage: str
    noise_level: str
    arm: Arm
    num_trials: int
    epochs_trained: int
    epochs_reused: int
    epochs_saved: int
    train_seconds: float


@dataclass(frozen=True)
class Allocation:
    """Where the time of a run went.

    ``wall_seconds`` run from the first start to the last end, without ``paused_seconds``, in which no process worked on
    the run. ``busy_share`` is the time of the trials over slots times wall time. Spans stand in the order of their
    starts, groups in the order of levels, stages and arms.
    """

    started_at: datetime
    wall_seconds: float
    num_slots: int
    busy_share: float
    spans: tuple[TrialSpan, ...]
    groups: tuple[GroupCost, ...]
    paused_seconds: float = 0.0


def allocation(
    trials: pd.DataFrame, levels: Sequence[str] = (), sessions: Sequence[RunSession] = ()
) -> Allocation | None:
    """Return where the time of a run went; None without a trial.

    Rows of early versions know no slots, only node and device. If there is one of these, slots are found by colouring
    the intervals of each device greedily in the order of their starts, which needs as few slots as any assignment.

    A session that was killed did not say when it ended; the last end of its trials stands for that, or its start where
    none has ended. Time that an interrupted trial had in an earlier session is in none of its rows, and counts as idle.

    ``trials`` are rows of all stages; without the sessions of run.json nothing is known of pauses.
    """
    timed = trials[trials["started_at"].notna() & trials["finished_at"].notna()]
    if timed.empty:
        return None
    timed = timed.sort_values(["started_at", "trial_id"], kind="stable")
    begin = timed["started_at"].iloc[0]
    starts = (timed["started_at"] - begin).dt.total_seconds().to_numpy(float)
    ends = np.maximum(starts, (timed["finished_at"] - begin).dt.total_seconds().to_numpy(float))
    pauses = _pauses(begin.to_pydatetime(), ends, sessions)
    last = float(ends.max())
    starts, ends = _without(pauses, starts), _without(pauses, ends)
    if timed["slot"].notna().all():
        slots = timed["slot"].astype(int).tolist()
    else:
        slots = _colour(list(zip(timed["node"], timed["device"], strict=True)), starts, ends)
    num_slots, wall = max(slots) + 1, float(ends.max())
    busy = float((ends - starts).sum())
    placed = timed.assign(slot=slots, start_seconds=starts, seconds=ends - starts)
    return Allocation(
        started_at=begin.to_pydatetime(),
        wall_seconds=wall,
        num_slots=num_slots,
        busy_share=busy / (num_slots * wall) if wall > 0 else 0.0,
        spans=tuple(TrialSpan(*row) for row in _rows_for(TrialSpan, placed)),
        groups=_groups(timed, levels),
        paused_seconds=last - wall,
    )


def _pauses(begin: datetime, ends: np.ndarray, sessions: Sequence[RunSession]) -> list[tuple[float, float]]:
    """Return the pauses between sessions: their ends in seconds from the first start, ascending."""
    known = [(session.started_at, session.finished_at) for session in sessions]
    times = sorted(((began, ended) for began, ended in known if began is not None), key=lambda both: both[0])
    found = []
    stopped: float | None = None
    for began, ended in times:
        resumed = (began - begin).total_seconds()
        if stopped is not None:
            stopped = max(stopped, float(ends[ends < resumed].max(initial=0.0)))
            if stopped < resumed:
                found.append((stopped, resumed))
        # Never before its own start, so that pauses do not overlap.
        stopped = max(stopped or 0.0, resumed, ((ended or began) - begin).total_seconds())
    return found


def _without(pauses: Sequence[tuple[float, float]], times: np.ndarray) -> np.ndarray:
    """Return times on a clock that stands still in the pauses."""
    return times - sum(np.clip(times - stopped, 0.0, resumed - stopped) for stopped, resumed in pauses)


def _colour(devices: Sequence[tuple[str, str]], starts: np.ndarray, ends: np.ndarray) -> list[int]:
    """Return the slot of each interval, in the order of the starts; slots are numbered as they are first needed."""
    free: dict[tuple[str, str], list[tuple[float, int]]] = {}
    found: list[int] = []
    num_slots = 0
    for device, start, end in zip(devices, starts.tolist(), ends.tolist(), strict=True):
        slots = free.setdefault(device, [])
        if slots and slots[0][0] <= start:
            slot = heapq.heappop(slots)[1]
        else:
            slot, num_slots = num_slots, num_slots + 1
        heapq.heappush(slots, (end, slot))
        found.append(slot)
    return found


def _groups(trials: pd.DataFrame, levels: Sequence[str]) -> tuple[GroupCost, ...]:
    left = (trials["config_epochs"] - trials["epochs"]).clip(lower=0).where(trials["status"] == "stopped", 0)
    trained = trials["epochs"] - trials["epochs_reused"]
    table = trials.assign(epochs_saved=left, epochs_trained=trained, num_trials=1)
    sums = table.groupby(["noise_level", "stage", "arm"], sort=False).sum(numeric_only=True).reset_index()
    known = list(dict.fromkeys([*levels, *trials["noise_level"]]))
    arms = ordered_arms(trials["arm"])

    def place(group: GroupCost) -> tuple[int, ...]:
        return known.index(group.noise_level), _STAGES.index(group.stage), arms.index(group.arm)

    return tuple(sorted((GroupCost(*row) for row in _rows_for(GroupCost, sums)), key=place))


def _rows_for(kind: type[TrialSpan | GroupCost], table: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """Yield the columns named as the fields of a dataclass, row by row."""
    # By way of NumPy: pandas makes a list of strings one by one.
    return zip(*(table[field.name].to_numpy().tolist() for field in fields(kind)), strict=True)
