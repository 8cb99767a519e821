"""Reads thousands of damaged inputs of every kind and counts what becomes of them.

Run ``python benchmarks/fuzzing.py`` in the repository; 10,000 inputs take about ten minutes on one core.

Each input is a good file or text with one to three random changes: bits, blocks, digits, cells, fields. Its reader may

* give the same as before (``same``), because the change does not matter or something else stands in;
* say what is wrong, in one line (``said``);
* take it as another text (``another``), where nothing tells what was meant: what people write themselves, data of
  their own, and files of version 0.1, which carry no checksum.

All else is a failure: another error than those, more than 10 s, other numbers without a word, a file written elsewhere.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import os
import pickle
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from nls_tune.datasets import load_dataset
from nls_tune.datasets.cache import cached_arrays
from nls_tune.datasets.cifarn import LABEL_FILES
from nls_tune.datasets.cifarn import _read as read_human_labels
from nls_tune.datasets.parquet import read_images
from nls_tune.datasets.registry import DATASETS
from nls_tune.errors import InputError
from nls_tune.files import write_atomically
from nls_tune.machine.provenance import provenance
from nls_tune.noise import parse_noise_levels, read_matrix, symmetric_matrix
from nls_tune.runs import parts, parts_copy
from nls_tune.runs.checkpoint import TrialCheckpoint, read_state, sealed_state
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.parts import DEFAULT_KEY, read_parts
from nls_tune.runs.parts_copy import COPY, SETTLED_NS, read_folder
from nls_tune.runs.reading import load_run
from nls_tune.runs.schemas import epoch_schema, settings_of, trial_schema
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.runs.watched import WatchedRun
from nls_tune.spaces.reading import load_space
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.training import Training
from nls_tune.training.warmup import SharedWarmup

ROOT = Path(__file__).parents[1]
RUN = ROOT / "benchmarks" / "evidence" / "twonorm_run"
OLD = ROOT / "tests" / "data" / "run_0.1" / "interrupted"
LIMIT_SECONDS = 10.0
CPU = torch.device("cpu")
_CHANGES = ("bit", "bit", "byte", "cut", "twice", "zeros", "swap", "end", "more", "digit", "token", "other")
_TOKENS = [b"null", b"1e999", b"-1", b"NaN", b"[" * 3000, b"2001-13-01", b"\xff", "\u0663".encode(), b"{}", b"0", b"~"]


@dataclass(frozen=True)
class Kind:
    """One kind of input: where its file lies, and how it is read.

    ``read`` returns what was read and whether it said a word. ``may_differ``: another text may be another input.
    """

    name: str
    file: Path
    read: Callable[[], tuple[Any, bool]]
    may_differ: bool = False


class _TooSlowError(BaseException):
    """Raised by the clock; no reader may catch it."""


# Damage


def damage(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Return a content with one to three changes."""
    if content[:4] == b"PAR1" and chance.random() < 0.3:
        return _other_table(content, chance)
    for _ in range(chance.choice((1, 1, 2, 3))):
        content = _change(bytearray(content), chance, others)
    return content


def _change(content: bytearray, chance: random.Random, others: list[bytes]) -> bytes:
    size = len(content)
    at, length = chance.randrange(size + 1), chance.choice((1, 4, 16, 100, 1000))
    digits = [i for i in range(min(size, 20_000)) if content[i] in b"0123456789"]
    kind = chance.choice(
        ("bit", "bit", "byte", "cut", "twice", "zeros", "swap", "end", "more", "digit", "token", "other")
    )
    if kind == "bit" and size:
        content[chance.randrange(size)] ^= 1 << chance.randrange(8)
    elif kind == "byte" and size:
        content[chance.randrange(size)] = chance.randrange(256)
    elif kind == "cut":
        del content[at : at + length]
    elif kind == "twice":
        content[at:at] = content[at : at + length]
    elif kind == "zeros":
        content[at : at + length] = bytes(len(content[at : at + length]))
    elif kind == "swap":
        to = chance.randrange(size + 1)
        one, two = content[at : at + length], content[to : to + length]
        content[at : at + length], content[to : to + length] = two, one
    elif kind == "end":
        del content[at:]
    elif kind == "more":
        content[at:at] = chance.randbytes(length)
    elif kind == "digit" and digits:
        content[chance.choice(digits)] = chance.choice(b"0123456789")
    elif kind == "token":
        content[at : at + chance.randrange(8)] = chance.choice(_TOKENS)
    elif chance.random() < 0.2:
        return chance.choice([other for other in others if other[:2] != content[:2]])  # of another format
    return bytes(content)


