"""Searches that are broken in every way that machines and people break them, and the audit of what is left.

Each case runs the real command, breaks something, and gives the same command again until the search has finished. Then
it is audited: the doctor finds nothing wrong with the run; every trial is there once, with all of its epochs; and what
had a row before a fault has the same row after it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from commands import (
    REPOSITORY,
    SEARCH,
    Done,
    Program,
    command_of,
    descendants,
    is_alive,
    is_one_line_error,
    run_search,
    started,
)

from nls_tune import read_trials
from nls_tune.errors import InputError
from nls_tune.runs.audit import audit_run

LEVEL = "symmetric:0.4"
COMMON = (
    "--dataset", "twonorm", "--noise", LEVEL, "--preset", "cpu", "--train-size", "500", "--confirm-seeds", "0",
    "--epochs", "300",
)  # fmt: skip
#: Seconds until a search that must end counts as hanging.
LONGEST = 600.0
MOST_SESSIONS = 60


@dataclass
class Search:
    """One search that is broken again and again: its folder, its command and what was seen.

    Attributes:
        sessions: How often the command was given.
        rows: When each trial that has ended did so, by name.
        problems: What must not be.
        output: What the programs printed.
    """

    folder: Path
    arguments: tuple[str, ...]
    env: dict[str, str | None] = field(default_factory=dict)
    sessions: int = 0
    rows: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    output: str = ""

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @contextmanager
    def session(self) -> Iterator[Program]:
        """Give the command; whatever is left of it at the end is killed."""
        self.sessions += 1
        with started(*SEARCH, *self.arguments, folder=self.folder, env=self.env) as program:
            yield program

    def wait_for(self, condition: Callable[[], object], program: Program, what: str) -> bool:
        """Wait for something while the program runs; return whether it came."""
        deadline = time.monotonic() + LONGEST
        while program.running and time.monotonic() < deadline:
            with suppress(OSError, InputError):
                if condition():
                    return True
            time.sleep(0.05)
        if program.running:
            self.problems.append(f"after {LONGEST:g} s it is still not so that {what}")
        return False

    def trains(self, program: Program, seconds: float = 0.0) -> bool:
        """Wait until trials report epochs in this session, and some seconds longer."""
        begun = time.time()
        parts = lambda: any(part.stat().st_mtime > begun for part in self.run.glob("epochs/[!e]*.parquet"))  # noqa: E731
        found = self.wait_for(parts, program, "trials report epochs")
        deadline = time.monotonic() + seconds
        while found and program.running and time.monotonic() < deadline:
            time.sleep(0.05)
        return found and program.running

    def ended(self, program: Program) -> Done:
        """Wait for the end of a session and compare its rows with those before."""
        try:
            done = program.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self.problems.append(f"it hangs: no end within {LONGEST:g} s")
            program.stop()
            done = Done(-9, program.out, "")
        self.output += done.out + done.err
        if "Traceback" in done.out + done.err:
            self.problems.append("a traceback was printed")
        self.compare()
        return done

    def compare(self) -> None:
        """Note what has ended; a row that was there must be there, and the same."""
        if not (self.run / "trials").is_dir():
            return
        trials = read_trials(self.run)
        now = {row["trial_id"]: row for row in trials.to_dict("records") if row["status"] != "interrupted"}
        for name, row in self.rows.items():
            if name not in now:
                self.problems.append(f"the row of {name} is lost")
            elif now[name]["finished_at"] != row["finished_at"]:
                self.problems.append(f"{name} was trained again")
        self.rows |= now

    def finish(self) -> None:
        """Give the same command again until the search has finished, and audit it."""
        while self.sessions < MOST_SESSIONS:
            with self.session() as program:
                done = self.ended(program)
            if done.code == 0:
                break
            if done.code not in (1, 130):
                self.problems.append(f"it ended with {done.code}: {done.err.strip()[-200:]}")
                return
        self.audit()

    def audit(self) -> None:
        """Check the finished run."""
        checks = list(audit_run(self.run))
        self.problems += [f"{check.name}: {check.found}" for check in checks if check.state != "ok"]
        trials = read_trials(self.run)
        if len(trials) != self.planned:
            self.problems.append(f"{len(trials)} of {self.planned} trials have a row")
        bad = sorted(set(trials["status"]) - {"completed", "stopped", "diverged"})
        if bad:
            self.problems.append(f"trials that a fault has settled: {', '.join(bad)}")
        columns = ["noise_level", "smooth_rate", "warmup_epochs", "lr"]
        configurations = trials[[c for c in trials if c.startswith("config_")] + columns]
        if configurations.astype(str).duplicated().any():
            self.problems.append("two trials of a noise level have one configuration")

    @property
    def planned(self) -> int:
        """The trials of all noise levels."""
        given = dict(pairwise(self.arguments))
        return int(given["--num-trials"]) * len(given["--noise"].split(","))


def processes(program: Program) -> dict[int, str]:
    """Return what a search has started, by number."""
    return {pid: command_of(pid) for pid in descendants(program.process.pid)}


def workers(program: Program) -> list[int]:
    """Return the processes that train."""
    return [pid for pid, command in processes(program).items() if "ray::" in command and "Agent" not in command]


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


# The faults: each ends with a search whose command may be given again.


def interrupted(
    search: Search, rng: random.Random, break_it: Callable[[Program], None], code: int | None = 130
) -> None:
    """Break a session some seconds after its trials have begun, and see how it ends; any exit code is right if None."""
    with search.session() as program:
        if not search.trains(program, rng.uniform(0, 4)):
            search.ended(program)
            return
        children = processes(program)
        break_it(program)
        begun = time.monotonic()
        done = search.ended(program)
        if code is not None and done.code != code and time.monotonic() - begun > 1:
            search.problems.append(f"it ended with {done.code} and not {code}: {(done.err or done.out).strip()[-300:]}")
        deadline = time.monotonic() + 30
        while any(is_alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.1)
        left = sorted({children[pid].split()[0] for pid in children if is_alive(pid)})
        if left:
            search.problems.append(f"processes are left after 30 s: {', '.join(left)}")


def repeated(times: int, break_it: Callable[[Program], None], code: int | None = 130) -> Callable[..., None]:
    def fault(search: Search, rng: random.Random) -> None:
        for _ in range(times):
            interrupted(search, rng, break_it, code)

    return fault


def kill_driver(program: Program) -> None:
    program.process.kill()


def to_driver(number: signal.Signals) -> Callable[[Program], None]:
    return lambda program: send([program.process.pid], number)


def to_all(program: Program) -> None:
    send([*processes(program), program.process.pid], signal.SIGTERM)


def ctrl_c_twice(program: Program) -> None:
    program.press_ctrl_c()
    time.sleep(0.5)
    if program.running:
        program.press_ctrl_c()


def kill_named(name: str) -> Callable[[Program], None]:
    return lambda program: send([p for p, command in processes(program).items() if name in command], signal.SIGKILL)


def killed_workers(search: Search, rng: random.Random) -> None:
    """Kill a worker again and again while one session goes on."""
    with search.session() as program:
        search.trains(program)
        killed = 0
        while program.running and killed < 10:
            if found := workers(program):
                send([rng.choice(found)], signal.SIGKILL)
                killed += 1
            time.sleep(rng.uniform(1, 6))
        if search.ended(program).code != 0:
            search.problems.append("the search did not go on by itself")
        if killed < 10:
            search.problems.append(f"only {killed} workers were killed before the end")


def hung_worker(search: Search, rng: random.Random) -> None:
    """Stop a worker for good; the search ends it after the time that it was given."""
    search.arguments = (*search.arguments, "--trial-timeout", "30s")
    with search.session() as program:
        search.trains(program, rng.uniform(0, 2))
        send(workers(program)[:1], signal.SIGSTOP)
        if search.ended(program).code != 0:
            search.problems.append("the search did not go on by itself")


def removed_folder(search: Search, rng: random.Random) -> None:
    """Remove the run directory: what was in it is lost, and the command starts anew."""
    with search.session() as program:
        search.trains(program, rng.uniform(0, 4))
        shutil.rmtree(search.run, ignore_errors=True)
        done = search.ended(program)
        if done.code == 0 or not (is_one_line_error(done.err) or done.code == 130):
            search.problems.append(f"it ended with {done.code}: {done.err.strip()[-300:]}")
    shutil.rmtree(search.run, ignore_errors=True)
    search.rows.clear()


@contextmanager
def small_disk(search: Search, options: str) -> Iterator[None]:
    search.run.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", search.run], check=True)
    try:
        yield
    finally:
        kept = search.folder / "kept"
        shutil.copytree(search.run, kept)
        subprocess.run(["umount", "-l", search.run], check=True)
        search.run.rmdir()
        kept.rename(search.run)


def on_small_disk(options: str, fill: Callable[[Path], None], free: Callable[[Path], None]) -> Callable[..., None]:
    """Fill the disk of the run while it goes on; once there is room, the same command goes on."""

    def fault(search: Search, rng: random.Random) -> None:
        with small_disk(search, options):
            with search.session() as program:
                search.trains(program, rng.uniform(0, 4))
                fill(search.run)
                done = search.ended(program)
                if done.code != 1 or not is_one_line_error(done.err):
                    search.problems.append(f"it ended with {done.code}: {done.err.strip()[-300:]}")
            free(search.run)

    return fault


def fill_space(run: Path) -> None:
    with suppress(OSError), (run / "filler").open("wb") as file:
        while True:
            file.write(b"0" * 4096)
            file.flush()


def fill_inodes(run: Path) -> None:
    with suppress(OSError):
        for number in range(100_000):
            (run / f"filler-{number}").touch()


def remove_fillers(run: Path) -> None:
    for file in run.glob("filler*"):
        file.unlink()


def make_read_only(run: Path) -> None:
    """Let paths below lead to a read-only view of the same files; what is open stays writable, as a lock is."""
    view = run.parent / "view"
    view.mkdir()
    for arguments in (("--bind", run, view), ("-o", "remount,bind,ro", view), ("--bind", view, run)):
        subprocess.run(["mount", *arguments], check=True)


def make_writable(run: Path) -> None:
    for place in (run, run.parent / "view"):
        subprocess.run(["umount", "-l", place], check=True)


def same_run_twice(search: Search, rng: random.Random) -> None:
    """Give the command a second time while it runs."""
    with search.session() as program:
        search.trains(program)
        second = run_search(*search.arguments, folder=search.folder, env=search.env, seconds=LONGEST)
        if not second.has_failed_in_one_line():
            search.problems.append(f"the second ended with {second.code}: {second.err.strip()[-300:]}")
        search.ended(program)


def without_locks(search: Search, rng: random.Random) -> None:
    """The same on a file system that has no locks."""
    folder = search.folder / "python"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import errno, fcntl\ndef flock(*_):\n    raise OSError(errno.ENOSYS, 'no locks')\nfcntl.flock = flock\n"
    )
    search.env["PYTHONPATH"] = os.pathsep.join([str(folder), str(REPOSITORY)])
    same_run_twice(search, rng)


_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long shift(void) { const char *f = getenv("SHIFT_FILE"); return f && access(f, F_OK) == 0 ? 7200 : 0; }
int clock_gettime(clockid_t id, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int rc = real(id, t);
  if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) t->tv_sec -= shift();
  return rc;
}
int gettimeofday(struct timeval *t, void *z) {
  struct timespec s; clock_gettime(CLOCK_REALTIME, &s); t->tv_sec = s.tv_sec; t->tv_usec = s.tv_nsec / 1000; return 0;
}
time_t time(time_t *t) { struct timespec s; clock_gettime(CLOCK_REALTIME, &s); if (t) *t = s.tv_sec; return s.tv_sec; }
"""


