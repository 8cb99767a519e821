"""The doctor's checks of Ray: its authentication, its start on this machine, and the nodes of a cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from nls_tune.machine.check import Check, failure
from nls_tune.tune.authentication import has_token

_MODE = "RAY_AUTH_MODE"
_EVERYWHERE = "the same on head, nodes and driver"


def check_authentication() -> Iterator[Check]:
    """Check Ray's trap: it asks for tokens as soon as it finds one, and a search of old has left one."""
    mode, found = os.environ.get(_MODE), has_token()
    if mode is None and found is not None:
        trap = f"{_MODE} is not set and {found} holds a token: 'ray start --head' will ask every node for it"
        yield Check("authentication", "warning", trap, f"set {_MODE} to disabled or token, {_EVERYWHERE}")
    elif mode == "token" and found is None:
        yield Check("authentication", "warning", f"{_MODE} is token and there is none", "ray get-auth-token --generate")
    elif mode not in (None, "token", "disabled"):
        yield Check("authentication", "failure", f"{_MODE} is {mode!r}", f"set it to disabled or token, {_EVERYWHERE}")
    else:
        said = f"{_MODE} is {mode}" if mode else f"no token, and {_MODE} is not set: Ray asks for none"
        yield Check("authentication", "ok", f"{said}{f', in {found}' if mode == 'token' else ''}")


def check_ray(address: str | None, folders: Mapping[str, Path], storage: str | None = None) -> Iterator[Check]:
    """Start Ray here, or connect to the cluster at an address; check every node, and that it sees the ``folders``.

    The nodes of a cluster are also asked whether they reach the URL of a ``storage``.

    Raises:
        InputError: If there is no cluster at the address.
    """
    from nls_tune.runs.storage.store import Store
    from nls_tune.tune.preflight import ask_nodes
    from nls_tune.tune.shared import storage_problems
    from nls_tune.tune.starting import ray_session

    begun = time.monotonic()
    with ray_session(address) as resources:
        what = "starts here" if address is None else f"answers at {address}"
        counted = ", ".join(f"{int(resources.get(kind, 0))} {kind}s" for kind in ("CPU", "GPU"))
        yield Check("ray", "ok", f"{what} in {time.monotonic() - begun:.1f} s, with {counted}")
        for node in ask_nodes(folders):
            for problem in node.problems:
                yield failure("node", problem)
            if not node.problems:
                yield Check("node", "ok", f"{node.name} can take part, with {node.cpus} CPUs and {node.gpus} GPUs")
        if address is not None and storage is not None:
            for problem in storage_problems(Store(storage)):
                yield failure("node", problem)
