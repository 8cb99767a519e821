"""Searches the smooth rate of a generated dataset, then looks at the trials with pandas.

python examples/quickstart.py                     # 40 % of the labels flipped; half a minute on two cores
python examples/quickstart.py --num-trials 4 --epochs 6 --train-size 500 --out runs/quick
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from nls_tune import run_search


def main() -> None:
    """Search, then print the best trial of each arm and how accuracy depends on the rate."""
    parser = argparse.ArgumentParser(description="Search the smooth rate of a generated dataset.")
    parser.add_argument("--num-trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--train-size", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"))
    arguments = parser.parse_args()

    result = run_search(
        "twonorm",
        noise="symmetric:0.4",
        num_trials=arguments.num_trials,
        epochs=arguments.epochs,
        train_size=arguments.train_size,
        confirm_seeds=0,
        out=arguments.out,
    )
    answer = result.best()
    print(f"{answer.noise_level}: {answer.finding}, use {answer.use and answer.use.config}")

    # The results are plain Parquet: one row per trial. The choice is by noisy validation labels, never by test.
    trials = pd.read_parquet(result.run / "trials")
    completed = trials[trials["status"] == "completed"]
    best = completed.loc[completed.groupby("arm")["best_val_accuracy"].idxmax()]
    print(best[["arm", "smooth_rate", "warmup_epochs", "lr", "best_val_accuracy", "test_accuracy_at_best"]].to_string())
    print(
        completed[["smooth_rate", "best_val_accuracy", "test_accuracy_at_best"]].corr("spearman").round(2).to_string()
    )


if __name__ == "__main__":
    main()
