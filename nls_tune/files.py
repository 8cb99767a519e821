"""Files and their texts: written whole or not at all, sealed with a checksum, JSON for people."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_MARK, _NO_DIGITS = b"nls_tune.crc32=", b"00000000"
_TEMPORARY = re.compile(r"\..+\.([0-9]+)\.tmp")
#: Stands in a content where ``seal`` is to write its checksum.
BLANK_SEAL = _MARK + _NO_DIGITS


def seal(content: bytearray | memoryview, at: int) -> None:
    """Write the checksum of a content into its ``BLANK_SEAL``, which begins at byte ``at`` and is the last one there.

    It is the CRC-32 of all bytes, with the blank seal in its place. It finds damage by disks, transfers and hasty hands
    at the speed of reading, and is no protection from people who mean it.
    """
    digits = at + len(_MARK)
    content[digits : digits + len(_NO_DIGITS)] = b"%08x" % zlib.crc32(content)


def seal_holds(content: bytes) -> bool | None:
    """Return whether a content is what was sealed; None without a seal: early versions wrote none."""
    found = content.rfind(_MARK)
    if found < 0:
        return None
    digits, view = found + len(_MARK), memoryview(content)
    rest = digits + len(_NO_DIGITS)
    expected = zlib.crc32(view[rest:], zlib.crc32(_NO_DIGITS, zlib.crc32(view[:digits])))
    return view[digits:rest] == b"%08x" % expected


def sealed_json(text: str) -> str:
    """Return the text of a JSON object with its checksum as a last entry, ``seal``."""
    body = text.rstrip().removesuffix("}").rstrip()
    content = bytearray(f'{body}{"," if body != "{" else ""}\n  "seal": "{BLANK_SEAL.decode()}"\n}}\n'.encode())
    seal(content, content.rindex(BLANK_SEAL))
    return content.decode()


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; what cannot be read is a ValueError, however deep it is nested."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


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


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files in a folder that ``write_atomically`` made in a process that lives no more.

    This process counts as another one: in a container, the one that was killed had the same number.
    """
    with suppress(OSError):
        for path in [*folder.iterdir()]:
            if (found := _TEMPORARY.fullmatch(path.name)) and not _lives(int(found[1])):
                path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks only
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def write_atomically(path: Path, content: bytes | bytearray | memoryview) -> None:
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
