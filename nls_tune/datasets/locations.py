"""The folders in which data files are looked for, and the one that downloads go to."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from nls_tune.errors import InputError

DATA_VARIABLE = "NLS_TUNE_DATA"
_APP = "nls_tune"


def cache_folder() -> Path:
    """Return the user's cache folder of this program; it need not exist."""
    return platformdirs.user_cache_path(_APP)


def download_folder(data_dir: Path | None) -> Path:
    """Return where downloads go: the folder given, else the user's cache folder."""
    return cache_folder() / "data" if data_dir is None else _absolute(data_dir)


def search_folders(data_dir: Path | None) -> list[Path]:
    """Return the folders to look in: the one given, the one that NLS_TUNE_DATA names, the user's cache folder."""
    variable = os.environ.get(DATA_VARIABLE)
    given = [data_dir, Path(variable) if variable else None]
    return list(dict.fromkeys([*(_absolute(folder) for folder in given if folder), download_folder(None)]))


def nowhere(what: str, data_dir: Path | None, problem: object, files: str, subfolder: str = "") -> InputError:
    """Return the error for files that are in no folder and cannot be fetched; it says which ones to put there."""
    places = ", ".join(map(str, search_folders(data_dir))) + (f" (and {subfolder}/ there)" if subfolder else "")
    return InputError(
        f"{what} neither in {places} nor can be fetched: {problem}; put {files} there, "
        f"or name the folder that has them with --data-dir or the variable {DATA_VARIABLE}"
    )


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()
