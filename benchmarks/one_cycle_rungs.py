"""Measures what a rung in the middle of a learning-rate cycle says of the end of a trial.

Run ``python benchmarks/one_cycle_rungs.py RUN`` in the repository; RUN is a finished search in which no trial was
stopped early and the learning rate runs through one cycle. A rung would see a trial's validation accuracy after as many
epochs of its GLS phase; what counts is the objective at its last epoch.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from nls_tune.machine.provenance import provenance
from nls_tune.runs import Run
from nls_tune.runs.reading import load_trials

EVIDENCE = Path(__file__).parent / "evidence" / "one_cycle_rungs.json"
RUNGS = (1, 2, 4)


def measure(run: Run) -> list[dict[str, Any]]:
    """Return what the rungs of each noise level say."""
    search = run.trials[run.trials["stage"] == "search"]
    if (search["status"] == "stopped").any() or set(search["config_schedule"]) != {"one_cycle"}:
        raise SystemExit(f"{run.place}: a search of one cycle is needed in which no trial was stopped")
    return [
        {
            "dataset": str(rows["dataset"].iloc[0]),
            "noise_level": str(level),
            "model": str(rows["config_model"].iloc[0]),
            "epochs": int(rows["config_epochs"].iloc[0]),
            "rungs": [found for rung in RUNGS if (found := at_rung(rows, run, rung))["trials"] >= 4],
        }
        for level, rows in search[search["status"] == "completed"].groupby("noise_level")
    ]


def at_rung(trials: pd.DataFrame, run: Run, rung: int) -> dict[str, Any]:
    """Compare accuracies after some epochs of the GLS phase with the end, over the trials that end later."""
    later = trials[trials["warmup_epochs"] + rung < trials["config_epochs"]]
    epochs = run.epochs_of(later["trial_id"].tolist()).set_index(["trial_id", "epoch"])["val_accuracy"]
    seen = np.array([epochs[row["trial_id"], row["warmup_epochs"] + rung] for row in later.to_dict("records")])
    final, warmups, lr = (later[name].to_numpy(float) for name in ("best_val_accuracy", "warmup_epochs", "lr"))
    better = seen >= np.median(seen) if len(seen) else np.zeros(0, bool)

    def correlation(values: np.ndarray) -> float | None:
        differ = len(seen) >= 4 and np.ptp(seen) > 0 and np.ptp(values) > 0
        return float(spearmanr(seen, values).statistic) if differ else None

    return {
        "gls_epochs": rung,
        "trials": len(later),
        "with_final": correlation(final),
        "with_warmup": correlation(warmups),
        "with_lr": correlation(lr),
        "best_goes_on": bool(better[final.argmax()]) if len(seen) else None,
        "lost_by_halving": float(final.max() - final[better].max()) if len(seen) else None,
    }


def main() -> None:
    """Measure, print a line each and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=EVIDENCE)
    arguments = parser.parse_args()
    rows = [row for path in arguments.runs for row in measure(load_trials(path))]
    for row in rows:
        print(json.dumps(row))
    result = {
        "what": "validation accuracy at a rung in the middle of a learning-rate cycle against the end of the trial",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "one_cycle_rungs.py",
        **{key: value for key, value in provenance().items() if key in ("versions", "hardware")},
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
