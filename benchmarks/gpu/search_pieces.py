"""Searches CIFAR-N on a GPU that is lent in pieces of some minutes.

Run ``PYTHONPATH=. python benchmarks/gpu/search_pieces.py cifar10n cifar100n --epochs 40 --out $OUT`` in the
repository, and again with ``--resume FOLDER``, where FOLDER holds what the last piece left in ``--out``. A piece
trains whole trials and ends before its time is over; what a trial was when it ended stands in ``OUT/STUDY.tar.gz``
at once. See ``benchmarks/gpu/README.md``.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from filelock import FileLock
from rich.console import Console
from trial_loop import Clock, PieceEnds, TrialLoop, full_trials, missing

from nls_tune.errors import InputError
from nls_tune.files import write_atomically
from nls_tune.machine.provenance import provenance
from nls_tune.plan.plan import SearchPlan, make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_trials
from nls_tune.session.run_json import begin_run
from nls_tune.session.session import conclude_run
from nls_tune.training.compiling import Compiler


@dataclass(frozen=True)
class Study:
    """A dataset at one noise level, searched in the space of the same name beside this file."""

    dataset: str
    noise: str


STUDIES = {
    "cifar10n": Study("cifar10n", "human:worst"),
    "cifar100n": Study("cifar100n", "human:noisy"),
    "digits": Study("digits", "symmetric:0.4"),
}


@dataclass(frozen=True)
class Piece:
    """What one call does.

    Attributes:
        out: Where the archives go.
        resume: Where those of earlier pieces are; None for a first one.
        scratch: A folder of this machine: run directories, warm-ups, locks.
        deadline: In seconds of ``time.time``.
        epochs: Epochs a trial; None for the space's own.
        processes: Trainings at once.
        compile: ``auto``, ``on`` or ``off``.
        data_dir: Folder of data files.
    """

    out: Path
    resume: Path | None
    scratch: Path
    deadline: float
    epochs: int | None
    processes: int
    compile: str
    data_dir: Path | None

    def run(self, study: str) -> RunDirectory:
        """The run directory of a study."""
        return RunDirectory(self.scratch / "runs" / study)

    def archive(self, study: str) -> Path:
        """The archive of a study."""
        return self.out / f"{study}.tar.gz"


def plan_of(study: str, piece: Piece) -> SearchPlan:
    """Return the plan: that of the search with the same space and ``--sampler grid --scheduler none``."""
    settings = check_search_settings(
        dataset=STUDIES[study].dataset,
        noise=(STUDIES[study].noise,),
        space=str(Path(__file__).parent / f"{study}.yaml"),
        preset="gpu",
        sampler="grid",
        scheduler="none",
        estimate_noise=False,
        epochs=piece.epochs,
        data_dir=piece.data_dir,
    )
    return make_plan(settings, torch.cuda.device_count(), progress=False)


def pack(run: RunDirectory, archive: Path) -> None:
    """Write the results of a run into one file, whole or not at all."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path in (run.run_json, *sorted(run.trials.glob("[!.]*")), *sorted(run.epochs.glob("[!.]*"))):
            tar.add(path, path.relative_to(run.path).as_posix())
    archive.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(archive, buffer.getvalue())


def unpack(archive: Path, run: RunDirectory) -> None:
    """Add what an archive holds to a run directory; what is there already stays.

    Raises:
        InputError: If it is no archive of ``pack``.
    """
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                where = PurePosixPath(member.name)
                known = member.name == run.run_json.name or (
                    len(where.parts) == 2 and where.parts[0] in ("trials", "epochs") and where.suffix == ".parquet"
                )
                if not known or not member.isfile():
                    raise InputError(
                        f"{archive} holds {member.name}, which no run has; give an archive of this program"
                    )
                target = run.path / where
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(target, tar.extractfile(member).read())  # type: ignore[union-attr] # it is a file
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{archive} cannot be read ({error}); give what an earlier piece left in --out") from None


def hand_on(piece: Piece) -> None:
    """Copy the archives of earlier pieces, those of other studies too: the newest ``--out`` holds everything."""
    if piece.resume is None:
        return
    for study in STUDIES:
        archive, target = piece.resume / f"{study}.tar.gz", piece.archive(study)
        if archive.exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, archive.read_bytes())


