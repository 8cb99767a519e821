"""Measures how time and memory grow with trials, levels and rows, and fits the exponents.

Run ``python benchmarks/scale.py`` in the repository on an idle machine; it takes about 5 minutes on 2 cores, and the
10 million rows want 8 GB of memory (``--rows`` with smaller numbers leaves them out).

An exponent is the slope of a straight line through (log size, log seconds) by least squares: 1 is linear. Where a part
of the time does not grow at all, the slope is too small to show what does; the exponent between the two
largest sizes is therefore given too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nls_tune.machine.provenance import provenance
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_epochs, read_trials
from nls_tune.runs.schemas import epoch_schema

GOALS = {"exponent": 1.1, "driver_megabytes_at_1000_trials": 1000, "seconds_at_1000_trials": 240}
#: Trials that take some hundredths of a second, so that what is measured is what surrounds them.
SHORT = (
    "--epochs", "2", "--train-size", "200", "--set", "batch_size=100", "--set", "warmup_epochs.high=1",
    "--confirm-seeds", "0",
)  # fmt: skip
ROWS_A_PART = 1_000


def exponents(sizes: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """Return the exponents of a power law: by least squares over all sizes, and between the two largest."""
    x, y = np.log(sizes), np.log(values)
    slope, intercept = np.polyfit(x, y, 1)
    return {
        "exponent": float(slope),
        "factor": float(math.exp(intercept)),
        "exponent_at_the_end": float((y[-1] - y[-2]) / (x[-1] - x[-2])),
    }


def peak_of(command: Sequence[str]) -> tuple[float, float]:
    """Run a command to its end; returns its seconds and the peak of its own resident memory in MB."""
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 (our own program)
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            peak = max(peak, int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]))  # in KiB, never falls
        except (OSError, IndexError, ValueError):
            pass  # it has just ended
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - start, peak * 1024 / 1e6


def search(levels: int, trials_a_level: int) -> dict[str, float]:
    """Run a search of short trials, then the same command again, which only reads and prints."""
    noise = ",".join(f"symmetric:{0.04 * k:.2f}" for k in range(1, levels + 1))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [
            sys.executable, "-m", "nls_tune.search", "--noise", noise, "--num-trials", str(trials_a_level), *SHORT,
            "--out", str(out),
        ]  # fmt: skip
        seconds, megabytes = peak_of(command)
        again, _ = peak_of(command)
        trials = read_trials(out)
    return {
        "levels": levels,
        "trials": len(trials),
        "seconds": seconds,
        # From the first start to the last end: without what it takes to start Ray and to conclude.
        "trials_seconds": (trials["finished_at"].max() - trials["started_at"].min()).total_seconds(),
        "again_seconds": again,
        "driver_megabytes": megabytes,
    }


def write_rows(folder: Path, rows: int) -> None:
    """Write the epochs of a run that never was: parts of 1,000 rows, one a trial."""
    run, rng = RunDirectory(folder), np.random.default_rng(0)
    run.create()
    schema, part = epoch_schema(), min(rows, ROWS_A_PART)
    texts = {"device": "AMD EPYC 9B14 96-Core Processor", "node": "node-1", "phase": "gls", "arm": "negative"}
    columns: dict[str, Any] = {}
    for field in schema:
        if pa.types.is_string(field.type):
            columns[field.name] = [texts.get(field.name, "symmetric:0.4")] * part
        elif pa.types.is_boolean(field.type):
            columns[field.name] = np.zeros(part, bool)
        elif pa.types.is_integer(field.type):
            columns[field.name] = np.arange(1, part + 1)
        else:
            columns[field.name] = rng.random(part)
    for number in range(rows // part):
        name = f"{number:016x}"
        table = pa.table({**columns, "trial_id": [name] * part}, schema=schema)
        pq.write_table(table, run.epochs / f"{name}.parquet")


def read_rows(rows: int) -> dict[str, float]:
    """Read so many rows in a process of their own, for its peak of memory."""
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder), rows)
        command = [sys.executable, str(Path(__file__)), "--read", folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 (this file)
    return {"rows": rows, **json.loads(done.stdout)}


def _read(folder: str) -> None:
    """What that process does."""
    start = time.perf_counter()
    frame = read_epochs(folder)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"read": len(frame), "read_seconds": seconds, "peak_megabytes": peak}))


def readme_table(evidence: dict[str, Any]) -> list[str]:
    """Return the table of README, from the evidence."""
    lines = ["| | largest | seconds | peak memory | exponent |", "|---|---|---|---|---|"]
    for name, size, seconds, memory in (
        ("trials", "trials", "trials_seconds", "driver_megabytes"),
        ("levels", "levels", "trials_seconds", "driver_megabytes"),
        ("rows", "rows", "read_seconds", "peak_megabytes"),
    ):
        part = evidence[name]
        last, fit = part["measured"][-1], part["fit"]
        what = {"trials": "trials of a level", "levels": "levels", "rows": "rows of epochs, read"}[name]
        lines.append(
            f"| {what} | {last[size]:,} | {last[seconds]:.1f} | {last[memory]:,.0f} MB "
            f"| {fit['exponent']:.2f} ({fit['exponent_at_the_end']:.2f} at the end) |"
        )
    return lines


def measure(
    trials: Sequence[int], levels: Sequence[int], trials_a_level: int, rows: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Measure all sizes, smallest first, and fit."""
    found: dict[str, dict[str, Any]] = {"trials": {}, "levels": {}, "rows": {}}
    found["trials"]["measured"] = [_said(search(1, size)) for size in sorted(trials)]
    found["levels"]["measured"] = [_said(search(size, trials_a_level)) for size in sorted(levels)]
    found["rows"]["measured"] = [_said(read_rows(size)) for size in sorted(rows)]
    for name, seconds in (("trials", "trials_seconds"), ("levels", "trials_seconds"), ("rows", "read_seconds")):
        measured = found[name]["measured"]
        found[name]["fit"] = exponents([row[name] for row in measured], [row[seconds] for row in measured])
    return found


def _said(row: dict[str, float]) -> dict[str, float]:
    print(json.dumps({k: round(v, 2) for k, v in row.items()}), flush=True)
    return row


def main() -> None:
    """Measure, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 300, 1_000], help="of one level")
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--trials-a-level", type=int, default=20, help="where the levels are what grows")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "scale.json")
    parser.add_argument("--read", metavar="RUN", help="read the epochs of a run and say what that took; nothing else")
    options = parser.parse_args()
    if options.read:
        _read(options.read)
        return
    if min(len(options.trials), len(options.levels), len(options.rows)) < 2:
        parser.error("a fit needs two sizes of each kind or more")
    evidence = {
        "what": "seconds and peak memory against trials, levels and rows, with exponents",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "slots": len(os.sched_getaffinity(0)),
        "goals": GOALS,
        **measure(options.trials, options.levels, options.trials_a_level, options.rows),
    }
    options.out.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")
    print("\n".join(readme_table(evidence)))


if __name__ == "__main__":
    main()
