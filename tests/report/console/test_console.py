from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from estimates import estimate_of, hide_the_truth
from rich.console import Console
from trial_rows import trial_row, trials_frame

from nls_tune.analysis.level_summaries import level_summaries
from nls_tune.plan.plan import EpochTime, make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.plan.start_points import WarmPoint, with_warm_points
from nls_tune.report.console.search import epochs_line, print_plan
from nls_tune.report.console.tables import print_levels
from nls_tune.report.run_tables import arms_table


@pytest.fixture
def summarise():
    rates = {"ce": 0.0, "positive": 0.25, "negative": -2.5}

    def make(values: dict[str, float], *, test: bool = True, num: int = 1000, **changes):
        order = np.arange(num)
        rows = [
            trial_row(
                {"smooth_rate": rates[arm]},
                val_correct=order < round(num * value),
                test_correct=order < round(num * (value + 0.2)) if test else None,
                minute=i,
                **changes,
            )
            for i, (arm, value) in enumerate(values.items())
        ]
        (summary,) = level_summaries(trials_frame(rows))
        return replace(summary, used=max(values, key=values.__getitem__))

    return make


def printed(draw, *args, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    draw(*args, console)
    return console.file.getvalue()


# The table


def test_the_table_has_a_row_per_arm_and_marks_the_one_to_use(summarise):
    summary = summarise({"ce": 0.6, "positive": 0.55, "negative": 0.65})
    lines = printed(print_levels, arms_table([summary])).splitlines()
    assert [line.split() for line in lines[1:5]] == [
        ["symmetric:0.4"],
        ["ce", "0", "2", "0.01", "60.00", "80.00", "78.00", "5/10", "1/1"],
        ["positive", "0.25", "2", "0.01", "55.00", "75.00", "73.00", "5/10", "1/1"],
        ["negative", "*", "−2.5", "2", "0.01", "65.00", "85.00", "83.00", "5/10", "1/1"],
    ]


def test_the_table_fits_a_terminal_of_80_columns(summarise):
    summary = summarise({"ce": 0.6, "positive": 0.55, "negative": 0.65})
    arm = summary.arms["negative"]
    config = {"smooth_rate": -0.2857, "warmup_epochs": 120, "lr": 1.235e-05}
    wide = replace(arm, config=config, best_epoch=220, epochs=220, val_accuracy=1.0, num_completed=100, num_trials=100)
    summary = replace(summary, arms={**summary.arms, "negative": wide})
    table = printed(print_levels, arms_table([summary]), width=80).splitlines()
    row = next(line for line in table if "negative" in line)
    for text in ("−0.2857", "120", "1.235e-05", "220/220", "100.00", "100/100"):
        assert text in row
    assert max(map(len, table)) <= 80


def test_a_narrow_console_loses_neither_the_star_nor_a_number(summarise):
    summary = summarise({"ce": 0.6, "positive": 0.55, "negative": 0.65})
    table = replace(arms_table([summary]), note=None)
    wide, *narrow = (printed(print_levels, table, width=width) for width in (200, 20, 60))
    assert any(line.split()[:2] == ["negative", "*"] for line in wide.splitlines())
    assert narrow == [wide, wide]


# The plan


@pytest.fixture(scope="module")
def plan():
    settings = check_search_settings(
        dataset="digits", noise=("symmetric:0.4", "pairflip:0.3"), num_trials=8, epochs=20, train_size=300
    )
    return make_plan(settings, 0, progress=False)


def test_the_plan_says_what_will_run(plan):
    text = printed(print_plan, plan, 4)
    for part in (
        "digits", "300 training", "144 validation (noisy labels)", "359 test samples", "10 classes",
        "no preset (no GPU found, the space has no preset cpu), model mlp",
        "2 noise levels, 16 trials of 20 epochs",
        "ASHA stops trials 3, 6, 12 epochs after their warm-up",
        "4 at a time", "smooth_rate: -8 to 0.8, uniform in log(1 − r) (default -0.5)",
        "warmup_epochs: 0 to 8 (default 2)", "lr: 1e-05 to 0.1, uniform in log (default 0.003)",
    ):  # fmt: skip
        assert part in text
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith(("symmetric", "pairflip"))}
    assert rows["symmetric:0.4"][-4:] == ["−0.8", "2", "4", "2"]
    assert rows["pairflip:0.3"][-3:] == ["2", "4", "2"]


@pytest.mark.parametrize(
    ("space", "preset", "seconds", "offered"),
    [("cifar10", "cpu", 500.0, True), ("cifar10", "quick", 500.0, False), ("cifar10", "cpu", 1.0, False),
     (None, None, 500.0, False)],
)  # fmt: skip
def test_a_search_that_is_long_for_the_machine_offers_a_smaller_one(plan, space, preset, seconds, offered):
    other = replace(plan, settings=replace(plan.settings, space=space), preset=preset)
    text = printed(lambda console: print_plan(other, 4, console, EpochTime(seconds, "a CPU")))
    assert ("That is long for this machine: --preset quick is a smaller search" in text) == offered


def test_the_plan_without_rungs_says_so_and_notes_are_printed(plan):
    budget = plan.space.budget.model_copy(update={"grace_epochs": 20})
    whole = replace(plan, space=plan.space.model_copy(update={"budget": budget}), notes=("mind the gap",))
    text = printed(print_plan, whole, 2)
    assert "ASHA stops none" in text
    assert "Note: mind the gap" in text


@pytest.mark.parametrize("level", ["matrix:[red]m.csv", "matrix:a[/b].csv"])
def test_a_name_is_not_taken_as_markup(summarise, plan, level):
    text = printed(print_levels, arms_table([summarise({"ce": 0.6}, noise_level=level)]))
    assert text.count(level) == 1
    first = plan.levels[0]
    named = replace(first, dataset=replace(first.dataset, noise_level=level))
    assert level in printed(print_plan, replace(plan, levels=(named,)), None)