def _other_table(content: bytes, chance: random.Random) -> bytes:
    """Return a Parquet file as another program might have rewritten it: a cell, a field or a type differs."""
    table = pq.read_table(io.BytesIO(content))
    column = chance.randrange(table.num_columns)
    field, values = table.schema.field(column), table.column(column)
    kind = chance.choice(("cell", "cell", "null", "twice", "renamed", "type", "dropped", "rows"))
    metadata = table.schema.metadata
    if kind in ("cell", "null") and len(table):
        cells = values.to_pylist()
        cells[chance.randrange(len(cells))] = None if kind == "null" else _other_value(cells[0], chance)
        table = table.set_column(column, field.with_nullable(True), pa.array(cells, field.type))
    elif kind == "twice":
        table = table.append_column(field, values)
    elif kind == "renamed":
        table = table.rename_columns([f"{n}2" if i == column else n for i, n in enumerate(table.column_names)])
    elif kind == "type":
        table = table.set_column(
            column, field.name, pa.array([chance.choice(("x", "1", None))] * len(table), pa.string())
        )
    elif kind == "dropped":
        table = table.remove_column(column)
    elif kind == "rows":
        table = pa.concat_tables([table, table])
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    return sink.getvalue()


def _other_value(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice((value + 1, -value, 0, 2**62))
    if isinstance(value, float):
        return chance.choice((value + 0.125, -value, float("nan"), float("inf"), 1e300))
    if isinstance(value, datetime):
        return chance.choice((datetime(9999, 12, 31, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC)))
    if isinstance(value, str):
        return chance.choice((f"{value}x", "", "../../x"))
    if isinstance(value, bytes):
        return value[1:]
    return [-1] if isinstance(value, list) else value


# What is read


def kinds(folder: Path) -> Iterator[Kind]:
    """Make a good file of every kind below a folder, and yield how each is read."""
    yield from _kinds_of_run(folder / "run")
    yield from _kinds_of_old_run(folder / "old")
    yield from _kinds_of_states(folder / "states")
    yield from _kinds_of_texts(folder / "texts")
    yield from _kinds_of_data(folder / "data")


def _digest(*values: Any) -> str:
    return hashlib.sha256(pickle.dumps(values)).hexdigest()


def _read_run(path: Path) -> tuple[Any, bool]:
    """Read a run as all commands do, and as the same command does when it goes on."""
    found = load_run(path)
    for row in found.trials.to_dict("records"):
        settings_of(row)
    list(found.epochs.groupby("trial_id"))
    WatchedRun(path).refresh()
    rows = [found.trials.to_dict("records"), found.epochs.to_dict("records"), found.content.model_dump()]
    return _digest(str(rows)), bool(found.problems)


def _defaults(schema: pa.Schema) -> dict[str, Any]:
    """Return what stands in the columns that came after the run was made."""
    return {f.name: json.loads((f.metadata or {}).get(DEFAULT_KEY, b"null")) for f in schema}


def _kinds_of_run(path: Path) -> Iterator[Kind]:
    source, run = load_run(RUN), RunDirectory(path)
    run.create()
    run.write_json(source.content)
    rows = [row for row in pq.read_table(RUN / "trials").to_pylist() if row["status"] == "completed"][:2]
    table = pq.read_table(RUN / "epochs")
    for row in rows:
        run.write_trial({**_defaults(trial_schema()), **row})
        own = table.filter(pa.compute.equal(table["trial_id"], row["trial_id"])).to_pylist()
        run.write_epochs([{**_defaults(epoch_schema()), **epoch} for epoch in own])
    for name, part in (("part of trials", run.trials), ("part of epochs", run.epochs)):
        yield Kind(name, part / f"{rows[0]['trial_id']}.parquet", lambda: _read_run(path))
    yield Kind("run.json", run.run_json, lambda: _read_run(path))
    for part in run.trials.glob("*.parquet"):
        os.utime(part, ns=(time.time_ns() - 2 * SETTLED_NS,) * 2)
    with mock.patch.object(parts_copy, "LEAST_PARTS", 1):
        run.copy_parts()
    read_copy = lambda: (_digest(str(read_folder(run.trials, trial_schema()).table.to_pylist())), False)  # noqa: E731
    yield Kind("copy of the parts", run.trials / COPY, read_copy)


def _kinds_of_old_run(path: Path) -> Iterator[Kind]:
    shutil.copytree(OLD, path)
    trial, *others = sorted(part.name for part in (path / "trials").iterdir() if part.stem != "empty")
    for folder, name in ((folder, name) for folder in ("trials", "epochs") for name in others[1:]):
        (path / folder / name).unlink()
    for folder in ("trials", "epochs"):
        yield Kind(f"part of {folder}, 0.1", path / folder / trial, lambda: _read_run(path), may_differ=True)
    checkpoint = TrialCheckpoint(next((path / "checkpoints").iterdir()))
    yield Kind("trial.json, 0.1", checkpoint.folder / "trial.json", lambda: _read_trial(checkpoint), may_differ=True)
    yield Kind("state of a trial, 0.1", checkpoint.folder / "state.pt", lambda: _load(checkpoint))


def _read_trial(checkpoint: TrialCheckpoint) -> tuple[Any, bool]:
    trial = checkpoint.read_trial()
    return trial, trial is None


def _load(checkpoint: TrialCheckpoint) -> tuple[Any, bool]:
    state = checkpoint.load(CPU)
    return _digest(str(state)), state is None


def _kinds_of_states(path: Path) -> Iterator[Kind]:
    dataset = load_dataset("twonorm", "symmetric:0.4", train_size=64, val_fraction=0.02)
    settings = TrainingSettings(model="mlp", epochs=3, warmup_epochs=2, smooth_rate=-1.0, batch_size=32)
    training = Training(dataset, settings)
    store = path / "store"
    warmup = SharedWarmup(store, training)
    while training.epoch < 2:
        warmup.turn()
        training.run_epoch()
        warmup.trained()
    checkpoint = TrialCheckpoint(path / "abc")
    checkpoint.start(TrialSpec("abc", "symmetric:0.4", "search", settings))
    checkpoint.save(training.state_dict())
    yield Kind("state of a trial", checkpoint.folder / "state.pt", lambda: _load(checkpoint))
    yield Kind("trial.json", checkpoint.folder / "trial.json", lambda: _read_trial(checkpoint))

    def take() -> tuple[Any, bool]:
        fresh = Training(dataset, settings)
        shared = SharedWarmup(store, fresh)
        turn = shared.turn()
        shared.abandon()
        return (turn, _digest(str(fresh.state_dict()))), shared.warning is not None or turn != "taken"

    yield Kind("stored warm-up", next(store.glob("*/epoch-0002.pt")), take)


def _kinds_of_texts(path: Path) -> Iterator[Kind]:
    path.mkdir()
    space, sets, levels = path / "space.yaml", path / "set.txt", path / "levels.txt"
    shutil.copy(ROOT / "search_spaces" / "twonorm.yaml", space)
    yield Kind("search space", space, lambda: (load_space(space, preset="cpu", epochs=10).model_dump(), False), True)
    sets.write_text("lr.low=1e-3\nbatch_size=64\nmilestones=[2, 3]\nsmooth_rate.high=0.5")

    def read_sets() -> tuple[Any, bool]:
        return load_space("twonorm", overrides=sets.read_text(errors="replace").splitlines()).model_dump(), False

    yield Kind("--set", sets, read_sets, True)
    levels.write_text("clean,symmetric:0.4,pairflip:0.3,instance:0.2,human:worst,matrix:m.csv")
    yield Kind("--noise", levels, lambda: (parse_noise_levels(levels.read_text(errors="replace")), False), True)
    matrix = symmetric_matrix(4, 0.3)
    np.save(path / "m.npy", matrix)
    (path / "m.json").write_text(json.dumps(matrix.tolist()))
    (path / "m.csv").write_text("\n".join(",".join(map(str, row)) for row in matrix.tolist()))
    for name in ("m.npy", "m.json", "m.csv"):
        yield Kind(f"matrix, {name[1:]}", path / name, lambda n=name: (read_matrix(path / n, 4).tolist(), False), True)


def _kinds_of_data(path: Path) -> Iterator[Kind]:
    from PIL import Image

    path.mkdir()
    random_bytes = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    encoded = []
    for pixels in random_bytes:
        Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": "x.png"})
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"img": pa.array(encoded, struct), "label": [0, 1, 2, 0, 1, 2]}), path / "train.parquet")

    def images() -> tuple[Any, bool]:
        shape: dict[str, Any] = {"label_columns": ["label"], "num_classes": 3, "image_shape": (3, 8, 8)}
        pixels, labels = read_images([path / "train.parquet"], **shape, progress=False)
        return _digest(pixels.tobytes(), labels.tobytes()), False

    yield Kind("images, .parquet", path / "train.parquet", images, True)
    torch.save({"clean_label": torch.zeros(10, dtype=torch.int64)}, path / "CIFAR-10_human.pt")
    info, spec = DATASETS["cifar10n"], LABEL_FILES["cifar10n"]
    sha256 = hashlib.sha256((path / "CIFAR-10_human.pt").read_bytes()).hexdigest()
    LABEL_FILES["cifar10n"] = type(spec)(spec.name, sha256, {})
    human = lambda: (_digest(*read_human_labels(info, path / "CIFAR-10_human.pt").values()), False)  # noqa: E731
    yield Kind("human labels, .pt", path / "CIFAR-10_human.pt", human)
    source = path / "source"
    source.write_bytes(b"x")

    def prepared() -> tuple[Any, bool]:
        arrays, facts = cached_arrays("fuzz", [source], lambda: ({"a": random_bytes}, {"fact": "x"}))
        return _digest(arrays["a"].tobytes(), facts), False

    prepared()
    entry = next((Path(os.environ["XDG_CACHE_HOME"]) / "nls_tune" / "prepared").iterdir())
    for name in ("meta.json", "a.npy"):
        yield Kind(f"cache, {name}", entry / name, prepared)


