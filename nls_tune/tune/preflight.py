"""Every node of a cluster is asked, before the first trial, whether it can take part in a search."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nls_tune.errors import InputError, error_line

#: The facts of a node: versions by name, then what it says of its folders and GPUs.
Answer = dict[str, Any]
#: A node whose storage hangs, or that was lost a moment ago, says nothing.
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class NodeReport:
    """A node of the cluster: its name, its CPUs and GPUs, and what keeps it from taking part."""

    name: str
    cpus: int
    gpus: int
    problems: tuple[str, ...]


def check_nodes(folders: Mapping[str, Path]) -> None:
    """Check every node, also that it sees and writes the ``folders``, which are the shared ones by their flags.

    Raises:
        InputError: For the first problem; the others are its notes.
    """
    raise_problems([problem for node in ask_nodes(folders) for problem in node.problems])


def raise_problems(problems: Sequence[str]) -> None:
    """Raise InputError for the first problem, if there is one; the others are its notes."""
    if problems:
        error = InputError(problems[0])
        for problem in problems[1:]:
            error.add_note(problem)
        raise error


def ask_nodes(folders: Mapping[str, Path]) -> list[NodeReport]:
    """Ask every node that is alive, all at once; ``folders`` are the shared ones by their flags.

    In each folder the driver writes a file that the nodes read, and each node one that the driver reads.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call] # Ray's
    probes = {flag: folder / f".probe-{secrets.token_hex(8)}" for flag, folder in folders.items()}
    look = ray.remote(num_cpus=0, max_retries=0)(_look_function())
    try:
        for probe in probes.values():
            probe.write_text("driver", encoding="ascii")
        asked = [
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                node["NodeID"], [str(probe) for probe in probes.values()], bool(node["Resources"].get("GPU"))
            )
            for node in nodes
        ]
        done, _ = ray.wait(asked, num_returns=len(asked), timeout=PATIENCE_SECONDS)
        return [
            _report(node, name, _answer(answer, answer in done), probes)
            for node, name, answer in zip(nodes, node_names(nodes), asked, strict=True)
        ]
    finally:
        for probe in probes.values():
            for file in probe.parent.glob(f"{probe.name}*"):
                file.unlink(missing_ok=True)


def _look_function() -> Any:
    """Return what runs on a node.

    A function inside another one travels whole: a node that lacks the package, or has an old one, answers all the same.
    """

    def look(node: str, probes: list[str], asks_gpus: bool) -> Answer:
        import hashlib
        import os
        import platform
        from pathlib import Path

        import ray

        found: Answer = {"Python": platform.python_version(), "Ray": ray.__version__, "folders": []}
        try:
            from nls_tune import _version

            package = Path(_version.__file__).parent
            content = [file.read_bytes() for file in sorted(package.rglob("*.py"))]
            digest = hashlib.sha256(b"\0".join(content)).hexdigest()[:8]
            found["nls_tune"] = f"{_version.__version__} (code {digest})"
        except Exception as error:
            found["nls_tune"], found["error"] = None, f"{type(error).__name__}: {error}"
        for probe in map(Path, probes):
            try:
                seen = probe.read_text(encoding="ascii") == "driver"
                probe.with_name(f"{probe.name}.{node}").write_text(node, encoding="ascii")
                found["folders"].append("" if seen else "is another folder")
            except FileNotFoundError:
                found["folders"].append("is not there")
            except OSError as error:
                found["folders"].append(f"cannot be written ({error.strerror})")
        if asks_gpus and found["nls_tune"] is not None:
            # Ray hides the GPUs from whatever asks for none.
            hidden = {name: os.environ.pop(name, None) for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")}
            try:
                from nls_tune.machine.hardware import find_gpus

                gpus = find_gpus()
                found["gpus"], found["gpu_problem"] = len(gpus.found), gpus.problem
            except Exception as error:
                found["gpus"], found["gpu_problem"] = 0, str(error)
            finally:
                os.environ.update({name: value for name, value in hidden.items() if value is not None})
        return found

    return look


def _answer(asked: Any, has_come: bool) -> Answer | str:
    """Return what a node said, or why it said nothing."""
    import ray

    if not has_come:
        return f"does not answer within {PATIENCE_SECONDS:.0f} s"
    try:
        answer: Answer = ray.get(asked)
    except Exception as error:  # of the node, of Ray, or of the way between them
        return f"cannot run a task ({error_line(error)})"
    return answer


def node_names(nodes: list[Any]) -> list[str]:
    """Return each node's host and address, and the first digits of its id where these are shared."""
    names = [f"{node['NodeManagerHostname']} ({node['NodeName'] or node['NodeManagerAddress']})" for node in nodes]
    return [
        f"{name[:-1]}, {node['NodeID'][:6]})" if names.count(name) > 1 else name
        for name, node in zip(names, nodes, strict=True)
    ]


def _report(node: Any, name: str, answer: Answer | str, probes: Mapping[str, Path]) -> NodeReport:
    cpus, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
    if isinstance(answer, str):
        problem = f"node {name} {answer}; mend it, or take it out of the cluster with 'ray stop' there"
        return NodeReport(name, cpus, gpus, (problem,))
    problems = [*_version_problems(name, answer), *_folder_problems(node["NodeID"], name, answer, probes)]
    if answer.get("gpus", gpus) < gpus:
        reason = f": {answer['gpu_problem']}" if answer["gpu_problem"] else ""
        problems.append(
            f"node {name} has promised {gpus} GPUs, torch sees {answer['gpus']} there{reason}; "
            "mend torch or the driver there, or start Ray there with the right --num-gpus"
        )
    return NodeReport(name, cpus, gpus, tuple(problems))


def _version_problems(name: str, answer: Answer) -> list[str]:
    if answer["nls_tune"] is None:
        return [f"node {name} cannot import nls_tune ({answer['error']}); install it in the Python that runs Ray there"]
    here = _look_function()("here", [], False)
    return [
        f"node {name} has {what} {answer[what]}, the search has {here[what]}; install the same on both"
        for what in ("nls_tune", "Ray", "Python")
        if _series(what, answer[what]) != _series(what, here[what])
    ]


def _series(what: str, version: str) -> str:
    """Return the part of a version that must agree: of Python's the first two numbers."""
    return ".".join(version.split(".")[:2]) if what == "Python" else version


def _folder_problems(node_id: str, name: str, answer: Answer, probes: Mapping[str, Path]) -> list[str]:
    problems = []
    for (flag, probe), problem in zip(probes.items(), answer["folders"], strict=True):
        must = f"{flag} must be a folder that every node sees and can write to, {probe.parent}"
        if problem:
            problems.append(f"{must} {problem} on node {name}; give one on shared storage")
        elif not probe.with_name(f"{probe.name}.{node_id}").is_file():
            problems.append(f"{must} is another one on node {name}; give one on shared storage")
    return problems
