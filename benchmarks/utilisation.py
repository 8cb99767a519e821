"""Measures how much of the slots' time is training, and whether long runs slow down or grow.

Run ``python benchmarks/utilisation.py`` in the repository on an idle machine. Everything is read from the Parquet that
the searches write:

* two noise levels of unequal cost in one search, and one level after another;
* 300 short trials in one search: time between trials and memory of the driver, first against last 100.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nls_tune.machine.provenance import provenance
from nls_tune.runs.reading import read_trials

HEAVY, LIGHT = "symmetric:0.4", "symmetric:0.2"
#: The heavy level has three times the trials of the light one.
TRIALS = {HEAVY: 9, LIGHT: 3}


def search(out: Path, *arguments: str) -> dict[str, Any]:
    """Run a search and watch the memory of its driver.

    Returns:
        Seconds it took, and (seconds, trials ended, resident bytes) once a second.
    """
    command = [sys.executable, "-m", "nls_tune.search", *arguments, "--confirm-seeds", "0", "--out", str(out)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 (our own program)
    samples: list[tuple[float, int, int]] = []

    def watch() -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while process.poll() is None:
            try:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
                ended = len(list((out / "trials").glob("[!.e]*.parquet")))
                samples.append((time.perf_counter() - start, ended, pages * page))
            except (OSError, IndexError, ValueError):
                pass
            time.sleep(1)

    thread = threading.Thread(target=watch)
    thread.start()
    process.wait()
    thread.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return {"seconds": time.perf_counter() - start, "samples": samples}


def utilisation(trials: pd.DataFrame, slots: int) -> float:
    """Return training seconds over slot seconds, from the first to the last start of a trial.

    A trial that is still running when the last one starts counts with its part before that.
    """
    begin, end = trials["started_at"].min(), trials["started_at"].max()
    wall = (trials["finished_at"] - trials["started_at"]).dt.total_seconds()
    before = (trials["finished_at"].clip(upper=end) - trials["started_at"]).dt.total_seconds().clip(lower=0)
    trained = trials["train_seconds"] * (before / wall)
    return float(trained.sum() / (slots * (end - begin).total_seconds()))


def unequal_levels(folder: Path, epochs: int, slots: int) -> dict[str, Any]:
    """Run two levels at once, and one after another."""
    common = ("--epochs", str(epochs), "--scheduler", "none", "--warmup-store", "none", "--set", "smooth_rate.low=-1")
    weight = TRIALS[HEAVY] / TRIALS[LIGHT]
    together = search(
        folder / "together", "--noise", f"{HEAVY},{LIGHT}", "--num-trials", str(TRIALS[LIGHT]),
        "--level-weight", f"{HEAVY}={weight:g}", *common,
    )  # fmt: skip
    trials = read_trials(folder / "together")
    alone, rows = 0.0, []
    for level, count in TRIALS.items():
        out = folder / level.replace(":", "-")
        alone += search(out, "--noise", level, "--num-trials", str(count), *common)["seconds"]
        rows.append(read_trials(out))
    # The same measure: slot seconds from the first to the last start, of each level on its own, and the tail between.
    span = sum((r["finished_at"].max() - r["started_at"].min()).total_seconds() for r in rows[:-1])
    span += (rows[-1]["started_at"].max() - rows[-1]["started_at"].min()).total_seconds()
    trained = sum(float(r["train_seconds"].sum()) for r in rows[:-1])
    last = rows[-1]
    trained += utilisation(last, slots) * slots * (last["started_at"].max() - last["started_at"].min()).total_seconds()
    return {
        "trials": TRIALS,
        "median_trial_seconds": float(trials["train_seconds"].median()),
        "together": {"utilisation": utilisation(trials, slots), "seconds": together["seconds"]},
        "one_after_another": {"utilisation": trained / (slots * span), "seconds": alone},
    }


def many_trials(folder: Path, num_trials: int, slots: int) -> dict[str, Any]:
    """Run many short trials in one search."""
    levels = 5
    watched = search(
        folder / "many", "--num-trials", str(num_trials // levels), "--epochs", "4", "--train-size", "500",
        "--set", "batch_size=100",
    )  # fmt: skip
    trials = read_trials(folder / "many").sort_values("finished_at")
    ends = trials["finished_at"]
    part = num_trials // 3
    spans = [(ends.iloc[k + part - 1] - ends.iloc[k]).total_seconds() / (part - 1) for k in (0, len(ends) - part)]
    trained = [trials["train_seconds"].iloc[k : k + part].mean() for k in (0, len(ends) - part)]
    memory = {
        name: float(np.median([b for _, ended, b in watched["samples"] if low <= ended < high]) / 1e6)
        for name, low, high in (("first", part // 5, part), ("last", len(trials) - part, len(trials)))
    }
    return {
        "trials": len(trials),
        "seconds": watched["seconds"],
        "seconds_between_ends": {"first": spans[0], "last": spans[1]},
        "train_seconds": {"first": trained[0], "last": trained[1]},
        "overhead_seconds": {k: slots * spans[i] - trained[i] for i, k in enumerate(("first", "last"))},
        "driver_megabytes": memory,
    }


def main() -> None:
    """Measure, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300, help="of the unequal levels: trials of about 10 s")
    parser.add_argument("--trials", type=int, default=300, help="short trials in one search")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "utilisation.json")
    options = parser.parse_args()
    slots = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        levels = unequal_levels(Path(folder), options.epochs, slots)
        many = many_trials(Path(folder), options.trials, slots)
    print(f"{HEAVY}: {TRIALS[HEAVY]} trials, {LIGHT}: {TRIALS[LIGHT]} trials, {slots} slots, "
          f"trials of {levels['median_trial_seconds']:.1f} s")  # fmt: skip
    for name in ("together", "one_after_another"):
        found = levels[name]
        print(
            f"  {name.replace('_', ' '):18} training / slot seconds {found['utilisation']:.3f}, "
            f"{found['seconds']:.0f} s in all"
        )
    print(f"{many['trials']} trials in one run, {many['seconds']:.0f} s; first against last third:")
    for name, unit in (
        ("seconds_between_ends", "s"),
        ("train_seconds", "s"),
        ("overhead_seconds", "s"),
        ("driver_megabytes", "MB"),
    ):
        print(f"  {name.replace('_', ' '):22} {many[name]['first']:.3f} {many[name]['last']:.3f} {unit}")
    evidence = {
        "what": "share of slot time that is training; growth of overhead and memory over many trials",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "slots": slots,
        "unequal_levels": levels,
        "many_trials": many,
    }
    options.out.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
