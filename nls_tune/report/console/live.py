"""A search while it runs: a picture that refreshes in a terminal, one line per trial elsewhere.

The session that runs a search and ``nls-tune watch``, in another process, show the same picture.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from rich.cells import set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from nls_tune.report.console.sparkline import sparkline
from nls_tune.report.text import duration, of_metric, percent, printable, rate
from nls_tune.runs.progress import LevelProgress, RunningTrial, SearchProgress
from nls_tune.runs.schemas import Status
from nls_tune.spaces.settings import RATE_ARMS, ordered_arms

#: The names of the stages on screens.
STAGE_NAMES = {
    "search": "search",
    "confirm": "confirmation",
    "confirm_all": "confirmation on all labels",
    "sweep_search": "settings of the sweep",
    "sweep": "sweep over rates",
}
_FAILED: tuple[Status, ...] = ("failed", "out_of_memory", "interrupted")
#: Widths in characters: the longest name of a level that is shown whole, and the curves.
_LEVEL_WIDTH = 16
_CURVE_WIDTH = 24
_SLOT_CURVE_WIDTH = 12


class ProgressView:
    """Shows a search while it runs; where the console is no terminal, one plain line per trial is printed."""

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
        """Remove the picture, so that other lines can follow."""
        if self._live:
            self._live.stop()

    def trial_ended(self, line: str) -> None:
        """Say in a plain line that a trial ended; a terminal shows counts instead."""
        if self._live is None:
            self._console.print(counted(self._progress, line), markup=False, highlight=False, soft_wrap=True)

    def warn(self, line: str) -> None:
        """Print a warning in a plain line; a terminal shows it above the picture."""
        self._console.print(f"Warning: {line}", markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        return fitted_picture(self._progress, time.monotonic() - self._began, self._console)


def counted(progress: SearchProgress, line: str) -> str:
    """Return a line with the number of ended trials before it and the time left, if the search goes on, after it."""
    done, total = progress.num_ended, progress.num_total
    if progress.is_ending:
        return f"[{done}/{total}] {line}"
    left, budget = progress.seconds_left(), progress.budget.left()
    tail = "" if left is None or done >= total else f"; about {duration(left)} left"
    tail += "" if budget is None else f", {duration(budget)} of the time budget left"
    return f"[{done}/{total}] {line}{tail}"


def fitted_picture(progress: SearchProgress, elapsed: float, console: Console, *, lines_kept: int = 0) -> Group:
    """Draw a search so that it fits into a terminal, without the lines that the caller keeps for something else."""
    # A picture as high as the terminal would scroll with the line of the cursor.
    return picture(
        progress, elapsed, height=max(1, console.size.height - 1 - lines_kept), ascii_only=console.options.ascii_only
    )


def picture(
    progress: SearchProgress,
    elapsed: float,
    *,
    height: int | None = None,
    ascii_only: bool = False,
    over: bool = False,
) -> Group:
    """Draw where a search stands: each level's counts and bests, the best curves, what runs now, and the time left.

    With usual names of levels no line is longer than 80 characters; longer ones are cut by the console. There are at
    most ``height`` lines, each one renderable; the last one says how many are left out. ``elapsed`` are seconds;
    ``over`` says that nothing runs any more.
    """
    facts = Text(f"{progress.num_ended} of {progress.num_total} trials, {duration(elapsed)} gone")
    if progress.is_ending and not over:
        facts.append(", interrupted: the running trials are being saved")
    elif not over:
        left = progress.seconds_left()
        tail = "measuring the first epochs" if left is None else f"about {duration(left)} left"
        budget = progress.budget.left()
        facts.append(f", {tail}" if budget is None else f", {tail} (time budget: {duration(budget)})")
    bar = ProgressBar(total=max(1, progress.num_total), completed=progress.num_ended, width=60)
    what = of_metric("best validation accuracy (noisy) of completed trials", [progress.metric])
    note = Text(f"{', '.join(_arms(progress))}: {what}", style="dim")
    width = _name_width(progress)
    sections = {
        "levels": _levels(progress, width),
        "curves": _curves(progress, width, ascii_only),
        "slots": _Section(None, []) if over else _slots(progress, width, ascii_only),
        # The bar ends no line of its own; padding makes it one.
        "bar": _Section(None, [Padding(bar, 0)]),
        "facts": _Section(None, [facts]),
        "note": _Section(None, [note]),
    }
    lines = [line for section in sections.values() for line in section.lines()]
    if height is not None and len(lines) > height:
        lines = _cut(sections, height)
    for line in lines:
        if isinstance(line, Text):
            line.no_wrap, line.overflow = True, "crop"
            if ascii_only:
                line.plain = line.plain.replace("–", "-").replace("−", "-").replace("…", "~")
    return Group(*lines)


@dataclass
class _Section:
    """Lines that belong together; the header is shown while one of the rows is."""

    header: Text | None
    rows: list[RenderableType]

    def lines(self) -> list[RenderableType]:
        """Return the rows below their header; nothing where there is no row."""
        return [*([self.header] if self.header and self.rows else []), *self.rows]


def _cut(sections: dict[str, _Section], height: int) -> list[RenderableType]:
    """Leave lines out, the least important ones first, until the rest fits with a line that says so."""
    before = sum(len(section.lines()) for section in sections.values())
    for name in ("note", "curves", "slots", "levels", "bar"):
        rows = sections[name].rows
        while rows and sum(len(section.lines()) for section in sections.values()) >= max(2, height):
            rows.pop()
    lines = [line for section in sections.values() for line in section.lines()]
    missing = before - len(lines)
    said = Text(f"{missing} line{'s' if missing > 1 else ''} left out: the terminal is too low", style="dim")
    return [*lines, said][:height]


def _name_width(progress: SearchProgress) -> int:
    longest = max((Text(printable(name)).cell_len for name in progress.levels), default=0)
    return max(len("noise level"), min(_LEVEL_WIDTH, longest))


def _arms(progress: SearchProgress) -> list[str]:
    """Return the arms of the columns: those of the rate, or those that have begun where others are among them."""
    begun = {trial.arm for trial in list(progress.running.values())}
    begun |= {arm for level in progress.levels.values() for arm in level.best}
    return ordered_arms(RATE_ARMS if begun <= set(RATE_ARMS) else begun)


def _levels(progress: SearchProgress, width: int) -> _Section:
    done = {name: f"{level.num_ended}/{level.total}" for name, level in progress.levels.items()}
    wide = max([4, *(len(text) for text in done.values())])
    header = f"{_name('noise level', width)} {'done':>{wide}} now stopped diverged failed"
    arms = _arms(progress)
    header += "".join(f" {arm:>8}" for arm in arms)
    rows: list[RenderableType] = []
    for name, level in progress.levels.items():
        failed = sum(level.ended[status] for status in _FAILED)
        counts = f"{level.running:>3} {level.ended['stopped']:>7} {level.ended['diverged']:>8} {failed:>6}"
        bests = "".join(f" {percent(level.best.get(arm)):>{max(8, len(arm))}}" for arm in arms)
        rows.append(Text(f"{_name(name, width)} {done[name]:>{wide}} {counts}{bests}"))
    return _Section(Text(header, style="bold"), rows)


def _curves(progress: SearchProgress, width: int, ascii_only: bool) -> _Section:
    rows: list[RenderableType] = []
    for name, level in progress.levels.items():
        if (line := _curve(level, ascii_only)) is not None:
            rows.append(Text(f"{_name(name, width)} {line}"))
    return _Section(
        Text(of_metric("best so far: validation accuracy epoch by epoch", [progress.metric]), style="bold"), rows
    )


def _curve(level: LevelProgress, ascii_only: bool) -> str | None:
    curve = level.curve
    finite = [a for a in curve.accuracies if math.isfinite(a)] if curve else []
    if curve is None or not finite:
        return None
    drawn = sparkline(curve.accuracies, _CURVE_WIDTH, ascii_only=ascii_only)
    what = f"{curve.arm:>8} {rate(curve.smooth_rate):>8}"
    return f"{what}  {drawn:<{_CURVE_WIDTH}} {percent(min(finite))} to {percent(max(finite))}"


def _slots(progress: SearchProgress, width: int, ascii_only: bool) -> _Section:
    running = {trial.slot: _trial(trial, width, ascii_only) for trial in list(progress.running.values())}
    # All slots have their line, idle or not: the picture keeps its height.
    slots = range(max([progress.slots, *(slot + 1 for slot in running)]))
    return _Section(Text("now", style="bold"), [Text(f"{slot + 1:>2} {running.get(slot, 'idle')}") for slot in slots])


def _trial(trial: RunningTrial, width: int, ascii_only: bool) -> str:
    what = f"{_name(trial.noise_level, width)} {trial.arm:>8} {rate(trial.smooth_rate):>8}"
    if not trial.epoch:
        return f"{what}  starts"
    accuracies = list(trial.accuracies)
    where = f"epoch {trial.epoch:>{len(str(trial.epochs))}} of {trial.epochs}"
    last = accuracies[-1] if accuracies and math.isfinite(accuracies[-1]) else None
    return f"{what}  {where}, val {percent(last):>6} {sparkline(accuracies, _SLOT_CURVE_WIDTH, ascii_only=ascii_only)}"


def _name(text: str, width: int) -> str:
    """Fit a name into so many cells, without the middle of a longer one, because names of files differ at the end."""
    shown = printable(text)
    if Text(shown).cell_len > width:
        half = (width - 1) // 2
        shown = set_cell_size(shown, width - 1 - half) + "…" + set_cell_size(shown[::-1], half)[::-1]
    return set_cell_size(shown, width)
