"""Fills a table of published figures: a search and its confirmation per row, in pieces if wanted."""

from __future__ import annotations

import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nls_tune.analysis.method_results import TableRowResult, table_rows
from nls_tune.errors import InputError
from nls_tune.files import json_text, write_atomically
from nls_tune.machine.provenance import provenance
from nls_tune.plan.reproduction import Given, ReproductionTable, load_table
from nls_tune.plan.settings import SearchSettings, flag_name, flags_of_settings
from nls_tune.report.formats import plain
from nls_tune.report.reproduction import FilledRow, gains_table, reproduction_table
from nls_tune.report.table import latex_text, markdown_text
from nls_tune.report.text import of_metric
from nls_tune.runs import Run
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import load_trials
from nls_tune.session.session import run_settings
from nls_tune.tune.interrupts import InterruptedRunError, interruptible

if TYPE_CHECKING:
    from rich.console import Console

#: Settings that say where a table is filled, not with what.
_PLACES = {"data_dir", "trials_per_gpu", "max_concurrent", "address"}
#: Three forward passes: one forward, and twice as much backward.
_PASSES = 3


@dataclass(frozen=True)
class Reproduced:
    """What a session has filled in a folder; ``status`` is ``finished``, ``time is up`` or ``interrupted``."""

    rows: tuple[FilledRow, ...]
    out: Path
    status: str


def reproduce(
    table: str,
    *,
    out: Path | None = None,
    rows: Sequence[str] = (),
    minutes: float | None = None,
    changes: Given | None = None,
    console: Console | None = None,
) -> Reproduced:
    """Run the searches of a table's rows, one after the other, and write what is known after each.

    A row that is finished is not run again, and one that was interrupted goes on. In ``out`` each row has a run
    directory of its name; ``table.json`` (evidence), ``table.md`` and ``table.tex`` say what there is so far.

    Args:
        table: The name of a shipped table, or a YAML file.
        out: The folder; by default ``runs/`` and the name of the table.
        rows: The rows to fill in this session, by default all; files always show all.
        minutes: After so many minutes the session ends in order, and the same command goes on.
        changes: Settings that are not those of the table.
        console: Where to print.

    Raises:
        InputError: For an unknown name, a value out of range, or a folder that holds runs of other settings.
    """
    if minutes is not None and not 0 < minutes < float("inf"):
        raise InputError(f"--minutes must be above 0, got {minutes:g}; leave it out for no limit")
    found = load_table(table)
    folder = Path("runs") / Path(table).stem if out is None else out
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out must be a folder, {folder} is a file; give another place")
    searches = {row: found.search_of(row, folder / row, changes or {}) for row in found.rows}
    wanted = found.named(rows)
    end = None if minutes is None else time.monotonic() + 60 * minutes
    status = "finished"
    try:
        with interruptible(), _ended_at(end):
            for row in wanted:
                if not _run(searches[row], console):
                    raise KeyboardInterrupt
                write_table(table, found, searches, folder, changes or {})
    except KeyboardInterrupt:  # also between two searches
        status = "interrupted" if end is None or time.monotonic() < end else "time is up"
    return Reproduced(write_table(table, found, searches, folder, changes or {}), folder, status)


def _run(search: SearchSettings, console: Console | None) -> bool:
    """Run or go on with a search; return whether it is finished."""
    try:
        result = run_settings(search, console)
    except InterruptedRunError:
        return False
    return result is not None and result.status == "finished"


