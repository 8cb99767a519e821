"""The programs for borrowed GPUs, rehearsed on the CPU: pieces lose nothing, archives travel, measurements are said."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from commands import REPOSITORY, environment

from nls_tune import read_epochs, read_trials

FOLDER = REPOSITORY / "benchmarks" / "gpu"
#: Runs a program on a machine that lacks some packages: NAMES PROGRAM ARGUMENTS.
WITHOUT = """
import runpy, sys
class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in lacking:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
lacking = sys.argv[1].split(",")
sys.meta_path.insert(0, Lacking())
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def without(packages: str, program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", WITHOUT, packages, str(FOLDER / program), *arguments]


@pytest.fixture
def pieces(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import search_pieces

    return search_pieces


@pytest.fixture
def carry(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import carry

    return carry


def archived(out: Path, into: Path) -> pd.DataFrame:
    """What an archive holds, read as whoever gets it reads it."""
    with tarfile.open(out / "digits.tar.gz") as tar:
        tar.extractall(into, filter="data")
    return read_trials(into).set_index("trial_id").sort_index()


def same_rows(before: pd.DataFrame, after: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(before, after.loc[before.index])


def test_a_killed_piece_loses_no_finished_trial(pieces, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    command = without("ray,cmaes,sqlalchemy,alembic", "search_pieces.py", "digits", "--out", str(first))
    process = subprocess.Popen(
        [*command, "--scratch", str(tmp_path / "one")], env=environment(), stdout=subprocess.PIPE, text=True
    )
    ended = []
    for line in process.stdout:
        ended += [line] if "completed" in line else []
        if len(ended) == 3:
            process.kill()  # in the middle of a trial, without a word of warning
            break
    process.wait()
    assert len(ended) == 3, "it ended by itself"
    before = archived(first, tmp_path / "before")
    assert len(before) >= 3

    # Another machine: nothing but the archive is there. It has no time at all, then enough.
    arguments = ["digits", "--resume", str(first), "--scratch", str(tmp_path / "two")]
    assert pieces.main([*arguments, "--out", str(second), "--minutes", "1e-9"]) == 3
    assert "Left for the next piece: digits" in capsys.readouterr().out
    same_rows(before, archived(second, tmp_path / "handed on"))
    assert pieces.main([*arguments, "--out", str(second), "--minutes", "2"]) == 0
    after = archived(second, tmp_path / "after")
    same_rows(before, after)
    assert set(after["status"]) == {"completed"}
    # Every point of the grid once, then the winner of each arm and CE with fresh seeds.
    assert after["stage"].value_counts()["search"] == 3 * 2
    confirmed = after[after["stage"] == "confirm"].groupby(["arm", "smooth_rate", "lr"])["seed"].agg(sorted)
    assert set(confirmed.index.get_level_values("arm")) == {"ce", "positive", "negative"}
    assert all(seeds == [1, 2] for seeds in confirmed)
    assert (read_epochs(tmp_path / "after").groupby("trial_id").size() == after["epochs"]).all()

    # It is a run like any other: done, with one session a piece.
    content = json.loads((tmp_path / "after" / "run.json").read_text())
    assert (content["status"], len(content["sessions"])) == ("finished", 2)
    assert [level["noise_level"] for level in content["selection"]] == ["symmetric:0.4"]
    assert pieces.main([*arguments, "--out", str(second)]) == 0
    same_rows(after, archived(second, tmp_path / "again"))


def test_a_trial_that_does_not_fit_is_not_begun(pieces, tmp_path, monkeypatch):
    import trial_loop

    clock = trial_loop.Clock(time.time() + 100)
    assert clock.fits(10_000)  # nothing is known yet
    clock.epoch_seconds += [50.0, 1.0, 1.0]
    assert clock.fits(80)
    assert not clock.fits(90)
    clock.earlier += [9.0] * 50  # of another mode: those of this one count
    assert clock.fits(80)
    del clock.epoch_seconds[1:]
    assert clock.fits(9)
    assert not clock.fits(10)
    monkeypatch.setattr(trial_loop.Clock, "fits", lambda self, epochs: epochs <= 2)  # a GLS phase, and no warm-up
    arguments = ["digits", "--out", str(tmp_path / "out"), "--scratch", str(tmp_path / "s"), "--minutes", "1"]
    assert pieces.main(arguments) == 3
    run = tmp_path / "s" / "runs" / "digits"
    assert read_trials(run).empty
    assert archived(tmp_path / "out", tmp_path / "read").empty


def test_a_machine_that_cannot_go_on_is_said_and_what_ended_travels(pieces, tmp_path, monkeypatch, capsys):
    def train(study, piece, run_id, plan=None, index=0):
        raise pieces.PieceEnds("no GPU")

    monkeypatch.setattr(pieces, "train", train)
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(pieces.multiprocessing, "get_context", lambda method: context)
    for processes, said in (("1", "error: no GPU\n"), ("2", "error: 2 of 2 processes ended with exit code 1\n")):
        out = tmp_path / processes
        arguments = ["digits", "cifar10n", "--out", str(out), "--scratch", str(tmp_path / "s"), "--minutes", "1"]
        assert pieces.main([*arguments, "--processes", processes]) == 1
        assert capsys.readouterr().err == said
        assert archived(out, tmp_path / "read").empty


@pytest.mark.parametrize("name", ["../run.json", "trials/../../x.parquet", "checkpoints/a.pt"])
def test_foreign_archives_are_refused(pieces, tmp_path, capsys, name):
    with tarfile.open(tmp_path / "digits.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    scratch = tmp_path / "s"
    arguments = ["digits", "--out", str(tmp_path / "o"), "--resume", str(tmp_path), "--scratch", str(scratch)]
    assert pieces.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name in error
    (tmp_path / "digits.tar.gz").write_bytes(b"torn")
    assert pieces.main(arguments) == 2
    assert not scratch.exists() or not list(scratch.rglob("*.parquet"))


@pytest.mark.parametrize(("name", "rate"), [("cifar10n", -0.8075), ("cifar100n", -0.6837)])
def test_the_spaces_for_gpus_cost_what_they_say(pieces, name, rate):
    from nls_tune.spaces.reading import load_space

    for epochs in (100, 40):
        space = load_space(FOLDER / f"{name}.yaml", epochs=epochs)
        settings = [
            space.settings({"smooth_rate": r, "lr": lr}, 0)
            for r in space.space["smooth_rate"].values
            for lr in space.space["lr"].values
        ]
        (_,) = {json.dumps([s.warmup_settings(), s.warmup_epochs]) for s in settings}  # one for all
        gls = sum(s.epochs - s.warmup_epochs for s in settings)
        assert settings[0].warmup_epochs + gls <= 4 * epochs
        assert {s.model for s in settings} == {"resnet34"}
        rates = [settings[0].learning_rate(epoch) for epoch in (1, settings[0].warmup_epochs)]
        assert rates == pytest.approx([0.1, 0.01])
    negative = sorted(r for r in space.space["smooth_rate"].values if r < 0)
    assert negative[0] < rate < negative[-1]  # on both sides of the noise-cancelling rate
    assert sum(r > 0 for r in space.space["smooth_rate"].values) == 1


def test_what_is_carried_in_parts_arrives(carry, tmp_path, capsys):
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    contents = {"a.bin": os.urandom(2500), "deep/b.bin": os.urandom(10), "empty": b""}
    for name, content in contents.items():
        (data / name).write_bytes(content)
    parts = carry.split([data], tmp_path / "parts", 1000)
    assert len(parts) == 3
    assert all(sum(p.stat().st_size for p in part.iterdir() if p.name != "manifest.json") <= 1000 for part in parts)
    into = tmp_path / "arrived"
    for part in reversed(parts[1:]):  # one call each, in any order
        assert carry.main(["join", str(part), "--into", str(into)]) == 1
    assert carry.main(["join", str(parts[0]), "--into", str(into)]) == 0
    assert carry.main(["join", *map(str, parts), "--into", str(into)]) == 0  # and again
    assert {p.relative_to(into / "data").as_posix() for p in into.rglob("*") if p.is_file()} == set(contents)
    assert all((into / "data" / name).read_bytes() == content for name, content in contents.items())

    capsys.readouterr()
    damaged = next(parts[1].glob("*a.bin*"))
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    assert carry.main(["join", *map(str, parts), "--into", str(tmp_path / "other")]) == 2
    assert "SHA-256 differs" in capsys.readouterr().err
    assert not (tmp_path / "other" / "data" / "a.bin").exists()


def test_why_a_process_could_not_measure_is_said(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import measure

    said = []
    monkeypatch.setattr(measure, "_epochs", lambda *_: 1 / 0)
    measure._process(None, type("Pipe", (), {"send": staticmethod(said.append)}))
    assert said == ["ZeroDivisionError: division by zero"]


def fork_instead(monkeypatch, measure):
    """Let processes be copies of this one: quick, and they see what a test has replaced."""
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(measure.multiprocessing, "get_context", lambda method: context)


@pytest.mark.parametrize("ending", ["killed", "failed", "silent"])
def test_processes_do_not_wait_for_one_that_is_gone(monkeypatch, ending):
    monkeypatch.syspath_prepend(str(FOLDER))
    import measure

    fork_instead(monkeypatch, measure)
    if ending == "silent":
        monkeypatch.setattr(measure, "_PATIENCE", 0.3)
    pids, number = multiprocessing.get_context("fork").SimpleQueue(), multiprocessing.get_context("fork").Value("i", 0)

    def epochs(barrier, *_):
        pids.put(os.getpid())
        with number.get_lock():
            number.value += 1
            first = number.value == 1
        if ending == "killed" and not first:
            while barrier.n_waiting == 0:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        if ending == "failed" and not first:
            raise ZeroDivisionError("no room")
        barrier.wait() if ending != "silent" else time.sleep(60)

    monkeypatch.setattr(measure, "_epochs", epochs)
    begin = time.monotonic()
    words = {
        "killed": "was killed",
        "failed": "^ZeroDivisionError: no room$",
        "silent": "2 of 2 processes said nothing",
    }
    with pytest.raises(RuntimeError, match=words[ending]):
        measure.train_at_once(measure.SMALL, 32, "off", 2)
    assert time.monotonic() - begin < 20
    for _ in range(2):
        with pytest.raises(ProcessLookupError):
            os.kill(pids.get(), 0)


def test_what_a_search_must_be_told_is_measured_before_the_race(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import measure

    names = list(measure.sections(replace(measure.Scale(), device="cpu")))
    assert names[:6] == ["matmul", "training-128", "training-512", "packed-2", "packed-4", "compiled-128"]
    assert names[6:9] == ["reference-128", "reference-512", "compiled-512"]


def test_the_measurements_are_said_one_by_one_and_kept(tmp_path):
    arguments = ["--small", "--only", "matmul", "training", "loss"]
    done = subprocess.run(
        without("ray,optuna,cmaes", "measure.py", *arguments),
        env=environment({"OUT": str(tmp_path / "out")}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines == json.loads((tmp_path / "out" / "measure.json").read_text())
    assert [line["section"] for line in lines] == ["machine", "matmul", "training-32", "loss-1024x1000"]
    training = lines[2]
    epoch = training["epoch_seconds"][0][0]
    assert training["share_of_matmul"] == pytest.approx(
        96 / epoch * training["flops_per_image"] / lines[1]["flops_per_second"]
    )
    extrapolated = training["seconds_of_100_epochs"]
    assert extrapolated["value"] == pytest.approx(training["first_step_seconds"][0] + 100 * epoch)
    assert extrapolated["extrapolated_from_epochs"] == len(training["epoch_seconds"][0])
