"""Progress of slow steps: a bar on a terminal, a function of the caller's, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: True: a bar on stderr if that is a terminal. False: nothing. A function: called with a description, how much is
#: done, and the total (None if unknown).
Progress = bool | Callable[[str, int, int | None], None]


@contextmanager
def show_progress(
    progress: Progress, description: str, total: int | None, *, unit: str = "items"
) -> Iterator[Callable[[int], None]]:
    """Show a step's progress, counted in ``unit``, items or bytes; yield what to call with how much is done so far."""
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
