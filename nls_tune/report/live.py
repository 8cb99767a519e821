"""The progress of a running search: a table that refreshes in a terminal, a line a trial elsewhere."""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nls_tune.progress import SearchProgress
from nls_tune.report.text import duration, percent


class ProgressView:
    """Shows a search while it runs.

    Args:
        progress: Where the search stands; it changes while this is shown.
        console: Where to draw. If it is no terminal, one plain line a trial is printed.
    """

    def __init__(self, progress: SearchProgress, console: Console) -> None:
        self._progress = progress
        self._console = console
        self._began = time.monotonic()
        self._live = (
            Live(get_renderable=self._draw, console=console, refresh_per_second=2, transient=True)
            if console.is_terminal
            else None
        )

    def start(self) -> None:
        """Begin to draw."""
        if self._live:
            self._live.start()

    def stop(self) -> None:
        """Remove the table; what follows is printed below."""
        if self._live:
            self._live.stop()

    def trial_ended(self, line: str) -> None:
        """Say in a plain line that a trial ended; a terminal shows counts instead."""
        if self._live is None:
            done, total = self._progress.num_ended, self._progress.num_total
            left = self._progress.seconds_left()
            tail = "" if left is None or done == total else f"; about {duration(left)} left"
            tail += self._budget_left()
            self._console.print(f"[{done}/{total}] {line}{tail}", markup=False, highlight=False, soft_wrap=True)

    def warn(self, line: str) -> None:
        """Say in a plain line that something is not as it should be; a terminal shows it above the table."""
        self._console.print(f"Warning: {line}", markup=False, highlight=False, soft_wrap=True)

    def _budget_left(self) -> str:
        left = self._progress.budget.left()
        return "" if left is None else f", {duration(left)} of the time budget left"

    def _draw(self) -> RenderableType:
        progress = self._progress
        table = Table(box=None, padding=(0, 1, 0, 0))
        table.add_column("noise level")
        for name in ("done", "running", "stopped", "diverged", "failed", "CE", "r > 0", "r < 0"):
            table.add_column(name, justify="right")
        for name, level in progress.levels.items():
            failed = sum(level.ended[s] for s in ("failed", "out_of_memory", "interrupted"))
            table.add_row(
                Text(name),
                f"{level.num_ended}/{level.total}",
                str(level.running),
                str(level.ended["stopped"]),
                str(level.ended["diverged"]),
                str(failed),
                *(percent(level.best.get(arm)) for arm in ("ce", "positive", "negative")),
            )
        left = progress.seconds_left()
        tail = "measuring the first epochs" if left is None else f"about {duration(left)} left"
        tail += self._budget_left()
        elapsed = duration(time.monotonic() - self._began)
        line = Text(f"{progress.num_ended} of {progress.num_total} trials, {elapsed} gone, {tail}")
        bar = ProgressBar(total=max(1, progress.num_total), completed=progress.num_ended, width=60)
        note = Text("CE, r > 0, r < 0: best validation accuracy (noisy labels) of completed trials", style="dim")
        # The bar ends no line of its own; padding makes it one.
        return Group(table, Padding(bar, 0), line, note)