# The run


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise ``_TooSlowError`` after so many seconds."""

    def ring(*_: object) -> None:
        raise _TooSlowError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(kind: Kind, expected: Any) -> tuple[str, str]:
    """Read a damaged input; return what became of it, and for a failure how."""
    try:
        with limited(LIMIT_SECONDS):
            value, said = kind.read()
    except InputError as error:
        text = str(error)
        return ("said", "") if text and len(text.splitlines()) == 1 else ("error", f"not one line: {text[:200]!r}")
    except _TooSlowError:
        return "slow", "".join(traceback.format_stack(limit=3))
    except Exception:
        return "error", traceback.format_exc(limit=-4)
    if said:
        return "said", ""
    if value == expected:
        return "same", ""
    return ("another", "") if kind.may_differ else ("error", "other numbers without a word")


def fuzz(count: int, seed: int, keep: Path | None = None) -> dict[str, Any]:
    """Read so many damaged inputs, in turn of every kind; return counts and failures.

    With ``keep``, inputs that fail are written there.
    """
    chance, failures, slowest = random.Random(seed), [], 0.0
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        (root / "here").mkdir()
        back = Path.cwd()
        os.chdir(root / "here")
        try:
            found = [(kind, kind.file.read_bytes(), kind.read()[0]) for kind in kinds(root)]
            counts = {kind.name: Counter[str]() for kind, _, _ in found}
            others = [content for _, content, _ in found]
            before = _files(root)
            for number in range(count):
                kind, whole, expected = found[number % len(found)]
                if number % 1000 == 999:
                    sys.stderr.write(f"{number + 1:,} inputs, {len(failures)} failures\n")
                content = damage(whole, chance, others)
                state = kind.file.stat() if kind.file.exists() else None
                kind.file.parent.mkdir(parents=True, exist_ok=True)
                kind.file.write_bytes(content)
                if kind.name == "copy of the parts" and state is not None:
                    os.utime(kind.file, ns=(state.st_atime_ns, state.st_mtime_ns))
                begin = time.perf_counter()
                result, how = outcome(kind, expected)
                slowest = max(slowest, time.perf_counter() - begin)
                counts[kind.name][result] += 1
                kind.file.parent.mkdir(parents=True, exist_ok=True)
                kind.file.write_bytes(whole)
                if outside := _files(root) - before - {kind.file}:
                    result, how = "error", f"wrote {sorted(outside)[:3]}"
                    before |= outside
                if how:
                    failures.append({"kind": kind.name, "number": number, "how": how})
                    if keep is not None:
                        keep.mkdir(exist_ok=True)
                        (keep / f"{number}-{kind.name.replace(' ', '_')}").write_bytes(content)
        finally:
            os.chdir(back)
            logging.disable(logging.NOTSET)
    rows = [
        {"kind": name, "inputs": n.total(), **{k: n[k] for k in ("same", "said", "another")}}
        for name, n in counts.items()
    ]
    return {"inputs": count, "seed": seed, "slowest_seconds": round(slowest, 2), "rows": rows, "failures": failures}


# What the checksums cost


def cost(rounds: int = 30) -> list[dict[str, Any]]:
    """Return the processor time of reading and writing with and without checksums: medians of alternating rounds."""
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for step, steps in _steps(Path(folder)).items():
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(rounds):
                for found, one in zip(times, steps, strict=True):
                    begin = time.process_time()
                    one()
                    found.append(time.process_time() - begin)
            without, with_ = (statistics.median(found) for found in times)
            rows.append({"step": step, "without": without, "with": with_, "share": with_ / without - 1})
        return rows


def _steps(folder: Path) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return what is timed, each without and with checksums."""
    run = RunDirectory(folder / "run")
    run.create()
    row = {f.name: json.loads((f.metadata or {}).get(DEFAULT_KEY, b"null")) for f in trial_schema()}
    row |= next(row for row in pq.read_table(RUN / "trials").to_pylist() if row["status"] == "completed")
    run.write_trial(row)
    unsealed = {"seal": lambda content, at: None, "seal_holds": lambda content: None}

    def without(work: Callable[[], Any]) -> Callable[[], Any]:
        def do() -> None:
            with mock.patch.multiple(parts, **unsealed):
                work()

        return do

    def write() -> None:
        run.write_trial(row)

    def read() -> None:
        read_parts(run.trials, trial_schema())

    found = {"write the row of a trial": (without(write), write), "read it": (without(read), read)}
    for name, width in (("0.1 MB", 150), ("48 MB", 3_500)):
        state, path = {"weights": torch.randn(width, width)}, folder / f"{width}.pt"
        write_atomically(path, sealed_state(state))

        def save(state: dict[str, Any] = state) -> None:
            torch.save(state, buffer := io.BytesIO())
            write_atomically(folder / "plain.pt", buffer.getbuffer())

        found[f"save a state of {name}"] = (save, lambda s=state, p=path: write_atomically(p, sealed_state(s)))
        found[f"load a state of {name}"] = (
            lambda p=path: torch.load(io.BytesIO(p.read_bytes()), weights_only=True),
            lambda p=path: read_state(p.read_bytes(), CPU),
        )
    return found


