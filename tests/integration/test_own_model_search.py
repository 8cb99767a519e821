"""A user's own network in real workers, from the folder that it lies in."""

import re

import pytest
from commands import run_search

from nls_tune import read_trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
CODE = """
from torch import nn

def build(num_classes, input_shape):
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.ReLU(), nn.Linear(8, num_classes))
"""
SEARCH = (
    "--dataset", "twonorm",
    "--noise", "symmetric:0.4", "--model", "mymodels:build", "--num-trials", "3", "--epochs", "3",
    "--train-size", "200", "--confirm-seeds", "0", "--out", "run",
)  # fmt: skip


def test_a_search_with_a_network_of_ones_own(tmp_path):
    (tmp_path / "mymodels.py").write_text(CODE)
    done = run_search(*SEARCH, folder=tmp_path, seconds=200)
    assert done.code == 0, done
    trials = read_trials(tmp_path / "run")
    assert len(trials) == 3
    assert set(trials["status"]) <= {"completed", "stopped"}, trials["error"].tolist()
    (model,) = set(trials["config_model"])
    assert re.fullmatch("mymodels:build@[0-9a-f]{8}", model)
    # Another network under the same name is another search.
    (tmp_path / "mymodels.py").write_text(CODE.replace("8", "9"))
    changed = run_search(*SEARCH, folder=tmp_path)
    assert changed.has_failed_in_one_line()
    assert f"space.fixed.model: {model} -> mymodels:build@" in changed.err
