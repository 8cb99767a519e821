"""Keeps a run as evidence and draws README's figure of it.

Make the run with ``python -m nls_tune.search --num-trials 40 --scheduler none --confirm-seeds 5 --out RUN``: without a
scheduler every trial that does not diverge runs to its end, so that every rate has accuracies to show. Then
``python benchmarks/readme_figure.py RUN``; without a run the kept one is drawn again.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from nls_tune.analysis.analysis import analyze
from nls_tune.report.figures import write_figures
from nls_tune.report.text import points
from nls_tune.report.words import summary_line
from nls_tune.runs import load_runs

EVIDENCE = Path(__file__).parent / "evidence" / "twonorm_run"
FIGURE = Path(__file__).parents[1] / "docs" / "accuracy_against_rate.png"


def keep(run: Path) -> None:
    """Copy run.json and the rows of a run, one part file each instead of one a trial."""
    for name in ("trials", "epochs"):
        parts = [str(path) for path in sorted((run / name).glob("[!.]*.parquet"))]
        table = ds.dataset(parts).to_table()
        (EVIDENCE / name).mkdir(parents=True, exist_ok=True)
        table = table.replace_schema_metadata(pq.read_schema(parts[0]).metadata)
        pq.write_table(table, EVIDENCE / name / "all.parquet", compression="zstd", write_statistics=False)
    shutil.copy(run / "run.json", EVIDENCE / "run.json")


def sentence() -> str:
    """Say what the figure supports."""
    verdicts = analyze(load_runs([EVIDENCE])).runs[0].verdicts
    compared = [found for found in verdicts if found.difference is not None and found.detectable is not None]
    differences = [found.difference.mean for found in compared]
    sizes = [100 * found.detectable for found in compared]
    return (
        f"{summary_line(verdicts)} The best rates differ from it by {points(min(differences), 2)} to "
        f"{points(max(differences), 2)} points of test accuracy over five fresh seeds, and differences of "
        f"{min(sizes):.2f} to {max(sizes):.2f} would have been found."
    )


def main() -> None:
    """Keep, draw and print the sentence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", help="a run directory to keep; by default the kept one is drawn")
    options = parser.parse_args()
    if options.run is not None:
        keep(options.run)
    with tempfile.TemporaryDirectory() as folder:
        write_figures(analyze(load_runs([EVIDENCE])), Path(folder))
        FIGURE.parent.mkdir(exist_ok=True)
        shutil.copy(Path(folder) / FIGURE.name, FIGURE)
    print(sentence())


if __name__ == "__main__":
    main()
