"""Files and their texts: written whole or not at all, JSON for people."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def json_text(value: Any, indent: str = "") -> str:
    """Return ``json.dumps(value, indent=2, default=str)`` without a line for every number of a matrix.

    With 100 classes these lines are most of a file, and most of the time to write it. ``indent`` is the indentation of
    the line in which the value begins.
    """
    inner = indent + "  "
    if isinstance(value, Mapping) and value:
        # The C encoder knows how a key is spelled.
        keys = (json.dumps({key: 0})[1:-4] for key in value)
        parts = [f"{key}: {json_text(one, inner)}" for key, one in zip(keys, value.values(), strict=True)]
        return "{\n" + ",\n".join(inner + part for part in parts) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and any(isinstance(one, Mapping | list | tuple) for one in value):
        return "[\n" + ",\n".join(inner + json_text(one, inner) for one in value) + f"\n{indent}]"
    return json.dumps(value, default=str)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, even after a power failure.

    The temporary name starts with a dot and has no ending that a reader looks for.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
