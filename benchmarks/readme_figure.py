"""Keeps runs as evidence and draws the figures of them that README and the site show.

``default_run``, the embedded default with a sweep: ``python -m nls_tune.search --sweep 13 --out RUN``. It was made with
one choice of settings per rate, and ``nls-tune resume RUN`` added the others.
``twonorm_run``: ``python -m nls_tune.search --dataset twonorm --num-trials 40 --scheduler none --confirm-seeds 5 --out
RUN``: without a scheduler every trial that does not diverge runs to its end, so that every rate has accuracies to show.
``cifar100n_run``: ``python -m nls_tune.search --dataset cifar100n --out RUN`` on two cores that compute bfloat16.
Then ``python benchmarks/readme_figure.py NAME RUN``; without a run the kept one is drawn again.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import tempfile
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from nls_tune.analysis.analysis import analyze
from nls_tune.analysis.verdicts import Verdict
from nls_tune.report.figures import write_figures
from nls_tune.report.table import markdown_text
from nls_tune.report.text import points
from nls_tune.report.words import summary_line, verdict_table
from nls_tune.runs import Run, load_run, load_runs
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.parts import sealed_parquet

EVIDENCE = Path(__file__).parent / "evidence"
DOCS = Path(__file__).parents[1] / "docs"
#: The kept runs, and the figures of accuracy against rate that are drawn of those with many rates.
FIGURES = {
    "default_run": DOCS / "accuracy_against_rate.png",
    "twonorm_run": DOCS / "twonorm_rates.png",
    "cifar100n_run": None,
}


def keep(run: Path, place: Path) -> None:
    """Copy run.json and the rows of a run, one part file each instead of one a trial."""
    for name in ("trials", "epochs"):
        parts = [str(path) for path in sorted((run / name).glob("[!.]*.parquet"))]
        table = ds.dataset(parts).to_table()
        (place / name).mkdir(parents=True, exist_ok=True)
        table = table.replace_schema_metadata(pq.read_schema(parts[0]).metadata)
        content = sealed_parquet(table, compression="zstd", write_statistics=False)
        (place / name / "all.parquet").write_bytes(content)
    kept = RunDirectory(run).read_json()
    for session in kept.sessions:  # what belongs to this machine
        session.folder = None
        words = shlex.split(session.command or "")
        if "--out" in words:
            del words[words.index("--out") : words.index("--out") + 2]
        session.command = shlex.join(words)
    RunDirectory(place).write_json(kept)


def sentence() -> str:
    """Say what the figure of twonorm supports."""
    verdicts = analyze(load_runs([EVIDENCE / "twonorm_run"])).runs[0].verdicts
    compared = [found for found in verdicts if found.difference is not None and found.detectable is not None]
    differences = [found.difference.mean for found in compared]
    sizes = [100 * found.detectable for found in compared]
    return (
        f"{summary_line(verdicts)} The best rates differ from it by {points(min(differences), 2)} to "
        f"{points(max(differences), 2)} points of test accuracy over five fresh seeds, and differences of "
        f"{min(sizes):.2f} to {max(sizes):.2f} would have been found."
    )


def kept_run(name: str) -> Run:
    """Return a kept run."""
    return load_run(EVIDENCE / name)


def minutes(name: str) -> float:
    """Return how long a kept run of one session took."""
    (session,) = kept_run(name).content.sessions
    if session.started_at is None or session.finished_at is None:
        raise ValueError(f"{name} has not ended")
    return (session.finished_at - session.started_at).total_seconds() / 60


def verdict(name: str) -> Verdict:
    """Return what a kept run of one noise level finds."""
    (found,) = analyze([kept_run(name)]).runs[0].verdicts
    return found


def answer(name: str) -> str:
    """Return the answer of a kept run as a Markdown table."""
    return markdown_text(verdict_table(analyze([kept_run(name)]).runs[0].verdicts))


def main() -> None:
    """Keep, draw and print what is proven."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=FIGURES, help="the name of the kept run")
    parser.add_argument("run", type=Path, nargs="?", help="a run directory to keep; by default the kept one is drawn")
    options = parser.parse_args()
    place, figure = EVIDENCE / options.name, FIGURES[options.name]
    if options.run is not None:
        keep(options.run, place)
    found = analyze(load_runs([place]))
    if figure is not None:
        with tempfile.TemporaryDirectory() as folder:
            write_figures(found, Path(folder))
            shutil.copy(Path(folder) / "accuracy_against_rate.png", figure)
    print(summary_line(found.runs[0].verdicts))


if __name__ == "__main__":
    main()
