"""Progress of slow steps: a bar on a terminal, a function of the caller's, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = bool | Callable[[str, int, int | None], None]
"""True: a bar on stderr if that is a terminal. False: nothing. A function: called with a description, what is
done, and the total (None if unknown)."""


@contextmanager
def show_progress(
    progress: Progress, description: str, total: int | None, *, unit: str = "items"
) -> Iterator[Callable[[int], None]]:
    """Show the progress of one step, counted in ``unit``: ``"items"`` or ``"bytes"``.

    Yields:
        A function to call with how much is done so far.
    """
    if callable(progress):
        yield lambda done: progress(description, done, total)
    elif not progress or not sys.stderr.isatty():
        yield lambda done: None
    else:
        from rich import progress as bars  # slow to import, and only terminals need it
        from rich.console import Console

        amount = bars.DownloadColumn() if unit == "bytes" else bars.MofNCompleteColumn()
        columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), amount, bars.TimeRemainingColumn())
        with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(description, total=total)
            yield lambda done: bar.update(task, completed=done)