def train(study: str, piece: Piece, run_id: str, plan: SearchPlan | None = None, index: int = 0) -> None:
    """Train in this process until the study is done or the time is over; the archive follows every trial.

    Raises:
        PieceEnds: If this process cannot go on.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    else:
        torch.set_num_threads(1)
    run = piece.run(study)
    compiler = Compiler(piece.compile)  # type: ignore[arg-type] # checked by argparse
    plan, clock = plan or plan_of(study, piece), Clock(piece.deadline)
    loop = TrialLoop(plan, run, run_id, piece.scratch, device, compiler, clock, piece.processes)
    for row in loop.run(index):
        with FileLock(piece.scratch / f"{study}.packing"):
            pack(run, piece.archive(study))
        best = "" if row["best_val_accuracy"] is None else f", val {100 * row['best_val_accuracy']:.1f} %"
        print(
            f"{study} {row['stage']} r={row['smooth_rate']:g} lr={row['lr']:g} seed {row['seed']}: {row['status']}"
            f"{best}, {row['wall_seconds']:.0f} s{'' if row['error'] is None else ', ' + row['error']}",
            flush=True,
        )


def run_study(study: str, piece: Piece) -> bool:
    """Go on with a study; returns whether it is finished.

    Raises:
        PieceEnds: If no process can go on; what has ended before stands in the archive.
    """
    run = piece.run(study)
    if piece.resume is not None and (archive := piece.resume / f"{study}.tar.gz").exists():
        unpack(archive, run)
    plan = plan_of(study, piece)
    run.create()
    with run.lock():
        content = begin_run(plan, run)
        left = len(missing(plan, run))
        print(
            f"{study}: {len(read_trials(run.path))} trials are there, at least {left} are left; the search costs "
            f"{full_trials(plan):.1f} trials of {plan.space.budget.epochs} epochs, CE warm-ups being shared",
            flush=True,
        )
        slots = {"count": piece.processes, "cpus_per_trial": 1, "gpus_per_trial": 1 / piece.processes}
        session: dict[str, Any] = {**provenance(), "started_at": datetime.now(UTC).isoformat(), "slots": slots}
        content["sessions"].append(session)
        run.write_json(content)
        try:
            _train_at_once(study, piece, content["run_id"], plan)
        finally:
            finished = not missing(plan, run)
            content["status"] = "finished" if finished else "interrupted"
            content["ended_by"] = "trials" if finished else None
            session["finished_at"] = datetime.now(UTC).isoformat()
            run.write_json(content)
            conclude_run(plan, run, content, Console(width=120))
            pack(run, piece.archive(study))
    return finished


def _train_in_worker(study: str, piece: Piece, run_id: str, index: int) -> None:
    try:
        train(study, piece, run_id, index=index)
    except PieceEnds as error:
        print(f"error: process {index + 1} ends: {error}", file=sys.stderr)
        sys.exit(1)


def _train_at_once(study: str, piece: Piece, run_id: str, plan: SearchPlan) -> None:
    if piece.processes == 1:
        train(study, piece, run_id, plan)
        return
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_train_in_worker, args=(study, piece, run_id, index)) for index in range(piece.processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed := [worker.exitcode for worker in workers if worker.exitcode]:
        said = f"{len(failed)} of {len(workers)} processes ended with exit code {failed[0]}"
        if len(failed) == len(workers):
            raise PieceEnds(said)
        print(said, file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one piece; exit code 0 finished, 3 something is left, 2 bad input, 1 this machine cannot go on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("studies", nargs="+", choices=list(STUDIES), help="in this order")
    parser.add_argument("--minutes", type=float, default=8.5, help="of this piece, start included (default: 8.5)")
    parser.add_argument("--out", type=Path, required=True, help="where the archives go")
    parser.add_argument("--resume", type=Path, help="folder with the archives of earlier pieces")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "nls_tune_pieces")
    parser.add_argument("--epochs", type=int, help="epochs a trial; by default those of the space")
    parser.add_argument("--processes", type=int, default=1, help="trainings at once")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="off", help="see README.md (default: off)")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args(arguments)
    if options.processes < 1 or options.minutes <= 0:
        parser.error(f"--processes and --minutes must be above 0, got {options.processes} and {options.minutes:g}")
    piece = Piece(
        options.out, options.resume, options.scratch, time.time() + 60 * options.minutes, options.epochs,
        options.processes, options.compile, options.data_dir,
    )  # fmt: skip
    left = []
    try:
        hand_on(piece)
        for study in options.studies:
            if time.time() >= piece.deadline or not run_study(study, piece):
                left.append(study)
    except (InputError, PieceEnds) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    if left:
        print(f"Left for the next piece: {' '.join(left)}. Carry the files of --out and give their folder as --resume.")
    return 3 if left else 0


if __name__ == "__main__":
    sys.exit(main())
