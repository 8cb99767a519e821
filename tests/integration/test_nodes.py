"""Clusters of several nodes on this machine: asked before the first trial, one lost in the middle, one joining."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import SEARCH, Done, environment, started, wait_until

from nls_tune import read_trials
from nls_tune.runs.audit import audit_run
from nls_tune.tune.preflight import ask_nodes

pytestmark = pytest.mark.timeout(400)
#: Trials of some seconds, so that a node is lost in the middle of some.
ARGUMENTS = (
    "--noise", "symmetric:0.4", "--epochs", "60", "--num-trials", "4", "--train-size", "1000", "--preset", "cpu",
    "--scheduler", "none", "--confirm-seeds", "0", "--out", "run",
)  # fmt: skip
#: A cluster with tokens would refuse workers that have none.
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled"}


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
    assert_whole(tmp_path / "run", 4)
