"""The picture of a running search, and its lines where there is no terminal."""

from __future__ import annotations

import io
import math
from itertools import pairwise

import pytest
from rich.cells import cell_len
from rich.console import Console

from nls_tune.report.console.live import ProgressView, fitted_picture, picture
from nls_tune.report.text import duration
from nls_tune.runs.progress import LevelProgress, RunningTrial, SearchProgress
from nls_tune.runs.time_budget import TimeBudget


def line_of(budget: TimeBudget) -> str:
    progress = SearchProgress({"a": LevelProgress(3)}, slots=1, epochs=10, budget=budget)
    progress.started(RunningTrial("t", "a", "ce", 0.0, epochs=10))
    progress.reported("t", 10, 100.0)
    progress.ended("a", "ce", "t", "completed", 0.5, adopted=False)
    text = io.StringIO()
    ProgressView(progress, Console(file=text, width=100)).trial_ended("a trial ended")
    return text.getvalue()


def test_the_time_left_is_estimated_and_the_time_budget_is_shown_and_bounds_it():
    assert line_of(TimeBudget()) == "[1/3] a trial ended; about 3 min 20 s left\n"
    assert line_of(TimeBudget(100.0, 10.0)).endswith("; about 1 min 30 s left, 1 min 30 s of the time budget left\n")
    assert line_of(TimeBudget(1000.0)).endswith("; about 3 min 20 s left, 16 min 40 s of the time budget left\n")


def make(num_levels: int = 3, slots: int = 4) -> SearchProgress:
    levels = {f"symmetric:0.{i}": LevelProgress(100) for i in range(num_levels)}
    progress = SearchProgress(levels, slots, epochs=40)
    for i, name in enumerate(levels):
        progress.started(RunningTrial(name, name, "negative", -0.5 - i, epochs=40))
        progress.reported(name, 40, 80.0, [0.5 + i / 100 + epoch / 1000 for epoch in range(40)])
        progress.ended(name, "negative", name, "completed", 0.539 + i / 100, adopted=False)
    progress.started(RunningTrial("x", "symmetric:0.1", "positive", 0.25, epochs=40))
    progress.reported("x", 7, 14.0, [0.1 * epoch for epoch in range(1, 8)])
    progress.started(RunningTrial("y", "symmetric:0.2", "ce", 0.0, epochs=40))
    return progress


def lines_of(renderable: object, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(renderable)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_the_picture_of_a_search():
    lines = lines_of(picture(make(), 93))
    assert lines[0].split("  ")[0] == "noise level"
    assert lines[2].split() == ["symmetric:0.1", "1/100", "1", "0", "0", "0", "–", "–", "54.9", "%"]
    # The curve of the level's best: 40 epochs in 24 characters, lowest and highest accuracy.
    assert lines[6].split("  ▁")[0].split() == ["symmetric:0.1", "negative", "−1.5"]
    assert lines[6].endswith("█ 51.0 % to 54.9 %")
    assert lines[8:13] == [
        "now",
        " 1 symmetric:0.1 positive     0.25  epoch  7 of 40, val 70.0 % ▁▂▃▅▆▇█",
        " 2 symmetric:0.2       ce        0  starts",
        " 3 idle",
        " 4 idle",
    ]
    # Seven epochs of 41 full trials' 40 are left of 297 and a half, at 2 s over four slots.
    left = (295 * 40 + 33 + 40) * 2 / 4
    assert lines[14] == f"3 of 300 trials, 1 min 33 s gone, about {duration(left)} left"
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("num_levels", [1, 40])
@pytest.mark.parametrize("height", [1, 2, 3, 5, 13, 24, 50])
def test_the_picture_is_cut_to_the_height_and_says_how_much_is_left_out(num_levels, height):
    progress = make(max(3, num_levels), slots=num_levels)
    whole, lines = lines_of(picture(progress, 1)), lines_of(picture(progress, 1, height=height))
    assert len(lines) <= height
    if len(whole) <= height:
        assert lines == whole
        return
    assert any(line.startswith(f"{progress.num_ended} of {progress.num_total} trials") for line in lines)
    if height > 1:
        assert lines[-1] == f"{len(whole) - len(lines) + 1} lines left out: the terminal is too low"
        assert len(lines) >= height - 1  # a section goes with its header
    # A header never stands without a row.
    assert all(after.startswith((" 1 ", "symmetric:")) for before, after in pairwise(lines) if before == "now")


def test_a_console_without_unicode_gets_ascii():
    text = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=text, width=80)
    progress = make()
    progress.levels["a" * 30] = LevelProgress(1)
    console.print(picture(progress, 1, ascii_only=console.options.ascii_only))
    text.flush()
    printed = text.buffer.getvalue().decode("ascii")
    assert "-1.5  ___...---===" in printed
    assert "a" * 8 + "~" + "a" * 7 + " " in printed


@pytest.mark.parametrize("width", [20, 40, 80])
def test_names_are_no_markup_move_no_cursor_and_keep_their_column(width):
    progress = make()
    name = "[bold]\x1b[2Jmatrix:雑音/" + "x" * 50
    progress.levels[name] = LevelProgress(5)
    progress.started(RunningTrial("z", name, "[red]", 0.5, epochs=40))
    lines = lines_of(picture(progress, 1), width)
    assert "\x1b" not in "".join(lines)
    # Its line of the table, and what the third slot does.
    shown = "[bold]\N{REPLACEMENT CHARACTER}[…xxxxxxx"
    assert [line[:16] for line in lines if "[bold]" in line] == [shown, f" 3 {shown}"[:16]]
    assert all(cell_len(line) <= width for line in lines)


def test_a_search_on_all_labels_validates_nothing():
    progress = SearchProgress({"a": LevelProgress(1)}, 1, 10, "confirm_all")
    progress.started(RunningTrial("t", "a", "ce", 0.0, epochs=10))
    progress.reported("t", 3, 1.0, [math.nan] * 3)
    assert " 1 a                 ce        0  epoch  3 of 10, val      –" in lines_of(picture(progress, 1))


def test_the_live_view_redraws_in_place_and_leaves_nothing_behind():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80, height=10, legacy_windows=False)
    progress = make(30)
    # A terminal is never filled to its last line.
    assert len(fitted_picture(progress, 1, console).renderables) == 9
    assert len(fitted_picture(progress, 1, console, lines_kept=2).renderables) == 7
    view = ProgressView(progress, console)
    view.start()
    view.trial_ended("a line")
    view.stop()
    printed = text.getvalue()
    assert "a line" not in printed
    assert "30 of 3000 trials" in printed
    assert printed.count("\n") <= 20  # two pictures of 9 lines at most; no line was scrolled away
    assert "\x1b[2J" not in printed  # the screen is never cleared, which would flicker
