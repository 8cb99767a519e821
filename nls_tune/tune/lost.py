"""Trials that lost the process that trained them: they run again, and are never settled by it.

Only an error that the training itself raised is a failure of the trial. Whatever else ends its process (Ray's memory
monitor, the system, a node that is gone, a worker that never started, a hung one that was ended) says nothing of the
trial: it goes on from its last checkpoint. One that is lost again and again is set aside, without a result, for the
next session.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from nls_tune.machine.limits import memory, oom_kills

#: How often in a row a session starts a lost trial again.
MOST_LOSSES = 6
#: So many trials set aside in a row, without a report of any trial between: nothing works here any more.
_HOPELESS = 3
#: A trial that ran for so many seconds before its process was lost is not lost in a row.
_LONG = 600.0
_LONGEST_WAIT = 60.0
#: The head of the traceback that Ray makes of an error raised in a worker.
_RAISED_THERE = re.compile(r"ray::[^\n]*\(pid=\d+")
#: Both ways in which Ray says that its memory monitor has ended a process.
_MEMORY = re.compile(r"running low on memory|memory usage threshold|due to the node running out of memory", re.I)
_USED = re.compile(r"([\d.]+)\s*GB(?: used)?\s*/\s*([\d.]+)\s*GB")
_ERROR_LINE = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit|Warning)(?::|$)")
_COLOUR = re.compile(r"\x1b\[\d*m")


@dataclass(frozen=True)
class Loss:
    """Why a process was lost, in a line; ``is_memory``: the memory of its machine ran short."""

    reason: str
    is_memory: bool = False


def exception_line(text: str) -> str:
    """Return the line of a traceback that begins with the exception's type, not the advice that may follow it."""
    lines = [line.rstrip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Failure # ")]  # which Tune writes above each
    if named := [line for line in lines if _ERROR_LINE.match(line)]:
        return named[-1]
    frames = [i for i, line in enumerate(lines) if line.lstrip().startswith('File "')]
    after = [line for line in lines[frames[-1] + 1 if frames else 0 :] if not line[0].isspace()]
    return (after or [line.strip() for line in lines] or ["unknown error"])[0]


def find_loss(text: str) -> Loss | None:
    """Return what the error of a trial says of its process; None if the training itself raised it.

    ``text`` is what Ray Tune writes of the error: with the traceback of the worker where one was raised there.
    """
    if _MEMORY.search(text):
        return Loss(_memory_reason(text), is_memory=True)
    if _RAISED_THERE.search(_COLOUR.sub("", text)) and not exception_line(text).startswith("ray.exceptions."):
        return None
    for sign, reason in _REASONS.items():
        if sign in text:
            return Loss(reason)
    return Loss(_first_words(text))


#: What Ray's texts hold, and what it means; the first that fits.
_REASONS = {
    "never ran": "its process was cancelled before it started",
    "node died": "its node is gone",
    "node was": "its node is gone",
    "connection error code 2": "its process was ended from outside, or crashed",
    "SYSTEM_ERROR": "its process was ended from outside, or crashed",
    "died unexpectedly": "its process ended unexpectedly",
}


def _memory_reason(text: str) -> str:
    found = _USED.search(text)
    used = f"{float(found[1]):.1f} of {float(found[2]):.1f} GB" if found else str(memory() or "nearly all")
    return f"the machine's memory ran short ({used} used, by all its programs)"


def _first_words(text: str) -> str:
    line = " ".join(exception_line(text).split())
    return line if len(line) <= 160 else f"{line[:160]}..."


@dataclass
class _Count:
    """How often a trial was lost in a row, since when it runs, and before when it shall not run again."""

    losses: int = 0
    started_at: float = 0.0
    wait_until: float = 0.0


@dataclass
class LostTrials:
    """The losses of a session, by the name that Tune gives to a trial.

    Attributes:
        at_once: How many trials may run at once since memory ran short; None while it has not.
        set_aside: The trials that were lost too often, with the last reason of each.
        epochs: How many epochs were trained a second time, because no saved state had them.
        seconds: What these had taken the first time.
    """

    at_once: int | None = None
    set_aside: dict[str, Loss] = field(default_factory=dict)
    epochs: int = 0
    seconds: float = 0.0
    _losses: dict[str, Loss] = field(default_factory=dict)
    _hung: dict[str, Loss] = field(default_factory=dict)
    _counts: dict[str, _Count] = field(default_factory=dict)
    _in_a_row: int = 0
    _oom_kills: int = field(default_factory=oom_kills)

    def started(self, name: str, before: str | None = None) -> None:
        """Note that a trial starts; ``before`` is the name that it had when it was lost."""
        count = _Count() if before is None else self._counts.pop(before)
        count.started_at = time.monotonic()
        self._counts[name] = count

    def reported(self) -> None:
        """Note that some trial has reported: there is still something that works."""
        self._in_a_row = 0

    def trained_again(self, seconds: Sequence[float]) -> None:
        """Note epochs that a trial had trained before it was lost, by the time that they had taken."""
        self.epochs += len(seconds)
        self.seconds += sum(seconds)

    def hung(self, name: str, reason: str) -> None:
        """Note that a trial's process is being ended here, and why: whatever its error will say, it is lost."""
        self._hung[name] = Loss(reason)

    def judge(self, name: str, text: str, running: int) -> Loss | None:
        """Take the error of a trial; return the loss of its process, None if the training failed.

        ``running`` trials ran at the time, this one included. If memory ran short, fewer may run from now on.
        """
        loss = self._hung.get(name) or find_loss(text)
        if loss is None:
            return None
        # Of the kernel's kills Ray only says that the process is gone. A limit of Slurm's is unknown to its monitor.
        before, self._oom_kills = self._oom_kills, oom_kills()
        if self._oom_kills > before and not loss.is_memory and name not in self._hung:
            loss = Loss("memory ran short, and the system ended its process", is_memory=True)
        now, count = time.monotonic(), self._counts.setdefault(name, _Count(started_at=time.monotonic()))
        count.losses = 1 if now - count.started_at > _LONG else count.losses + 1
        count.wait_until = now + (min(_LONGEST_WAIT, 2.0**count.losses) if count.losses > 1 else 0.0)
        if loss.is_memory:
            self.at_once = max(1, min(running, self.at_once or running) - 1)
        self._losses[name] = loss
        if count.losses >= MOST_LOSSES:
            self.set_aside[name] = loss
            self._in_a_row += 1
        return loss

    def loss_of(self, name: str) -> Loss | None:
        """Return why a trial lost its process; None if it did not."""
        return self._losses.get(name)

    def is_set_aside(self, name: str) -> bool:
        """Whether a lost trial does not run again in this session."""
        return name in self.set_aside

    def is_ready(self, name: str) -> bool:
        """Whether a lost trial may start again now: each further time it waits longer."""
        return time.monotonic() >= self._counts[name].wait_until

    @property
    def is_hopeless(self) -> bool:
        """Whether trials are lost one after the other and none gets anywhere."""
        return self._in_a_row >= _HOPELESS

    def complaint(self) -> str:
        """Return the message that ends a session whose trials were set aside."""
        count, last = len(self.set_aside), list(self.set_aside.values())[-1]
        trials = f"{count} trial{'s' if count > 1 else ''}"
        way_out = "give it room, or --max-concurrent 1" if last.is_memory else "mend the cause"
        return (
            f"{trials} lost the training process {MOST_LOSSES} times in a row, last because {last.reason}; no result "
            f"was settled by this: {way_out}, and the same command runs them again"
        )
