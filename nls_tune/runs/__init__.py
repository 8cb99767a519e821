"""What is on disk: schemas, run.json, the run directory, part files, checkpoints, and reading them.

``load_run`` is loaded when it is first used: whoever needs a schema alone does not wait for pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nls_tune.runs.reading import Run as Run
    from nls_tune.runs.reading import load_run as load_run
    from nls_tune.runs.reading import load_runs as load_runs

__all__ = ["Run", "load_run", "load_runs"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nls_tune.runs import reading

    return getattr(reading, name)