@pytest.mark.parametrize(
    ("store", "varied", "line"),
    [
        (None, False, "CE warm-ups are trained once and shared"),
        ("none", False, ""),
        ("a/folder", False, "CE warm-ups are trained once and shared"),
        (None, True, ""),
        ("a/folder", True, "No two configurations of this space have the same CE warm-up: --warmup-store is not used"),
    ],
)
def test_the_plan_says_whether_warm_ups_are_shared(plan, store, varied, line):
    space = plan.space
    if varied:
        fixed = {name: value for name, value in space.fixed.items() if name != "warmup_lr"}
        space = space.model_copy(update={"fixed": fixed, "space": {**space.space, "warmup_lr": space.space["lr"]}})
    changed = replace(plan, settings=replace(plan.settings, warmup_store=store), space=space)
    said = [text for text in printed(print_plan, changed, 2).splitlines() if "CE warm-up" in text]
    assert said == [line] * bool(line)


def test_how_much_was_reused_is_said_in_one_line():
    rows = [trial_row(minute=n, epochs=600, epochs_reused=155 * n) for n in range(3)]
    assert epochs_line(trials_frame(rows)) == "1,800 epochs, 465 of them reused warm-ups"
    assert epochs_line(trials_frame(rows[:1])) is None


def test_a_plan_says_its_time_budget_and_where_start_points_come_from():
    plan = make_plan(
        check_search_settings(dataset="twonorm", noise=("symmetric:0.4",), num_trials=4), 0, progress=False
    )
    config = {"smooth_rate": -2.0, "warmup_epochs": 3, "lr": 0.01}
    warm = (WarmPoint("negative", config, "symmetric:0.3"), WarmPoint("ce", {**config, "smooth_rate": 0.0}, "clean"))
    settings = check_search_settings(time_budget="90s", warm_start="runs/earlier")
    start = {arm: with_warm_points(points, arm, warm) for arm, points in plan.levels[0].start.items()}
    told = replace(plan, settings=settings, levels=(replace(plan.levels[0], start=start, warm=warm),))
    text = printed(print_plan, told, 2)
    assert "The search ends after 1 min 30 s at the latest, all sessions of the run together" in text
    assert "the confirmation follows and is not counted" in text
    # CE has one trial, which its default takes.
    assert (
        "symmetric:0.4 starts also from runs/earlier: r=−2 warm-up 3 lr=0.01 (its symmetric:0.3); "
        "r=0 warm-up 3 lr=0.01 (its clean); no trial is left for 1 of them, raise --num-trials"
    ) in text
    plain = printed(print_plan, plan, 2)
    assert "starts also" not in plain
    assert "at the latest" not in plain


# Where the noise-cancelling rate comes from


def rows_of(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}


def test_the_plan_shows_an_estimate_beside_the_truth_which_is_the_prior(tiny_plan):
    for plan in (tiny_plan, tiny_plan.with_estimate(estimate_of("symmetric:0.4"))):
        text = printed(print_plan, plan, 2)
        assert "Start points hold the noise-cancelling rate of the true noise\n" in text
        assert "estimated" not in text  # nobody asked for it
    (level,) = tiny_plan.levels
    wanted = replace(tiny_plan, levels=(replace(level, needs_estimate=True),))
    assert rows_of(printed(print_plan, wanted, 2))["symmetric:0.4"][3:5] == ["–", "–"]
    text = printed(print_plan, wanted.with_estimate(estimate_of("symmetric:0.4")), 2)
    assert rows_of(text)["symmetric:0.4"][:6] == ["39.9", "%", "−4", "30.0", "%", "−1.5"]
    assert "of the true noise\n" in text
    narrow = printed(print_plan, wanted.with_estimate(estimate_of("symmetric:0.4")), 2, width=60)
    assert "noise-cancelling rate estimated its rate" in narrow
    assert "…" not in narrow


def test_the_plan_says_that_an_estimate_is_the_prior(monkeypatch):
    hide_the_truth(monkeypatch)
    settings = check_search_settings(dataset="twonorm", noise=("symmetric:0.2", "symmetric:0.4"), train_size=500)
    plan = make_plan(settings, 0, progress=False)
    text = printed(print_plan, plan, 2)
    assert "Before the trials the noise is estimated, and its noise-cancelling rate becomes a start point\n" in text
    text = printed(print_plan, plan.with_estimate(estimate_of("symmetric:0.4")), 2)
    assert rows_of(text)["symmetric:0.4"][:5] == ["–", "–", "30.0", "%", "−1.5"]
    assert "rate of the estimated noise; the true noise is not used (symmetric:0.4)\n" in text
    assert "becomes a start point (symmetric:0.2)\n" in text


def test_the_plan_says_that_the_models_of_an_estimate_are_too_weak(monkeypatch):
    hide_the_truth(monkeypatch)
    weak = estimate_of("symmetric:0.4", is_weak=True)
    for methods, warned in ((("ce", "gls"), False), (("ce", "forward"), True)):
        settings = check_search_settings(dataset="twonorm", noise=("symmetric:0.4",), train_size=500, methods=methods)
        text = printed(print_plan, make_plan(settings, 0, progress=False).with_estimate(weak), 2)
        assert rows_of(text)["symmetric:0.4"][2:5] == ["too", "weak", "–"]
        assert "too weak, so no start point holds a noise-cancelling rate\n" in text
        assert ("forward and backward correct for a matrix of weak models (symmetric:0.4)" in text) == warned
