"""Every example runs as it stands, with a budget that is small."""

from __future__ import annotations

import sys

import pytest
from commands import REPOSITORY, run

from nls_tune import read_trials

#: The arguments of each example; one that is missing here is a failure.
ARGUMENTS = {
    "quickstart.py": ("--num-trials", "4", "--epochs", "6", "--train-size", "500", "--out", "run"),
}


def test_every_example_is_run():
    assert {file.name for file in (REPOSITORY / "examples").glob("*.py")} == set(ARGUMENTS)


@pytest.mark.timeout(150)
def test_quickstart(tmp_path):
    program = str(REPOSITORY / "examples" / "quickstart.py")
    # Nothing answers there: without an address in its settings a search runs here, whatever the environment says.
    env = {"RAY_ADDRESS": "127.0.0.1:1"}
    done = run(sys.executable, program, *ARGUMENTS["quickstart.py"], folder=tmp_path, env=env, seconds=120)
    assert (done.code, done.err) == (0, "")
    trials = read_trials(tmp_path / "run")
    assert len(trials) == 4
    best = trials[trials["status"] == "completed"].groupby("arm")["best_val_accuracy"].max()
    recommended = best.idxmax()
    first, *table = done.out.splitlines()
    assert first == f"symmetric:0.4: arm {recommended}, noise-cancelling rate -4"
    for arm, accuracy in best.items():
        (row,) = [line for line in table if f" {arm} " in line]
        assert f"{accuracy:.6f}".rstrip("0")[:7] in row
    assert sum("test_accuracy_at_best" in line for line in table) == 3
