"""``nls-tune watch``: follow a run from another terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from nls_tune.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from nls_tune.runs.watched import WatchedRun

_SHORTEST, _LONGEST = 0.1, 3600.0

_Run = Annotated[str, typer.Argument(metavar="RUN", help="Run directory, or URL of a run.")]
_Interval = Annotated[float, typer.Option(metavar="SECONDS", help="Time between two looks, 0.1 to 3600.")]
_Once = Annotated[bool, typer.Option("--once", help="Print the present state and stop.")]


def watch(run: _Run, interval: _Interval = 2.0, once: _Once = False) -> int:
    """Watch a search from another terminal until it ends. The run itself is only read.

    Ends with 0 when the run has ended, 1 if it failed or its process was killed, 130 on Ctrl-C. With --once, a run that
    goes on also ends with 0.
    """
    if not _SHORTEST <= interval <= _LONGEST:  # also refuses NaN
        raise InputError(
            f"--interval must be {_SHORTEST:g} to {_LONGEST:g} seconds, got {interval:g}; the default is 2"
        )
    from rich.console import Console

    from nls_tune.runs.watched import WatchedRun

    console, watched = Console(), WatchedRun(run)
    if not once:
        try:
            (_show if console.is_terminal else _tell)(watched, interval, console)
        except KeyboardInterrupt:
            _print(f"The run goes on; nothing was changed in {watched.place}.", console)
            return 130
    _print_last(watched, console)
    return 1 if watched.status in ("failed", "crashed") else 0


def _show(watched: WatchedRun, interval: float, console: Console) -> None:
    """Redraw the picture in a terminal until the run ends."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from nls_tune.report.console.live import fitted_picture

    with Live(console=console, auto_refresh=False, transient=True) as live:
        while watched.status == "running":
            header = Text(_header(watched), no_wrap=True, overflow="ellipsis", style="bold")
            drawn = fitted_picture(watched.progress, watched.elapsed(), console, lines_kept=1)
            live.update(Group(header, drawn), refresh=True)
            time.sleep(interval)
            watched.refresh()


def _tell(watched: WatchedRun, interval: float, console: Console) -> None:
    """Print a line when something changes, until the run ends."""
    from nls_tune.report.console.live import STAGE_NAMES, counted
    from nls_tune.report.text import trial_line

    stage = None
    while True:
        if watched.progress.stage != stage and watched.status == "running":
            stage = watched.progress.stage
            _print(counted(watched.progress, f"{STAGE_NAMES.get(stage, stage)} of {watched.place}"), console)
        for row in watched.new_rows:
            _print(counted(watched.progress, trial_line(row, watched.names, watched.metric)), console)
        if watched.status != "running":
            return
        time.sleep(interval)
        watched.refresh()


def _print_last(watched: WatchedRun, console: Console) -> None:
    """Print the whole picture and the state of the run."""
    from nls_tune.report.console.live import picture

    over = watched.status != "running"
    _print(_header(watched), console)
    # In a file no line is cut; a terminal cuts rather than wraps.
    console.print(
        picture(watched.progress, watched.elapsed(), ascii_only=console.options.ascii_only, over=over),
        width=console.width if console.is_terminal else max(console.width, 200),
    )
    if watched.num_unread:
        count = watched.num_unread
        _print(f"{count} part file{'s' if count > 1 else ''} of trials/ cannot be read and do not count.", console)
    if over:
        _print(_ending(watched), console)


def _header(watched: WatchedRun) -> str:
    from nls_tune.report.console.live import STAGE_NAMES

    stage = watched.progress.stage
    what = f"{STAGE_NAMES.get(stage, stage)} goes on" if watched.status == "running" else watched.status
    return f"{watched.place}: {what}"


def _ending(watched: WatchedRun) -> str:
    go_on = f"the command of the search with {watched.flag} {watched.place} goes on with it."
    if watched.status == "crashed":
        running = len(watched.progress.running)
        what = f" with {running} trial{'s' if running != 1 else ''} running" if running else ""
        return f"No process holds this run any more: it was killed{what}; {go_on}"
    if watched.status == "interrupted":
        return f"The run was interrupted; {go_on}"
    if watched.status == "failed":
        return f"The run failed: the column error of trials/ says why; {go_on}"
    by = " by its time budget" if watched.ended_by == "time_budget" else ""
    return f"The run has ended{by}."


def _print(text: str, console: Console) -> None:
    from nls_tune.report.text import printable

    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
