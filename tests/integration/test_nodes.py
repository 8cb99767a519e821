"""Clusters of several nodes on this machine: asked before the first trial, one lost in the middle, one joining."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import SEARCH, Done, environment, run, started, wait_until
from ray_programs import ENVIRONMENT, heads

from nls_tune import read_trials
from nls_tune.runs.audit import audit_run
from nls_tune.tune.preflight import ask_nodes

#: Not in the suite: minutes each, and after a cluster in this process a Ray of the caller does not always start.
pytestmark = [pytest.mark.soak, pytest.mark.timeout(400)]
#: Trials of some seconds, so that a node is lost in the middle of some.
ARGUMENTS = (
    "--dataset", "twonorm",
    "--noise", "symmetric:0.4", "--epochs", "60", "--num-trials", "4", "--train-size", "1000", "--preset", "cpu",
    "--scheduler", "none", "--confirm-seeds", "0", "--out", "run",
)  # fmt: skip


@pytest.fixture
def cluster(monkeypatch) -> Iterator[object]:
    """A head without CPUs, so that no trial runs beside it, and the nodes that a test adds."""
    from ray.cluster_utils import Cluster

    for name, value in {**ENVIRONMENT, "PYTHONPATH": environment()["PYTHONPATH"]}.items():
        monkeypatch.setenv(name, value)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


def assert_whole(run: Path, number: int) -> None:
    """Check that every trial is there once, and nothing is lost, doubled or torn."""
    assert [str(check) for check in audit_run(run) if check.state != "ok"] == []
    rows = read_trials(run)
    assert len(rows) == number
    assert set(rows["status"]) <= {"completed", "diverged"}
    assert list((run / "checkpoints").iterdir()) == []


def test_every_node_is_asked_and_one_without_its_gpu_is_named(cluster, tmp_path):
    import ray

    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1, num_gpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        nodes = ask_nodes({"--out": tmp_path})
    finally:
        ray.shutdown()
    assert sorted(node.cpus for node in nodes) == [0, 1, 1]
    assert len({node.name for node in nodes}) == 3
    (problem,) = [problem for node in nodes for problem in node.problems]
    (named,) = [node.name for node in nodes if node.gpus]
    assert f"node {named} has promised 2 GPUs, torch sees 0 there" in problem
    assert list(tmp_path.iterdir()) == []  # no file that was written to look whether the nodes see the folder


@pytest.mark.parametrize("joins", [False, True], ids=["lost", "lost-and-joined"])
def test_a_node_lost_without_grace_costs_no_trial(cluster, tmp_path, joins):
    lost, _ = (cluster.add_node(num_cpus=1) for _ in range(2))
    cluster.wait_for_nodes()
    with started(*SEARCH, *ARGUMENTS, "--address", cluster.address, folder=tmp_path, env=ENVIRONMENT) as program:
        epochs = tmp_path / "run" / "epochs"
        wait_until(lambda: len(list(epochs.glob("[!e]*.parquet"))) >= 2 or not program.running, "two trials run", 200)
        cluster.remove_node(lost, allow_graceful=False)
        if joins:
            cluster.add_node(num_cpus=1)
        done: Done = program.wait(300)
    assert (done.code, done.err) == (0, "")
    assert " lost its process: " in done.out
    assert re.search(r"trained again what no saved state had: \d+ epochs?, ", done.out)
    assert_whole(tmp_path / "run", 4)


def test_a_head_that_is_started_anew_ends_the_search_in_order_and_the_same_command_goes_on(tmp_path):
    with heads(tmp_path) as start_head:
        address, head = start_head()
        command = (*SEARCH, *ARGUMENTS, "--address", address)
        with started(*command, folder=tmp_path, env=ENVIRONMENT) as program:
            trials = tmp_path / "run" / "trials"
            wait_until(lambda: list(trials.glob("[!e]*.parquet")) or not program.running, "a trial has ended", 200)
            head.stop()
            ended = program.wait(100)
        assert ended.code == 130, ended
        port = address.rpartition(":")[2]  # Ray knows the head by another address of this machine
        assert re.search(rf"The head of the cluster at \S+:{port} has ended", ended.out), ended.out
        assert "Traceback" not in ended.out + ended.err
        before = read_trials(tmp_path / "run").set_index("trial_id")
        assert [check.state for check in audit_run(tmp_path / "run")] == ["warning"]  # it was interrupted
        start_head()
        done = run(*command, folder=tmp_path, env=ENVIRONMENT, seconds=300)
        assert (done.code, done.err) == (0, "")
    assert_whole(tmp_path / "run", 4)
    after = read_trials(tmp_path / "run").set_index("trial_id")
    kept = before[before["status"] != "interrupted"]["finished_at"]
    assert len(kept) >= 1
    assert (after["finished_at"].loc[kept.index] == kept).all()


def test_nodes_without_a_shared_folder_keep_states_behind_a_url(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # also of the nodes
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    there = tmp_path / "there"
    command = (*SEARCH, *ARGUMENTS, "--address", cluster.address, "--storage", f"file://{there}")
    first, other = tmp_path / "first", tmp_path / "other"
    for folder in (first, other):
        folder.mkdir()
    with started(*command, folder=first, env=ENVIRONMENT) as program:
        wait_until(
            lambda: len([*there.glob("epochs/[!e]*.parquet")]) >= 2 or not program.running, "two trials run", 200
        )
        program.press_ctrl_c()
        interrupted = program.wait(100)
    assert interrupted.code == 130, interrupted
    assert f"Stored: file://{there}" in interrupted.out
    states = {path.parent.name for path in there.glob("checkpoints/*/state.pt")}
    assert states
    assert not [*first.glob("run/checkpoints/*/state.pt")]
    assert not [*(tmp_path / "cache").glob("nls_tune/warmups/*")]  # each node had its own
    done = run(*command, folder=other, env=ENVIRONMENT, seconds=300)
    assert (done.code, done.err) == (0, "")
    assert "is trained anew" not in done.out
    assert_whole(other / "run", 4)
    assert not [*there.glob("checkpoints/*/*")]
    assert states <= {*read_trials(other / "run")["trial_id"]}