def _files(root: Path) -> set[Path]:
    """The files that a reader may not make: temporary names and locks come and go."""
    return {path for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def readme_table(found: dict[str, Any]) -> list[str]:
    """Return the table of the evidence, one line per kind of input."""
    lines = ["| input | damaged | said | same as before | taken as another text |", "|---|---|---|---|---|"]
    for row in found["rows"]:
        lines.append("| {kind} | {inputs:,} | {said:,} | {same:,} | {another:,} |".format(**row))
    return lines


def main() -> int:
    """Read the inputs, print the counts and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=10_000, help="how many inputs (default: 10,000)")
    parser.add_argument("--seed", type=int, default=0, help="decides the damage (default: 0)")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that fail")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "fuzzing.json")
    arguments = parser.parse_args()
    started, load = datetime.now(UTC), round(os.getloadavg()[0], 2)
    found = {
        "what": "damaged inputs of every kind, and what became of them",
        "date_utc": started.isoformat(timespec="seconds"),
        "command": "fuzzing.py",
        **{key: value for key, value in provenance().items() if key in ("versions", "hardware")},
        "load_average_at_start": load,
        "cost": cost(),
        **fuzz(arguments.inputs, arguments.seed, arguments.keep),
    }
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write("\n".join([*readme_table(found), f"slowest: {found['slowest_seconds']} s", ""]))
    for failure in found["failures"]:
        sys.stdout.write(f"{failure['kind']}, input {failure['number']}: {failure['how']}\n")
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
