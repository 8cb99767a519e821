"""Compares shares of a level's trials for cross-entropy, positive and negative rates, on the tables.

Run ``python benchmarks/arm_shares.py`` in the repository; it takes some minutes on one core. Every search is replayed
with each of the shares from the same seeds. What counts is the loss of its selection, by test and by noisy validation,
to the best of the level's grid, in points. The tables were trained without averaged weights.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asha_clock import NAMES, describe, search, show
from replay import Variant

from nls_tune.files import write_atomically
from nls_tune.machine.provenance import provenance

EVIDENCE = Path(__file__).parent / "evidence" / "arm_shares.json"
#: Shares of cross-entropy, positive and negative rates; the first one is what the others are compared with.
SHARES: dict[str, tuple[float, float, float]] = {"1 : 1 : 2": (1, 1, 2), "1 : 1 : 1": (1, 1, 1), "1 : 2 : 1": (1, 2, 1)}


def measure(name: str, seeds: int, trials: int) -> dict[str, Any]:
    """Return and print what each of the shares loses on a table."""
    runs = {
        label: [search(name, Variant(shares=shares), seed, trials) for seed in range(seeds)]
        for label, shares in SHARES.items()
    }
    found = {label: describe(rows, runs["1 : 1 : 2"]) for label, rows in runs.items()}
    show(f"{name}, searches with {trials} trials per level", found)
    return found


def main() -> None:
    """Measure, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=20, help="trials per level, by default as the spaces ship them")
    parser.add_argument("--out", type=Path, default=EVIDENCE)
    arguments = parser.parse_args()
    content: dict[str, Any] = {
        "what": "shares of cross-entropy, positive and negative rates in replayed searches; means with standard errors",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "command": "arm_shares.py",
        "seeds": arguments.seeds,
        "trials": arguments.trials,
    }
    content |= {"tables": {name: measure(name, arguments.seeds, arguments.trials) for name in NAMES}}
    write_atomically(arguments.out, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
