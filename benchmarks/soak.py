"""Runs one search of 500 short trials in which something is broken every few seconds, and counts what is wrong then.

Run ``python benchmarks/soak.py`` in the repository; it takes about half an hour of two cores. Workers are killed or
stopped for a while, Ray's own processes and the search are killed or told to end. Whenever the search has ended the
same command is given again, until it finishes. Memory and open files of the search are read every second.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from commands import Program
from fault_cases import COMMON, Search, kill_driver, kill_named, send, to_all, to_driver, workers

from nls_tune.machine.provenance import provenance

#: How often each fault is taken, in parts.
FAULTS = {
    "worker killed": 10,
    "worker stopped for 5 s": 4,
    "raylet killed": 1,
    "GCS killed": 1,
    "search killed": 1,
    "Ctrl-C": 1,
    "SIGTERM": 1,
    "SIGTERM to all": 1,
}
MOST_SESSIONS = 200


def break_something(name: str, program: Program, rng: random.Random) -> None:
    """Break one thing of a running search."""
    training = workers(program)
    if name.startswith("worker"):
        chosen = [rng.choice(training)] if training else []
        send(chosen, signal.SIGKILL if name == "worker killed" else signal.SIGSTOP)
        if name != "worker killed":
            time.sleep(5)
            send(chosen, signal.SIGCONT)
        return
    {
        "raylet killed": kill_named("raylet/raylet"),
        "GCS killed": kill_named("gcs_server"),
        "search killed": kill_driver,
        "Ctrl-C": Program.press_ctrl_c,
        "SIGTERM": to_driver(signal.SIGTERM),
        "SIGTERM to all": to_all,
    }[name](program)


def watch(program: Program, readings: list[tuple[float, int]]) -> None:
    """Note the memory (MB) and the open files of a search every second while it lasts."""
    place = Path(f"/proc/{program.process.pid}")
    while program.running:
        with suppress(OSError, StopIteration, IndexError):
            lines = (place / "status").read_text().splitlines()
            memory = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
            readings.append((memory, len(list((place / "fd").iterdir()))))
        time.sleep(1)


def growth(readings: list[tuple[float, int]]) -> dict[str, float]:
    """Return the median memory and open files of the second and of the last fifth of a session."""
    fifth = len(readings) // 5
    early, late = readings[fifth : 2 * fifth], readings[-fifth:]
    return {
        "seconds": len(readings),
        "memory_mb_early": round(statistics.median(m for m, _ in early), 1),
        "memory_mb_late": round(statistics.median(m for m, _ in late), 1),
        "files_early": statistics.median(f for _, f in early),
        "files_late": statistics.median(f for _, f in late),
    }


def soak(trials: int, seed: int) -> dict[str, Any]:
    """Run the search to its end under faults and return what it showed."""
    folder, rng = Path(tempfile.mkdtemp(prefix="soak-")), random.Random(seed)
    arguments = list(COMMON)
    arguments[arguments.index("--epochs") + 1] = "40"
    search = Search(folder, (*arguments, "--num-trials", str(trials), "--out", "run"))
    faults: Counter[str] = Counter()
    longest: list[tuple[float, int]] = []
    begun, code = time.monotonic(), None
    while code != 0 and search.sessions < MOST_SESSIONS:
        with search.session() as program:
            readings: list[tuple[float, int]] = []
            threading.Thread(target=watch, args=(program, readings), daemon=True).start()
            search.trains(program)
            while program.running and search.trains(program, rng.uniform(2, 15)):
                name = rng.choices(list(FAULTS), list(FAULTS.values()))[0]
                break_something(name, program, rng)
                faults[name] += 1
            code = search.ended(program).code
            longest = max(longest, readings, key=len)
            sys.stdout.write(f"{time.monotonic() - begun:.0f} s: {len(search.rows)} trials, {faults.total()} faults\n")
            sys.stdout.flush()
    search.audit()
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "trials": len(search.rows),
        "sessions": search.sessions,
        "seconds": round(time.monotonic() - begun),
        "faults": dict(faults),
        "longest_session": growth(longest),
        "problems": search.problems,
    }


def readme_table(found: dict[str, Any]) -> list[str]:
    """Return the counts in Markdown."""
    memory = found["longest_session"]
    rows = {
        "trials": found["trials"],
        "sessions until it had finished": found["sessions"],
        **{name: found["faults"].get(name, 0) for name in FAULTS},
        "wrong afterwards": "; ".join(found["problems"]) or "nothing",
        "longest session": f"{memory['seconds']} s",
        "memory of the search there, early and late": f"{memory['memory_mb_early']}, {memory['memory_mb_late']} MB",
        "its open files, early and late": f"{memory['files_early']:g}, {memory['files_late']:g}",
    }
    return ["| what | number |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def main() -> int:
    """Run the search and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=500, help="trials of the search (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="decides what is broken when (default: 0)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "soak.json")
    arguments = parser.parse_args()
    found = {
        "what": "a search in which something was broken every few seconds",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "soak.py",
        **{key: value for key, value in provenance().items() if key in ("versions", "hardware")},
        **soak(arguments.trials, arguments.seed),
    }
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write("\n".join([*readme_table(found), ""]))
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
