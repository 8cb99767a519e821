"""Breaks searches in every way that machines and people break them, and counts what is wrong afterwards.

Run ``python benchmarks/faults.py`` in the repository as root (the full disk is a small tmpfs); all cases take about an
hour of two idle cores. ``soak.py`` is one search of 500 trials in which something is broken every few seconds. The
cases are in ``tests/helpers/fault_cases.py``.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from fault_cases import CASES, COMMON, Search

from nls_tune.machine.provenance import provenance

#: Trials of a case; more where a session has to last until so many workers have been killed.
TRIALS, MANY = 8, {"workers-killed": 60}


def run_case(name: str, seed: int, keep: Path | None) -> dict[str, Any]:
    """Run one case in a folder of its own and return what it showed."""
    what, fault = CASES[name]
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    trials = str(MANY.get(name, TRIALS))
    search = Search(folder, (*COMMON, "--num-trials", trials, "--out", "run"))
    begun = time.monotonic()
    fault(search, random.Random(f"{name} {seed}"))
    if (
        not (search.run / "run.json").exists()
        or json.loads((search.run / "run.json").read_text())["status"] != "finished"
    ):
        search.finish()
    else:
        search.audit()
    found = {
        "case": name,
        "what": what,
        "sessions": search.sessions,
        "trials": len(search.rows),
        "seconds": round(time.monotonic() - begun, 1),
        "problems": search.problems,
    }
    if search.problems and keep is not None:
        (search.folder / "output.txt").write_text(search.output)
        shutil.copytree(folder, keep / name, dirs_exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return found


def readme_table(found: dict[str, Any]) -> list[str]:
    """Return the table of the cases in Markdown."""
    lines = ["| broken | sessions | trials | what was wrong afterwards |", "|---|---|---|---|"]
    for case in found["cases"]:
        wrong = "; ".join(case["problems"]) or "nothing"
        lines.append(f"| {case['what']} | {case['sessions']} | {case['trials']} | {wrong} |")
    return lines


def main() -> int:
    """Run the cases, one after the other, and write the evidence after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--only", nargs="*", choices=list(CASES), default=list(CASES), help="these cases, others are kept"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides when something is broken (default: 0)")
    parser.add_argument("--keep", type=Path, help="folder for the runs in which something is wrong")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "faults.json")
    arguments = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and so would the searches started here
    before = json.loads(arguments.out.read_text())["cases"] if arguments.out.exists() else []
    cases = {case["case"]: case for case in before}
    for name in arguments.only:
        cases[name] = run_case(name, arguments.seed, arguments.keep)
        sys.stdout.write(f"{json.dumps(cases[name])}\n")
        sys.stdout.flush()
        found = {
            "what": "searches in which something was broken, and what was wrong afterwards",
            "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": "faults.py",
            **{key: value for key, value in provenance().items() if key in ("versions", "hardware")},
            "cases": [cases[name] for name in CASES if name in cases],
        }
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write("\n".join([*readme_table(found), ""]))
    return 1 if any(case["problems"] for case in found["cases"]) else 0


if __name__ == "__main__":
    sys.exit(main())