@contextmanager
def _ended_at(end: float | None) -> Iterator[None]:
    """Interrupt whatever runs at a time, as Ctrl-C does."""
    if end is None:
        yield
        return
    # What a shell script starts with & ignores SIGINT.
    number = signal.SIGTERM if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else signal.SIGINT
    timer = threading.Timer(max(0.0, end - time.monotonic()), os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def write_table(
    name: str, table: ReproductionTable, searches: dict[str, SearchSettings], folder: Path, changes: Given
) -> tuple[FilledRow, ...]:
    """Write what the runs of a table's rows say so far, and return it."""
    runs = {row: load_trials(folder / row) for row in searches if RunDirectory(folder / row).run_json.exists()}
    with_trials = {row: run for row, run in runs.items() if len(run.trials)}
    results = dict(zip(with_trials, table_rows([*with_trials.values()]), strict=True))
    rows = tuple(
        _filled(name, row, table, search, folder, changes, runs.get(row), results.get(row))
        for row, search in searches.items()
    )
    shown = reproduction_table(rows)
    missing = [f"- {row.name}: `{row.command}`" for row in rows if not row.finished]
    on_all = any(search.confirm_on == "all" for search in searches.values())
    about = of_metric(_about(changes, on_all=on_all), (search.metric for search in searches.values()))
    lines = [
        f"# {table.title}", "", about, "", markdown_text(shown),
        "Gains over cross-entropy on the same seeds:", "", markdown_text(gains_table(rows)),
        *(f"- Published, {figures.what}: {figures.source}" for figures in table.published),
        *(["", "What fills the rest:", "", *missing] if missing else []), "",
    ]  # fmt: skip
    known, other = provenance(), {key: value for key, value in changes.items() if key not in _PLACES}
    evidence: dict[str, object] = {
        "what": table.title,
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"nls-tune reproduce {name}",
        "versions": known["versions"],
        "hardware": known["hardware"],
        "git_commit": known["git_commit"],
        "changes": other,
        "published": [figures.model_dump() for figures in table.published],
        "rows": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "table.json", (json_text(plain(evidence)) + "\n").encode())
    write_atomically(folder / "table.md", "\n".join(lines).encode())
    write_atomically(folder / "table.tex", (latex_text(shown) + "\n" + latex_text(gains_table(rows))).encode())
    return rows


def _about(changes: Given, *, on_all: bool) -> str:
    again = (
        " All labels: trained again with the validation samples for as many epochs as were best, and judged after the "
        "last one, with the weights, plain or averaged, that most seeds were best with; nothing is claimed from that."
    )
    text = (
        "Measured: test accuracy in %, mean ± standard deviation over fresh seeds; every method has the same network, "
        "trials and epochs, and was chosen on noisy validation labels. Verdict: that of the best rate or loss against "
        f"the strongest cross-entropy; what is proven is corrected over all rows and methods.{again * on_all} Minutes "
        "and PFLOP: all trainings of the row, on the machine of table.json. Plain and averaged weights: each at its "
        "best epoch; averaged ones are judged on test where they validate better: many a method has no mean of them."
    )
    other = {name: value for name, value in changes.items() if name not in _PLACES}
    return f"{text} Settings that are not those of the table: {shlex.join(_flags(other))}." if other else text


def _filled(
    name: str, row: str, table: ReproductionTable, search: SearchSettings, folder: Path, changes: Given,
    run: Run | None, result: TableRowResult | None,
) -> FilledRow:  # fmt: skip
    published = {figures.what: figures.values[row] for figures in table.published if row in figures.values}
    finished, minutes, pflop = False, 0.0, 0.0
    if run is not None:
        finished = run.status == "finished"
        minutes, pflop = float(run.trials["train_seconds"].sum()) / 60, _pflop(run)
    command = shlex.join(["nls-tune", "reproduce", name, "--rows", row, *_flags(changes), "--out", str(folder)])
    noise = table.rows[row].noise
    return FilledRow(row, search.dataset, noise, published, result, finished, command, minutes, pflop)


def _flags(changes: Given) -> list[str]:
    """Return the settings that are not those of the table as they are given on the command line."""
    flags, words = flags_of_settings(), []
    for name, value in changes.items():
        values = value if isinstance(value, list | tuple) and name == "overrides" else [value]
        for one in values:
            words += [flag_name(name, flags[name][1]), ",".join(one) if isinstance(one, list | tuple) else str(one)]
    return words


def _pflop(run: Run) -> float:
    """The arithmetic of all trainings of a run, in 10^15 operations; epochs that were reused count once."""
    from nls_tune.datasets.registry import dataset_info
    from nls_tune.training.arithmetic import forward_flops

    trials, sizes = run.trials, {level.noise_level: level for level in run.content.plan}
    if not len(trials):
        return 0.0
    per_sample: dict[str, int] = {}
    total = 0.0
    for trial in trials.to_dict("records"):
        model, level = str(trial["config_model"]), sizes[trial["noise_level"]]
        if model not in per_sample:
            info = dataset_info(trial["dataset"])
            per_sample[model] = forward_flops(model, num_classes=info.num_classes, input_shape=info.input_shape)
        samples = _PASSES * (level.num_train or 0) + (level.num_val or 0) + int(trial["num_test"])
        total += per_sample[model] * samples * (trial["epochs"] - trial["epochs_reused"])
    return total / 1e15
