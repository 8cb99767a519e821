"""Whether a cluster and this process agree on Ray's tokens, found out before anything starts.

Ray itself says nothing useful of a mismatch: a process with a token joins a cluster without tokens, and no trial ever
starts; one without a token, or with a wrong one, hears that there is no cluster.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from nls_tune.errors import InputError

#: Importing Ray from a cold network drive takes its time; the question itself takes at most 5 s.
_PATIENCE_SECONDS = 60.0
#: Asks a cluster for a value that nobody has written. A process of its own: Ray reads its tokens once.
_QUESTION = """
import sys
from ray._raylet import GcsClient
try:
    GcsClient(address=sys.argv[1]).internal_kv_get(b"nls_tune", b"", timeout=5)
    print("joined")
except Exception as error:
    print("refused" if type(error).__name__ == "AuthenticationError" else "unknown")
"""
Answer = Literal["joined", "refused", "unknown"]


def check_authentication(address: str) -> None:
    """Check that the cluster at HOST:PORT takes this process's token, and takes one only if there is one.

    Raises:
        InputError: If not; it names the variable to set.
    """
    place = _cluster_address(address)
    if place is None:
        return
    own = has_token()
    without = ask_cluster(place, {"RAY_AUTH_MODE": "disabled"})
    if without == "joined" and own:
        raise InputError(
            f"the cluster at {place} runs without authentication and this process has a token ({own}): its trials "
            "would never start; set RAY_AUTH_MODE=disabled here, or RAY_AUTH_MODE=token on every node of the cluster"
        )
    if without != "refused":
        return
    if not own:
        raise InputError(
            f"the cluster at {place} wants a token and this process has none; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) to the cluster's"
        )
    if ask_cluster(place, {"RAY_AUTH_MODE": "token"}) == "refused":
        raise InputError(
            f"the cluster at {place} wants another token than this process has ({own}); set RAY_AUTH_TOKEN_PATH "
            "(or RAY_AUTH_TOKEN) to the cluster's"
        )


def has_token() -> str | None:
    """Return where this process has a token that it would show to a cluster; None if it would show none."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if os.environ.get(name):
            return name
    with suppress(OSError, RuntimeError):
        if (file := Path.home() / ".ray" / "auth_token").is_file():
            return str(file)
    return None


def ask_cluster(address: str, environment: dict[str, str]) -> Answer:
    """Return whether a cluster lets a process with these variables join; a Ray of its own time may answer otherwise."""
    command = [sys.executable, "-c", _QUESTION, address]
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            command,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    word = done.stdout.strip().rpartition("\n")[2]
    return "joined" if word == "joined" else "refused" if word == "refused" else "unknown"


def _cluster_address(address: str) -> str | None:
    """Return HOST:PORT of a cluster's head; None where only Ray knows it."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    return address if host and port.isdigit() and "://" not in address else None


def reset_authentication() -> None:
    """Let Ray read anew from the environment whether it has a token: it keeps what it has read once."""
    raylet: Any = importlib.import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()
