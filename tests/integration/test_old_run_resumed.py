"""A run of version 0.1, before the modules moved, which Ctrl-C had interrupted, goes on with its own command."""

import json
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
import torch
from commands import Done, run_search

from nls_tune import read_epochs, read_trials

pytestmark = pytest.mark.timeout(240)
OLD = Path(__file__).parents[1] / "data" / "run_0.1" / "interrupted"
#: The command that made the run, but with no confirmation, which would train 14 more trials; and without what the space
#: of later versions has besides.
ARGUMENTS = (
    "--dataset", "twonorm",
    "--noise", "symmetric:0.2,symmetric:0.4", "--num-trials", "6", "--epochs", "30", "--train-size", "1000",
    "--preset", "cpu", "--confirm-seeds", "0", "--set", "clip_norm=0", "--set", "average_spans=[]", "--out", "run",
)  # fmt: skip
INTERRUPTED = {"1e0632b5ad8e2008", "9055185889f12dcd"}


@dataclass(frozen=True)
class Resumed:
    """The run after its resume, and the output."""

    run: Path
    done: Done


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> Resumed:
    folder = tmp_path_factory.mktemp("old")
    shutil.copytree(OLD, folder / "run")
    return Resumed(folder / "run", run_search(*ARGUMENTS, folder=folder, seconds=200))


def test_it_finishes_and_says_so(resumed):
    assert (resumed.done.code, resumed.done.err) == (0, "")
    before, after = (json.loads((run / "run.json").read_text(encoding="utf-8")) for run in (OLD, resumed.run))
    assert (before["status"], after["status"]) == ("interrupted", "finished")
    assert after["run_id"] == before["run_id"]
    assert datetime.fromisoformat(after["created_at"]) == datetime.fromisoformat(before["created_at"])
    assert after["identity"]["fingerprints"] == before["identity"]["fingerprints"]
    ends = [datetime.fromisoformat(one["finished_at"]) for one in (before["sessions"][0], *after["sessions"])]
    assert ends[0] == ends[1] < ends[2]
    assert len(after["sessions"]) == 2


def test_rows_that_were_there_stay_byte_for_byte(resumed):
    kept = [part for part in OLD.glob("*/*.parquet") if part.stem not in INTERRUPTED]
    assert len(kept) == 2 * (8 + 1)
    for part in kept:
        assert (resumed.run / part.relative_to(OLD)).read_bytes() == part.read_bytes()


def test_only_what_was_missing_is_trained(resumed):
    trials, before = read_trials(resumed.run).set_index("trial_id"), read_trials(OLD).set_index("trial_id")
    assert trials.groupby(["noise_level", "arm"]).size().to_dict() == {
        (level, arm): count
        for level in ("symmetric:0.2", "symmetric:0.4")
        for arm, count in (("ce", 2), ("negative", 3), ("positive", 1))
    }
    assert set(trials["status"]) <= {"completed", "stopped", "diverged"}
    assert set(before.index) < set(trials.index)
    assert set(before.index[before["status"] == "interrupted"]) == INTERRUPTED
    assert not any((resumed.run / "checkpoints").iterdir())


@pytest.mark.parametrize("name", sorted(INTERRUPTED))
def test_an_interrupted_trial_goes_on_from_its_checkpoint(resumed, name):
    state = torch.load(OLD / "checkpoints" / name / "state.pt", weights_only=True)
    saved = pd.DataFrame(state["history"])
    epochs = read_epochs(resumed.run)
    found = epochs[epochs["trial_id"] == name].reset_index(drop=True)
    assert found["epoch"].tolist() == list(range(1, len(found) + 1))
    assert len(found) >= len(saved) > 0
    # The seconds as well: these epochs were not trained again.
    pd.testing.assert_frame_equal(found[saved.columns][: len(saved)], saved, check_dtype=False)
