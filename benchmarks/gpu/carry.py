"""Splits files into folders that are small enough to travel, and joins them again, checked by SHA-256.

It needs nothing but Python::

    python benchmarks/gpu/carry.py split --into .carry/data --mib 54 DATA/cifar10 DATA/cifar-n
    python benchmarks/gpu/carry.py join .carry/data/* --into /tmp/data

``split`` makes the folders 00, 01, ...; each goes with one call. ``join`` takes the folders that are there, in any
order and in any number of calls, and says what is still missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

_MANIFEST = "manifest.json"
_MIB = 2**20


class CarryError(Exception):
    """Something cannot be split or joined; the message is one line."""


def split(paths: Sequence[Path], into: Path, size: int) -> list[Path]:
    """Split files, and those in folders, into folders of at most ``size`` bytes each.

    Args:
        paths: Files and folders; a file keeps its name, one in a folder the folder's name before it.
        into: A folder that does not exist yet, or is empty.
        size: Bytes a folder, the small manifest not counted.

    Returns:
        The folders, in order.

    Raises:
        CarryError: If nothing is there to split, two files have one name, or ``into`` holds something.
    """
    if size < 1:
        raise CarryError(f"--mib must be above 0, got {size / _MIB:g}")
    files = dict(_named_files(paths))
    if into.exists() and any(into.iterdir()):
        raise CarryError(f"--into must be empty, {into} is not; remove it or give another one")
    chunks: list[list[tuple[str, int, int]]] = [[]]
    room = size
    for name, path in files.items():
        begin, end = 0, path.stat().st_size
        while begin < end or end == 0:
            if room == 0:
                chunks.append([])
                room = size
            stop = min(end, begin + room)
            chunks[-1].append((name, begin, stop))
            room -= stop - begin
            begin = stop
            if end == 0:
                break
    manifest = {name: {"size": path.stat().st_size, "sha256": _sha256(path)} for name, path in files.items()}
    folders = []
    for number, parts in enumerate(chunks):
        folder = into / f"{number:02d}"
        folder.mkdir(parents=True)
        (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for name, begin, stop in parts:
            with files[name].open("rb") as file:
                file.seek(begin)
                # One flat name a part: a carried folder need not be deep.
                (folder / f"{name.replace('/', '@')}@{begin}").write_bytes(file.read(stop - begin))
        folders.append(folder)
    return folders


def join(folders: Sequence[Path], into: Path) -> list[str]:
    """Put the parts in folders where they belong; files that are whole are checked.

    Args:
        folders: Made by ``split``; those that came earlier need not be given again.
        into: Where the files go.

    Returns:
        The names of files that are not whole yet.

    Raises:
        CarryError: If a folder has no manifest, a name leads out of ``into``, or a whole file is not what was split.
    """
    manifest: dict[str, dict[str, int | str]] = {}
    for folder in folders:
        try:
            manifest |= json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CarryError(f"{folder} was not made by split, its {_MANIFEST} cannot be read ({error})") from None
    missing = []
    for name, facts in manifest.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise CarryError(f"{name} leads out of {into}; this is no manifest of split's")
        target, partial = into / name, into / f"{name}.partial"
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and _sha256(target) == facts["sha256"]:
            continue
        had = into / f"{name}.parts"
        done: dict[str, int] = json.loads(had.read_text()) if had.exists() else {}
        for folder in folders:
            for part in folder.glob(f"{name.replace('/', '@')}@*"):
                begin = int(part.name.rpartition("@")[2])
                content = part.read_bytes()
                with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT), "r+b") as file:
                    file.seek(begin)
                    file.write(content)
                done[str(begin)] = len(content)
        had.write_text(json.dumps(done))
        if sum(done.values()) < int(facts["size"]) or not partial.exists():
            missing.append(name)
            continue
        if _sha256(partial) != facts["sha256"]:
            partial.unlink()
            had.unlink()
            raise CarryError(f"{name} is not the file that was split (its SHA-256 differs); split and carry it again")
        partial.replace(target)
        had.unlink()
    return missing


def _named_files(paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    seen: set[str] = set()
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if not inside or not inside[0].exists():
            raise CarryError(f"{path} is not there, or empty; give files or folders with files")
        for file in inside:
            name = file.relative_to(path.parent).as_posix()
            if name in seen or "@" in name:
                raise CarryError(f"{name}: names must differ and have no @; split it in a call of its own")
            seen.add(name)
            yield name, file


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Split or join; exit code 0 done, 1 files are missing, 2 an error in one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("split", "join"):
        command = commands.add_parser(name)
        command.add_argument("paths", nargs="+", type=Path)
        command.add_argument("--into", type=Path, required=True)
        if name == "split":
            command.add_argument("--mib", type=float, default=54.0, help="MiB a folder (default: 54)")
    options = parser.parse_args(arguments)
    try:
        if options.command == "split":
            for folder in split(options.paths, options.into, int(options.mib * _MIB)):
                print(f"{folder} {sum(p.stat().st_size for p in folder.iterdir()) / _MIB:.1f} MiB")
            return 0
        missing = join(options.paths, options.into)
    except CarryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"missing: {' '.join(missing)}" if missing else f"{options.into} is complete")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
