"""Nodes of a cluster that cannot take part; the cluster itself is played."""

from types import SimpleNamespace

import pytest
import ray

from nls_tune import InputError
from nls_tune.runs.directory import RunDirectory
from nls_tune.tune import preflight

pytestmark = pytest.mark.slow


class PlayedCluster:
    """Nodes by their names, each with what it changes in the answer of this machine; an exception is raised."""

    def __init__(self, monkeypatch, **changes):
        self._changes = changes
        self.hanging: set[str] = set()
        for name in ("nodes", "remote", "wait", "get"):
            monkeypatch.setattr(ray, name, getattr(self, name))

    @staticmethod
    def _id(name: str) -> str:
        return name.encode().hex().ljust(56, "0")

    def nodes(self):
        return [
            {
                "Alive": True, "NodeID": self._id(name), "NodeManagerHostname": name, "NodeName": f"address-{name}",
                "NodeManagerAddress": f"address-{name}", "Resources": {"CPU": 2.0, "GPU": 2.0},
            }
            for name in self._changes
        ] + [{"Alive": False}]  # fmt: skip

    def remote(self, **options):
        def decorate(look):
            def ask(node, probes, asks_gpus):
                node = next(name for name in self._changes if self._id(name) == node)
                change = self._changes[node]
                if isinstance(change, Exception):
                    return node, change
                if "probes" in change:
                    probes = [str(change["probes"] / "probe")]
                answer = {**look(self._id(node), probes, False), "gpus": 2, "gpu_problem": None}
                return node, {**answer, **change}

            return SimpleNamespace(options=lambda **where: SimpleNamespace(remote=ask))

        return decorate

    def wait(self, asked, num_returns, timeout):
        return [one for one in asked if one[0] not in self.hanging], []

    def get(self, answer):
        if isinstance(answer[1], Exception):
            raise answer[1]
        return answer[1]


def test_nodes_that_are_alike_have_no_problem(monkeypatch, tmp_path):
    PlayedCluster(monkeypatch, a={}, b={})
    nodes = preflight.ask_nodes({"--out": tmp_path})
    assert [(node.name, node.cpus, node.gpus, node.problems) for node in nodes] == [
        ("a (address-a)", 2, 2, ()), ("b (address-b)", 2, 2, ())
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_every_problem_is_a_line_with_the_name_of_the_node(monkeypatch, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "probe").write_text("driver")
    cluster = PlayedCluster(
        monkeypatch,
        version={"nls_tune": "0.0.1 (code 00000000)"},
        ray={"Ray": "2.59.0"},
        python={"Python": "3.10.1"},
        missing={"nls_tune": None, "error": "ModuleNotFoundError: No module named 'nls_tune'"},
        gpus={"gpus": 1, "gpu_problem": None},
        driver={"gpus": 0, "gpu_problem": "the driver is too old"},
        gone={"probes": tmp_path / "no-such"},
        elsewhere={"probes": other},
        dead=RuntimeError("the node died"),
        hangs={},
    )
    cluster.hanging.add("hangs")
    run = RunDirectory(tmp_path / "run")
    run.create()
    with pytest.raises(InputError) as raised:
        preflight.check_nodes({"--out": run.path})
    lines = [str(raised.value), *raised.value.__notes__]
    expected = {
        "version": "has nls_tune 0.0.1 (code 00000000), the search has ",
        "ray": "has Ray 2.59.0, the search has ",
        "python": "has Python 3.10.1, the search has ",
        "missing": "cannot import nls_tune (ModuleNotFoundError: No module named 'nls_tune')",
        "gpus": "has promised 2 GPUs, torch sees 1 there; mend",
        "driver": "has promised 2 GPUs, torch sees 0 there: the driver is too old; mend",
        "gone": f"{run.path} is not there on node gone",
        "elsewhere": f"{run.path} is another one on node elsewhere",
        "dead": "cannot run a task (RuntimeError: the node died)",
        "hangs": "does not answer within 60 s",
    }
    for line, (name, words) in zip(lines, expected.items(), strict=True):
        assert f"node {name} (address-{name})" in line
        assert words in line
        assert "; " in line


def test_a_folder_that_a_node_cannot_write_to(monkeypatch, tmp_path):
    (tmp_path / ".probe-1").write_text("driver")
    look = preflight._look_function()
    assert look("a", [str(tmp_path / ".probe-1")], False)["folders"] == [""]
    (tmp_path / ".probe-1.b").mkdir()  # in the way, as rights would be
    assert look("b", [str(tmp_path / ".probe-1")], False)["folders"] == ["cannot be written (Is a directory)"]


def test_nodes_of_one_machine_are_told_apart():
    node = {"NodeManagerHostname": "vm", "NodeName": "10.0.0.1", "NodeManagerAddress": "10.0.0.1"}
    first, second = ({**node, "NodeID": name * 40} for name in "ab")
    assert preflight.node_names([first, second]) == ["vm (10.0.0.1, aaaaaa)", "vm (10.0.0.1, bbbbbb)"]
    assert preflight.node_names([first]) == ["vm (10.0.0.1)"]
