"""Runs behind a URL, copied to where they can be read, or where a search goes on with them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path

import platformdirs

from nls_tune.errors import InputError
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.owner import OWNER
from nls_tune.runs.run_json import RunJson
from nls_tune.runs.storage.files import RUN_JSON, download, home_of, is_ours, is_same, part_of
from nls_tune.runs.storage.opening import is_url
from nls_tune.runs.storage.store import Store, StoredFile

_STATE = "/state.pt"


def local_copy(place: str | Path, *parts: str) -> Path:
    """Return the path of a run; of one behind a URL, that of a copy in the user's cache folder, brought up to date.

    The copy has run.json and the ``parts`` that are named: ``trials``, ``epochs``.

    Raises:
        InputError: If there is no run behind the URL, or it cannot be read.
    """
    if not is_url(place):
        return Path(place)
    store = _open(str(place))
    found = store.look(store.files)
    if RUN_JSON not in found:
        raise InputError(f"{store.shown} is not a run: it has no {RUN_JSON}")
    folder = _cache(store)
    wanted = {RUN_JSON, OWNER, *parts}
    ours = {name: state for name, state in found.items() if part_of(name) in wanted and is_ours(name)}
    _refresh(store, folder, ours, wanted)
    return folder


def copy_of_runs(url: str) -> Path:
    """Return a folder with copies of the runs below a URL, without their epochs; each lies as it does there."""
    store = _open(url)
    found = store.look(store.files)
    homes = {name.removesuffix(RUN_JSON) for name in found if name == RUN_JSON or name.endswith(f"/{RUN_JSON}")}
    parts, wanted = {RUN_JSON, OWNER, "trials"}, dict[str, StoredFile]()
    for home in homes:
        if home and not all(part.strip(".") and "\\" not in part for part in home.removesuffix("/").split("/")):
            continue  # leads elsewhere
        names = {name: name.removeprefix(home) for name in found if name.startswith(home)}
        kept = [name for name, own in names.items() if is_ours(own) and part_of(own) in parts]
        wanted |= {name: found[name] for name in kept}
    folder = _cache(store)
    _refresh(store, folder, wanted, parts)
    return folder


@lru_cache(maxsize=8)
def _open(url: str) -> Store:
    """Open a storage once: who watches a run reads from it every few seconds."""
    return Store(url)


def _cache(store: Store) -> Path:
    """Return the folder of a URL's copy: the name is that of the run, and the folder above it one of its own."""
    key = hashlib.sha256(store.shown.encode()).hexdigest()[:16]
    name = store.shown.partition("?")[0].rstrip("/").rpartition("/")[2].lstrip(".") or "run"
    return platformdirs.user_cache_path("nls_tune") / "storage" / key / name


def _refresh(store: Store, folder: Path, files: Mapping[str, StoredFile], parts: Collection[str]) -> None:
    """Bring a copy up to date: with these files, and no others of its runs' ``parts``."""
    for path in [*folder.rglob("*.parquet"), *folder.rglob(RUN_JSON), *folder.rglob(OWNER)]:
        of_part = path.name in parts or path.parent.name in parts
        if of_part and path.relative_to(folder).as_posix() not in files:
            path.unlink(missing_ok=True)
    changed = {name: state for name, state in files.items() if not is_same(folder / name, state)}
    store.look(lambda: download(store, folder, changed))
    for name in files:
        if name.endswith(RUN_JSON):
            for part in ("trials", "epochs"):
                (folder / name).with_name(part).mkdir(exist_ok=True)
            (folder / name).with_name(".lock").touch()  # without it nobody would ask the copied owner


def stored_run_json(store: Store) -> RunJson | None:
    """Return the run.json of a storage; None if there is none.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        text = store.look(lambda: store.read(RUN_JSON)).decode(errors="replace")
    except FileNotFoundError:
        return None
    return RunJson.parse(text, f"{store.shown}/{RUN_JSON}")


def take_over(store: Store, run: RunDirectory, *, states: bool) -> set[str]:
    """Bring a run directory to where the storage is, and return the names of the files that agree afterwards.

    Where the storage has sessions that the folder lacks, its files replace those here; otherwise only what is missing
    here is taken. Without ``states`` those of unfinished trials are left behind the URL, and those that are here are
    moved there: on a cluster each node reads and writes them itself.

    Raises:
        InputError: If the folder holds another run, both have gone on by themselves, or the storage is lost.
    """
    there = stored_run_json(store)
    here = run.read_json() if run.run_json.exists() else None
    if there is None:
        taken: dict[str, StoredFile] = {}
    else:
        ahead = here is None or _is_ahead(store, there, run, here)
        if ahead:
            shutil.rmtree(run.checkpoints, ignore_errors=True)
        found = {name: state for name, state in store.look(store.files).items() if is_ours(name) and name != OWNER}
        taken = {
            name: state
            for name, state in found.items()
            if (ahead or not (run.path / name).exists()) and (states or not name.endswith(_STATE))
        }
        store.look(lambda: download(store, run.path, taken, damaged_too=False))
        run.checkpoints.mkdir(exist_ok=True)
    if not states:
        store.look(lambda: _hand_over_states(store, run))
    return {name for name in taken if (run.path / name).exists()}


def _is_ahead(store: Store, there: RunJson, run: RunDirectory, here: RunJson) -> bool:
    """Return whether the storage has sessions that the run directory lacks; refuse what cannot be put together."""
    if there.run_id != here.run_id:
        raise InputError(
            f"{store.shown} holds another run ({there.run_id}) than {run.path} ({here.run_id}); give another --storage "
            "or another --out"
        )
    theirs, ours = ([session.started_at for session in one.sessions] for one in (there, here))
    if ours[: len(theirs)] == theirs:
        return False
    if theirs[: len(ours)] == ours:
        return True
    raise InputError(
        f"{store.shown} and {run.path} hold the same run and have both gone on without the other; give an empty --out "
        "to go on from the storage, or another --storage to go on from the folder"
    )


def _hand_over_states(store: Store, run: RunDirectory) -> None:
    for path in run.checkpoints.glob(f"*{_STATE}"):
        store.write(f"checkpoints/{path.parent.name}{_STATE}", path.read_bytes())
        path.unlink()


def remove_home(store: Store, home: str, files: Mapping[str, object]) -> None:
    """Remove the folder of a trial or warm-up from a storage: its ``files``, and the state that a node wrote."""
    names = {name for name in files if home_of(name) == home}
    if home.startswith("checkpoints/"):
        names.add(f"{home}{_STATE}")
    for name in sorted(names, reverse=True):  # trial.json first: without it the state counts for nothing
        store.remove(name)
