"""Runs as they are found on disk: finished, going on, interrupted, crashed or damaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

#: ``crashed``: run.json says that it goes on, but no process holds the run.
RunStatus = Literal["running", "finished", "interrupted", "failed", "crashed"]


@dataclass(frozen=True, eq=False)
class Run:
    """A run directory, read once.

    Attributes:
        path: The folder, absolute.
        name: The folder's name; several runs loaded together have different ones.
        status: Where the run stands.
        content: run.json.
        levels: The noise levels in the order of the command.
        trials: Rows of ``trials/``, as ``results.read_trials`` returns them.
        epochs: Rows of ``epochs/``, likewise.
        problems: What could not be read, one line each; nothing is left out silently.
    """

    path: Path
    name: str
    status: RunStatus
    content: dict[str, Any]
    levels: tuple[str, ...]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    problems: tuple[str, ...]


def load_run(path: str | Path) -> Run:
    """Read a run directory, whatever state it is in.

    Args:
        path: The folder.

    Returns:
        The run; part files that cannot be read are named in its ``problems``.

    Raises:
        InputError: If the folder is no run, or run.json cannot be read or is of a newer schema.
    """
    raise NotImplementedError


def load_runs(paths: Sequence[str | Path]) -> tuple[Run, ...]:
    """Read several run directories; runs of the same folder name are told apart by their parents.

    Raises:
        InputError: As ``load_run``; also if a folder is given twice.
    """
    raise NotImplementedError
