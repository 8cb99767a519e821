"""The folders in which data files are looked for, and the one that downloads go to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import platformdirs

DATA_VARIABLE = "NLS_TUNE_DATA"
WAY_OUT = f"or name the folder that has them with --data-dir or the variable {DATA_VARIABLE}"
_APP = "nls_tune"


def cache_folder() -> Path:
    """Return the user's cache folder of this program; it need not exist."""
    return platformdirs.user_cache_path(_APP)


def download_folder(data_dir: Path | None) -> Path:
    """Return where downloads go: the folder given, else the user's cache folder."""
    return cache_folder() / "data" if data_dir is None else _absolute(data_dir)


def search_folders(data_dir: Path | None) -> list[Path]:
    """Return the folders to look in, the first to count first.

    Args:
        data_dir: The folder given with ``--data-dir``, or None.

    Returns:
        That folder, the one that the variable NLS_TUNE_DATA names, and the user's cache folder.
    """
    variable = os.environ.get(DATA_VARIABLE)
    folders = [] if data_dir is None else [_absolute(data_dir)]
    if variable:
        folders.append(_absolute(Path(variable)))
    folders.append(download_folder(None))
    return list(dict.fromkeys(folders))


def in_words(folders: Iterable[Path]) -> str:
    """Return folders as they stand in a message."""
    return ", ".join(map(str, folders))


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()
