"""What the nodes of a cluster share: folders, or without them a storage; then each has warm-ups of its own."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs

from nls_tune.errors import InputError, error_line
from nls_tune.plan.settings import SearchSettings
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.storage.opening import reason_of
from nls_tune.runs.storage.store import Store
from nls_tune.tune.preflight import PATIENCE_SECONDS, check_nodes, node_names, raise_problems

#: Removing files must not hold up the end of a search.
_REMOVE_SECONDS = 10.0


@contextmanager
def checked_nodes(
    settings: SearchSettings, run: RunDirectory, warmups: Path | None, store: Store | None, run_id: str
) -> Iterator[None]:
    """Check that every node can take part in a search, and remove at the end what it has kept for itself.

    The ``warmups`` are the store of CE warm-ups, if any are shared.

    Raises:
        InputError: For the first node that cannot; the others are its notes.
    """
    folders = {} if store is not None else {"--out": run.path}
    if warmups is not None and settings.warmup_store is not None:
        folders["--warmup-store"] = warmups
    check_nodes(folders)
    raise_problems([] if store is None else storage_problems(store))
    try:
        yield
    finally:
        if settings.has_warmups_per_node:
            with suppress(Exception):  # of Ray, or of the way to a node: what is left is a folder in a cache
                list(on_every_node(_remove, _REMOVE_SECONDS, run_id))


def storage_problems(store: Store) -> list[str]:
    """Return a line for each node that does not read what this process has written to a storage, or not vice versa."""
    probe = f".probe-{secrets.token_hex(8)}"
    problems = []
    try:
        store.write(probe, b"driver")
        for name, node, problem in on_every_node(_look, PATIENCE_SECONDS, store.url, probe):
            found = problem or ("" if _has(store, f"{probe}.{node}") else "reaches another storage")
            if found:
                problems.append(f"--storage must be reached by every node, node {name} {found}; see its credentials")
    finally:
        with suppress(OSError):
            for name in [name for name in store.files() if name.startswith(probe)]:
                store.remove(name)
    return problems


def _has(store: Store, name: str) -> bool:
    try:
        store.state(name)
    except FileNotFoundError:
        return False
    return True


def _look(node: str, url: str, probe: str) -> str:
    """Read and write on a node; return what is wrong there."""
    try:
        store = Store(url)
        if store.read(probe) != b"driver":
            return "reaches another storage"
        store.write(f"{probe}.{node}", b"")
    except FileNotFoundError:
        return "reaches another storage"
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"cannot use it ({reason_of(error)[0]})"
    return ""


def node_warmups(run_id: str) -> Path:
    """Return the folder of a run's warm-ups on this node, in the user's cache."""
    return platformdirs.user_cache_path("nls_tune") / "warmups" / run_id


def _remove(node: str, run_id: str) -> str:
    shutil.rmtree(node_warmups(run_id), ignore_errors=True)
    return ""


def on_every_node(work: Callable[..., str], seconds: float, *arguments: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, id and answer of each node that is alive; the work gets the node's id before its arguments."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes: list[Any] = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call] # Ray's
    remote = ray.remote(num_cpus=0, max_retries=0)(work)
    asked = [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            node["NodeID"], *arguments
        )
        for node in nodes
    ]
    done, _ = ray.wait(asked, num_returns=len(asked), timeout=seconds)
    for node, name, answer in zip(nodes, node_names(nodes), asked, strict=True):
        if answer not in done:
            yield name, node["NodeID"], f"does not answer within {seconds:g} s"
            continue
        try:
            yield name, node["NodeID"], str(ray.get(answer))
        except Exception as error:  # of the node, of Ray, or of the way between them
            yield name, node["NodeID"], f"cannot run a task ({error_line(error)})"
