"""Searches the smooth rate for a table of your own: a data frame with missing numbers, texts and partly wrong labels.

python examples/own_table.py
python examples/own_table.py --num-trials 4 --epochs 6 --out runs/quick
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from nls_tune import Data, run_search


def make_table(rows: int = 1_500) -> pd.DataFrame:
    """Return features, the label ``sold`` with a fifth of it wrong, and the ``truth``."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"price": rng.normal(10, 2, rows), "age": rng.exponential(3, rows)})
    table["shop"] = rng.choice(["north", "south", "web"], rows)
    table["truth"] = np.where(table["price"] + 2 * (table["shop"] == "web") - table["age"] > 7, "yes", "no")
    wrong = rng.random(rows) < 0.2
    table["sold"] = np.where(wrong, np.where(table["truth"] == "yes", "no", "yes"), table["truth"])
    table.loc[rng.random(rows) < 0.1, "age"] = np.nan
    return table


def main() -> None:
    """Search, and print what to use."""
    parser = argparse.ArgumentParser(description="Search the smooth rate for a table of your own.")
    parser.add_argument("--num-trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("runs/own-table"))
    arguments = parser.parse_args()

    # Clean labels are seldom known: here they are those of the test, and tell how noisy the given ones are.
    data = Data.from_dataframe(make_table(), label="sold", clean_labels="truth", test=0.3)
    result = run_search(
        data, num_trials=arguments.num_trials, epochs=arguments.epochs, confirm_seeds=0, out=arguments.out
    )
    answer = result.best()
    print(
        f"{answer.noise_level}: {answer.noise_rate:.0%} wrong, {answer.finding}, use {answer.use and answer.use.config}"
    )


if __name__ == "__main__":
    main()
