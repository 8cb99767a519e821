"""The same search on a Ray cluster that runs already, and addresses at which there is none."""

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from commands import Done, run, run_search
from ray_programs import ENVIRONMENT, free_port, heads, is_healthy
from watching import ARGUMENTS

from nls_tune import read_trials

pytestmark = pytest.mark.timeout(240)
NLS_TUNE = (sys.executable, "-m", "nls_tune.cli.main")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a cluster of two CPUs."""
    with heads(tmp_path_factory.mktemp("cluster")) as start:
        yield start()[0]


@pytest.fixture(scope="module")
def searched(address, tmp_path_factory) -> tuple[Done, Path]:
    folder = tmp_path_factory.mktemp("driver")
    # A worker finds the package although the cluster was not started where it is. "auto" is the cluster of
    # RAY_ADDRESS before any other, and must not be somebody else's on this machine.
    env = {**ENVIRONMENT, "RAY_ADDRESS": address}
    arguments = (*ARGUMENTS, "--out", "run", "--address", "auto", "--warmup-store", "store")
    done = run_search(*arguments, folder=folder, env=env, seconds=120)
    return done, folder / "run"


def test_it_succeeds_leaves_no_checkpoint_and_fills_the_store_of_warm_ups(searched):
    done, run = searched
    assert (done.code, done.err) == (0, "")
    assert list((run / "checkpoints").iterdir()) == []
    stored = list((run.parent / "store").iterdir())  # and no file that looked whether the nodes see the folder
    assert stored
    assert all(list(warmup.glob("epoch-*.pt")) for warmup in stored)


def test_the_trials_are_those_of_a_search_on_this_machine(searched, watched_search):
    """Which trials a sampler draws depends on the order in which others end; the start points do not."""
    here, there = (read_trials(path).set_index("trial_id") for path in (watched_search.run, searched[1]))
    assert len(there) == len(here) == 12
    assert there.groupby(["noise_level", "arm"]).size().equals(here.groupby(["noise_level", "arm"]).size())
    both = sorted(set(here.index) & set(there.index))
    starts = here[(here["smooth_rate"].isin([0, 0.1])) & (here["lr"] == 0.003)].index
    assert len(starts) == 4
    assert set(starts) <= set(both)
    ended = [trial for trial in both if here.loc[trial, "epochs"] == there.loc[trial, "epochs"]]
    assert ended
    for name in ("best_val_accuracy", "best_epoch", "last_test_accuracy", "val_correct_at_best"):
        pd.testing.assert_series_equal(here.loc[ended, name], there.loc[ended, name])


def test_the_cluster_goes_on_and_can_be_named_by_its_address(searched, address, tmp_path):
    assert is_healthy(address)
    done = run_search(*ARGUMENTS, "--address", address, "--dry-run", folder=tmp_path, env=ENVIRONMENT)
    assert (done.code, done.err) == (0, "")
    assert "2 noise levels, 12 trials" in done.out


def test_the_doctor_asks_the_nodes_of_the_cluster_and_reads_the_run(searched, address):
    command = (*NLS_TUNE, "doctor", str(searched[1]), "--address", address, "--json")
    done = run(*command, folder=searched[1].parent, env=ENVIRONMENT)
    assert done.err == ""
    found = json.loads(done.out)
    assert done.code == {"ok": 0, "warning": 1}[found["state"]]  # the machine may be short of something
    said = {check["name"]: check for check in found["checks"]}
    assert f"answers at {address}" in said["ray"]["found"]
    for name in ("ray", "node", "run"):
        assert said[name]["state"] == "ok", said[name]
    assert "can take part, with 2 CPUs and 0 GPUs" in said["node"]["found"]
    assert "12 trials" in said["run"]["found"]
    assert not list(searched[1].glob(".probe*"))


def test_the_doctor_starts_ray_here(tmp_path):
    done = run(*NLS_TUNE, "doctor", folder=tmp_path, env={"RAY_AUTH_MODE": None})
    assert done.code in (0, 1), done
    assert re.search(r"^ok +ray +starts here in [\d.]+ s, with ", done.out, re.M)
    assert re.search(r"^ok +node .* can take part", done.out, re.M)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "address", [pytest.param(f"127.0.0.1:{free_port()}", id="free port"), "no such address", "127.0.0.1:port"]
)
def test_an_address_without_a_cluster_is_refused(tmp_path, address):
    done = run_search(*ARGUMENTS, "--out", "run", "--address", address, folder=tmp_path, env=ENVIRONMENT)
    assert done.has_failed_in_one_line(), done
    assert f"no Ray cluster answers at {address!r}" in done.err
    assert "ray start --head" in done.err
    assert not (tmp_path / "run").exists()
