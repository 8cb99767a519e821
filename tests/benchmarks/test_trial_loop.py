"""The loop of trials without Ray, with trainings that are played: what each way to end means for those that follow."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import REPOSITORY
from trial_rows import trial_row

from nls_tune import read_trials
from nls_tune.errors import CompileError
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.schemas import SCHEMA_VERSION


@pytest.fixture
def pieces(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks" / "gpu"))
    import search_pieces

    return search_pieces


class Loop:
    """A piece of digits whose trainings are played: each call of ``errors`` says how the next trial ends."""

    def __init__(self, pieces, monkeypatch, folder: Path, errors, device="cpu", processes=1) -> None:
        import trial_loop

        self.began: list[str] = []

        class Played:
            def __init__(self, dataset, settings, device, **more):
                outer.began.append(f"{settings.smooth_rate:g} {settings.lr:g} {settings.seed}")
                error = errors(len(outer.began))
                if error is not None:
                    raise error
                self.settings, self.history, self.epochs_reused = settings, [], 0
                self.finished, self.diverged = True, True
                self.val_accuracies = list

        outer = self
        monkeypatch.setattr(trial_loop, "Training", Played)
        monkeypatch.setattr(trial_loop.DeviceData, "load", lambda dataset, device: None)
        monkeypatch.setattr(
            trial_loop, "SharedWarmup", lambda *_: SimpleNamespace(close=lambda: None, abandon=lambda: None)
        )
        piece = pieces.Piece(folder, None, folder / "s", time.time() + 60, None, processes, "off", None)
        self.plan, self.run = pieces.plan_of("digits", piece), piece.run("digits")
        self.run.create()
        content = pieces.begin_run(self.plan, self.run)
        content["sessions"].append({"started_at": "2026-01-01T00:00:00+00:00", "slots": {"count": processes}})
        self.run.write_json(content)
        clock = trial_loop.Clock(piece.deadline)
        self.loop = trial_loop.TrialLoop(
            self.plan, self.run, "run", piece.scratch, torch.device(device), None, clock, processes
        )

    def statuses(self) -> dict[str, int]:
        return read_trials(self.run.path)["status"].value_counts().to_dict()


def test_a_trial_without_memory_is_tried_once_a_piece(pieces, tmp_path, monkeypatch):
    # The words of cuBLAS are not torch's own type.
    played = Loop(
        pieces, monkeypatch, tmp_path,
        lambda n: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x") if n in (2, 3) else None,
    )  # fmt: skip
    ended = list(played.loop.run())
    assert [row["status"] for row in ended[:4]] == ["diverged", "out_of_memory", "out_of_memory", "diverged"]
    assert len(played.began) == len(set(played.began)) == 6  # the grid, each once; nothing to confirm among diverged
    assert played.statuses() == {"diverged": 4, "out_of_memory": 2}
    again = Loop(pieces, monkeypatch, tmp_path, lambda n: None)
    assert len(list(again.loop.run())) == 2
    assert again.began == played.began[1:3]
    assert again.statuses() == {"diverged": 6}


def test_two_failures_in_a_row_end_the_piece_and_run_again_in_the_next(pieces, tmp_path, monkeypatch):
    from trial_loop import PieceEnds

    played = Loop(pieces, monkeypatch, tmp_path, lambda n: ValueError("bad\nmore") if n in (1, 3, 4) else None)
    with pytest.raises(PieceEnds, match=r"^2 trials failed one after another, the last with ValueError: bad$"):
        list(played.loop.run())
    assert played.statuses() == {"failed": 3, "diverged": 1}
    again = Loop(pieces, monkeypatch, tmp_path, lambda n: None)
    list(again.loop.run())
    assert set(played.began) - {played.began[1]} < set(again.began)
    assert again.statuses() == {"diverged": 6}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (lambda: torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), "cannot use its GPU"),
        (lambda: RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `x`"), "cannot use its GPU"),
        (lambda: CompileError("resnet34 cannot be compiled here; use --compile off"), "use --compile off"),
    ],
)
def test_what_every_trial_would_fail_for_ends_the_piece_without_a_row(pieces, tmp_path, monkeypatch, error, said):
    from trial_loop import PieceEnds

    played = Loop(pieces, monkeypatch, tmp_path, lambda n: error() if n == 2 else None)
    rows = played.loop.run()
    next(rows)
    with pytest.raises(PieceEnds, match=said) as raised:
        next(rows)
    assert "\n" not in str(raised.value)
    assert len(played.began) == 2
    assert played.statuses() == {"diverged": 1}


def test_every_trial_has_a_peak_of_memory_of_its_own(pieces, tmp_path, monkeypatch):
    resets = []
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: resets.append(1))
    played = Loop(pieces, monkeypatch, tmp_path, lambda n: None, device="cuda")
    assert len(list(played.loop.run())) == len(resets) == 6


def test_the_seconds_of_earlier_pieces_are_those_of_this_many_processes(pieces, tmp_path):
    from trial_loop import earlier_seconds

    run = RunDirectory(tmp_path)
    run.create()
    sessions = [
        {"started_at": "2026-01-01T00:00:00+00:00", "slots": {"count": 1}},
        {"started_at": "2026-01-01T01:00:00.5+00:00", "slots": {"count": 4}},
    ]
    run.write_json({"schema_version": SCHEMA_VERSION, "sessions": sessions})
    assert earlier_seconds(run, "H", 2) == []
    epoch = {
        "run_id": "r", "noise_level": "clean", "arm": "ce", "smooth_rate": 0.0, "node": "n", "epoch": 1,
        "phase": "warmup", "lr": 0.1, "train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5,
        "test_accuracy": None, "diverged": False, "peak_memory_bytes": 1,
    }  # fmt: skip
    for name, hour, seconds, device in (("a", 0, 3.0, "H"), ("b", 2, 20.0, "H"), ("c", 2, 7.0, "other")):
        started = datetime(2026, 1, 1, hour, 30, tzinfo=UTC)
        run.write_trial({**trial_row(), "trial_id": name, "started_at": started})
        run.write_epochs([{**epoch, "trial_id": name, "device": device, "seconds": seconds}])
    assert sorted(earlier_seconds(run, "H", 2)) == [3.0 * 2 / 1, 20.0 * 2 / 4]
