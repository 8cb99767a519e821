"""Measures what safety costs in the default run: states of trials, checksums, whole and flushed files, watching.

Run ``python benchmarks/safety_cost.py`` in the repository; it takes as long as the default search does without its
confirmation. Every process of the search notes the processor time that it spends in these functions, and in all. Time
that a file takes to reach the disk is added as if a processor were busy meanwhile. The rows of results are among these
files: they would be written without any care for safety as well, so that the share is rather too large.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nls_tune.machine.provenance import provenance

ROOT = Path(__file__).parents[1]
#: Python runs this in every process of the search.
_METER = """
import functools, importlib.machinery, json, os, pathlib, sys, threading, time
PLACES = {
    "nls_tune.files": {"write_atomically": "files", "seal": "checksums", "seal_holds": "checksums"},
    "nls_tune.runs.checkpoint": {"TrialCheckpoint.save": "states", "TrialCheckpoint.start": "states",
                                 "TrialCheckpoint.load": "states", "sealed_state": "states"},
    "nls_tune.tune.attendant": {"Attendant.on_step_end": "watching", "Attendant.on_trial_result": "watching"},
}
spent, flushed, inside, lock = {}, [0.0], threading.local(), threading.Lock()
report = pathlib.Path(os.environ["SAFETY_METER"]) / f"{os.getpid()}-{time.time_ns()}.json"
fsync = os.fsync
def timed_fsync(file):
    begun = time.perf_counter()
    fsync(file)
    flushed[0] += time.perf_counter() - begun
os.fsync = timed_fsync
def metered(function, kind):
    @functools.wraps(function)
    def call(*arguments, **options):
        if getattr(inside, "it", False):
            return function(*arguments, **options)
        inside.it, begun = True, time.thread_time()
        try:
            return function(*arguments, **options)
        finally:
            inside.it = False
            with lock:
                spent[kind] = spent.get(kind, 0.0) + time.thread_time() - begun
                report.write_text(json.dumps({"all": time.process_time(), "flush": flushed[0], **spent}))
    return call
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name not in PLACES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            for place, kind in PLACES[name].items():
                owner, _, last = place.rpartition(".")
                holder = getattr(module, owner) if owner else module
                setattr(holder, last, metered(getattr(holder, last), kind))
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Finder())
"""
KINDS = {
    "states": "states of trials, saved and loaded",
    "files": "files written whole",
    "flush": "waiting for the disk",
    "checksums": "checksums compared on reading",
    "watching": "watching for trials that hang",
}


def measure(arguments: list[str]) -> dict[str, Any]:
    """Run the search and return processor seconds by kind, and of all processes of the package."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(_METER)
        (folder / "readings").mkdir()
        paths = os.pathsep.join([str(folder), str(ROOT)])
        subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "nls_tune.search", *arguments, "--out", str(folder / "run")],
            env={**os.environ, "PYTHONPATH": paths, "SAFETY_METER": str(folder / "readings")},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        total: Counter[str] = Counter()
        for file in (folder / "readings").iterdir():
            total.update(json.loads(file.read_text()))
    return {"seconds": {kind: round(total[kind], 3) for kind in KINDS}, "all_seconds": round(total["all"], 1)}


def readme_table(found: dict[str, Any]) -> list[str]:
    """Return the seconds and shares in Markdown."""
    lines = ["| what | seconds | share of the run |", "|---|---|---|"]
    for kind, what in KINDS.items():
        lines.append(f"| {what} | {found['seconds'][kind]:.2f} | {found['seconds'][kind] / found['all_seconds']:.2%} |")
    total = sum(found["seconds"].values())
    return [*lines, f"| together | {total:.2f} of {found['all_seconds']:.0f} | {total / found['all_seconds']:.2%} |"]


def main() -> int:
    """Run the search, print the shares and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "safety_cost.json")
    out = parser.parse_args().out
    found = {
        "what": "processor time of the default search that safety takes",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "safety_cost.py",
        **{key: value for key, value in provenance().items() if key in ("versions", "hardware")},
        **measure(["--confirm-seeds", "0"]),
    }
    out.write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write("\n".join([*readme_table(found), ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