def clock_jumps_back(search: Search, rng: random.Random) -> None:
    """Let the time of day jump back by two hours, for the search and for Ray, while one session goes on."""
    source, library = search.folder / "clock.c", search.folder / "clock.so"
    source.write_text(_CLOCK)
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    jump = search.folder / "jump"
    search.env |= {"LD_PRELOAD": str(library), "SHIFT_FILE": str(jump)}
    with search.session() as program:
        search.trains(program, rng.uniform(0, 2))
        jump.touch()
        if search.ended(program).code != 0:
            search.problems.append("the search did not go on by itself")


def version_before(search: Search, rng: random.Random) -> None:
    """Go on with a run that version 0.1 had begun."""
    shutil.copytree(REPOSITORY / "tests" / "data" / "run_0.1" / "interrupted", search.run)
    search.arguments = (
        "--dataset", "twonorm",
        "--noise", "symmetric:0.2,symmetric:0.4", "--num-trials", "6", "--epochs", "30", "--train-size", "1000",
        "--preset", "cpu", "--confirm-seeds", "0", "--set", "clip_norm=0", "--set", "average_spans=[]", "--out", "run",
    )  # fmt: skip
    search.compare()


CASES: dict[str, tuple[str, Callable[[Search, random.Random], None]]] = {
    "driver-killed": ("`kill -9` of the search, 20 times in one", repeated(20, kill_driver, None)),
    "workers-killed": ("`kill -9` of a worker, 10 times in one session", killed_workers),
    "raylet-killed": ("`kill -9` of Ray's raylet, 3 times", repeated(3, kill_named("raylet/raylet"))),
    "gcs-killed": ("`kill -9` of Ray's GCS, 3 times", repeated(3, kill_named("gcs_server"))),
    "sigterm": ("SIGTERM to the search", repeated(1, to_driver(signal.SIGTERM))),
    "sigterm-all": ("SIGTERM to each of its processes", repeated(1, to_all)),
    "sighup": ("SIGHUP to the search", repeated(1, to_driver(signal.SIGHUP))),
    "ctrl-c": ("Ctrl-C", repeated(1, Program.press_ctrl_c)),
    "ctrl-c-twice": ("Ctrl-C twice", repeated(1, ctrl_c_twice)),
    "worker-hangs": ("SIGSTOP to a worker", hung_worker),
    "disk-full": ("no space in the run directory", on_small_disk("size=6m", fill_space, remove_fillers)),
    "no-inodes": ("no inodes there", on_small_disk("size=64m,nr_inodes=300", fill_inodes, remove_fillers)),
    "read-only": ("the run directory becomes read-only", on_small_disk("size=64m", make_read_only, make_writable)),
    "folder-removed": ("the run directory is removed", removed_folder),
    "clock": ("the time of day jumps back by 2 hours", clock_jumps_back),
    "twice": ("the same command a second time", same_run_twice),
    "twice-without-locks": ("the same where files have no locks", without_locks),
    "version-0.1": ("a run that version 0.1 began", version_before),
}  # fmt: skip
