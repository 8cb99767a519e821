"""Measures what the embedded default shows: how long it takes, and at which levels a rate is proven better.

Run ``python benchmarks/default_run.py`` in the repository, on an idle machine: it makes ten whole runs of
``python -m nls_tune.search``, each with another seed of the noise, the split and the search, and takes half an hour on
two cores. Runs that are there already are kept, so that it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nls_tune.analysis.verdicts import find
from nls_tune.machine.provenance import provenance
from nls_tune.runs import load_run

OUT = Path(__file__).parent / "evidence" / "default_run.json"


def measure(seed: int, folder: Path) -> dict[str, Any]:
    """Make one run and return its seconds and its verdicts."""
    out, load = folder / f"seed{seed}", os.getloadavg()[0]
    command = ["-m", "nls_tune.search", "--seed", str(seed), "--noise-seed", str(seed), "--out", str(out)]
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own program
    seconds = time.perf_counter() - start
    run = load_run(out)
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "load_average_before": round(load, 2),
        "trials": int((run.trials["stage"] == "search").sum()),
        "confirmed": int((run.trials["stage"] == "confirm").sum()),
        "diverged": int((run.trials["status"] == "diverged").sum()),
        "levels": {
            verdict.noise_level: {
                "finding": verdict.finding,
                "rate": verdict.rate and verdict.rate.config["smooth_rate"],
                "difference": verdict.difference and verdict.difference.mean,
                "low": verdict.difference and verdict.difference.low,
                "high": verdict.difference and verdict.difference.high,
                "ce": verdict.ce and verdict.ce.test and verdict.ce.test.mean,
            }
            for verdict in find(run).verdicts
        },
    }


def won(found: dict[str, Any], level: str) -> int:
    """Return in how many runs a rate is proven better at a level."""
    return sum(row["levels"][level]["finding"] == "better" for row in found["rows"])


def readme_table(found: dict[str, Any]) -> list[str]:
    """Return a Markdown table with a row per level."""
    lines = [
        "| level | proven better | no proven difference | rate above 0 | to cross-entropy: smallest, median, largest |",
        "|---|---|---|---|---|",
    ]
    num = len(found["rows"])
    for level in found["rows"][0]["levels"]:
        said = [row["levels"][level] for row in found["rows"]]
        unproven = sum(one["finding"] == "no_proven_difference" for one in said)
        positive = sum((one["rate"] or 0) > 0 for one in said)
        differences = [one["difference"] for one in said if one["difference"] is not None]
        ends = ", ".join(
            f"{100 * value:+.2f}".replace("-", "−")
            for value in (min(differences), statistics.median(differences), max(differences))
        )
        lines.append(f"| `{level}` | {won(found, level)} of {num} | {unproven} | {positive} | {ends} |")
    return lines


def main() -> None:
    """Measure, print a line each and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    known = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    rows = {row["seed"]: row for row in known}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            if seed in rows:
                continue
            rows[seed] = measure(seed, Path(folder))
            print(json.dumps(rows[seed]), flush=True)
            evidence = {
                "what": "ten whole runs of the embedded default: seconds, and what is proven at each level",
                "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": "default_run.py",
                **{key: value for key, value in provenance().items() if key in ("versions", "hardware", "git_commit")},
                "rows": [rows[key] for key in sorted(rows)],
            }
            options.out.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
