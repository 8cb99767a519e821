"""The plan and the results of a search on the console."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console

from nls_tune.errors import InputError
from nls_tune.plan.annotators import annotator_facts
from nls_tune.plan.transition import transition_source
from nls_tune.report.console.estimates import print_annotators
from nls_tune.report.console.tables import print_line, print_table
from nls_tune.report.table import Table, numbers, words
from nls_tune.report.text import amount, configuration, duration, number, of_metric, percent, printable, rate
from nls_tune.spaces.parameters import ChoiceParameter, FloatParameter, IntParameter, Parameter
from nls_tune.spaces.reading import find_preset
from nls_tune.spaces.settings import RATE_ARMS

if TYPE_CHECKING:
    import pandas as pd

    from nls_tune.plan.level import LevelPlan
    from nls_tune.plan.plan import EpochTime, SearchPlan

#: A search that takes longer is told of a smaller one, where its space has one.
_LONG_SECONDS = 45 * 60
_CLASSES_SHOWN = 10


def print_plan(plan: SearchPlan, slots: int, console: Console, epoch_time: EpochTime | None = None) -> None:
    """Say what the search is going to do, with ``slots`` trials at once; how long it takes if an epoch was measured."""
    budget, info, first = plan.space.budget, plan.info, plan.levels[0].dataset
    num_test = 0 if first.test_labels is None else len(first.test_labels)
    model = plan.training_settings(plan.space.default()).model
    preset = f"preset {plan.preset}" if plan.preset else "no preset"
    kind = "clean" if plan.source.own is not None and plan.source.own.val_clean else "noisy"
    lines = [
        f"Search of {info.name}: {first.num_train} training, {first.num_val} validation ({kind} labels), "
        f"{num_test} test samples, {info.num_classes} classes{_class_names(plan)}",
        f"Space {plan.space.name}, {preset} ({plan.preset_reason}), model {model}",
        f"{amount(len(plan.levels), 'noise level')}, {plan.num_trials} trials of "
        f"{budget.epochs} epochs; ASHA stops {_rungs(plan)}; {slots} at a time",
    ]
    if (seconds := plan.settings.time_budget) is not None:
        then = "; the confirmation follows and is not counted" if plan.confirm_seeds() else ""
        lines.append(f"The search ends after {duration(seconds)} at the latest, all sessions of the run together{then}")
    if (metric := plan.settings.metric) != "accuracy":
        lines.append(of_metric("Validation accuracy selects epochs, weights and configurations", [metric]))
    lines += [_confirmation(plan), *_cost(plan, slots, epoch_time)]
    if plan.shares_warmups:
        lines.append("CE warm-ups are trained once and shared")
    elif plan.settings.warmup_store not in (None, "none"):
        lines.append("No two configurations of this space have the same CE warm-up: --warmup-store is not used")
    lines += [f"  {name}: {_range(parameter)}" for name, parameter in plan.space.space.items()]
    print_line("\n".join(lines), console)
    _print_levels(plan, console)
    print_annotators(annotator_facts(plan.source), console)
    for level in plan.levels:
        if level.warm:
            print_line(_warm_line(level, plan), console)
    for note in plan.notes:
        print_line(f"Note: {note}", console)


def _class_names(plan: SearchPlan) -> str:
    own = plan.source.own
    if own is None:
        return ""
    names = own.class_names
    more = f" and {len(names) - _CLASSES_SHOWN} more" if len(names) > _CLASSES_SHOWN else ""
    return f" ({', '.join(printable(name) for name in names[:_CLASSES_SHOWN])}{more})"


def _confirmation(plan: SearchPlan) -> str:
    seeds = plan.confirm_seeds()
    if not seeds:
        return "No confirmation; --confirm-seeds 5 trains the winners and CE again with fresh seeds"
    return (
        "Then the selected configuration of each arm and CE with the defaults again, with "
        f"{amount(len(seeds), 'fresh seed')} each"
        + (", each with a draw of the noise of its own" if plan.settings.noise_draws else "")
        + ("; then on all labels" if plan.settings.confirm_on == "all" else "")
        + (f"; then {_sweep(plan)}" if plan.sweep_rates else "")
    )


def _sweep(plan: SearchPlan) -> str:
    others = len(plan.sweep_settings)
    own = f", each with the best of {amount(1 + others, 'choice')} of settings" if others else ""
    return f"{amount(len(plan.sweep_rates), 'rate')} with them{own}"


def _cost(plan: SearchPlan, slots: int, epoch_time: EpochTime | None) -> Iterator[str]:
    """Say how many epochs search and confirmation train at most, and how long that takes."""
    epochs = plan.space.budget.epochs
    stages = {"search": plan.num_trials, "confirmation": plan.num_confirm_trials, "sweep": plan.num_sweep_trials}
    stages = {name: trials for name, trials in stages.items() if trials}
    counts = [f"{trials * epochs:,} in the {name}" for name, trials in stages.items()]
    yield f"Epochs to train, at most: {', '.join(counts)}"
    if epoch_time is None:
        yield "How long they take is not known: no epoch of this run was measured yet"
        return
    one = epoch_time.seconds
    seconds = {name: math.ceil(trials / slots) * epochs * one for name, trials in stages.items()}
    if plan.settings.time_budget is not None:
        seconds["search"] = min(seconds["search"], plan.settings.time_budget)
    times = [f"{duration(value)} in the {name}" for name, value in seconds.items()]
    shown = duration(one) if one >= 10 else f"{one:.2g} s"
    yield f"Time for them, at most: {', '.join(times)}; if an epoch takes {shown}, as on {epoch_time.device}"
    if sum(seconds.values()) > _LONG_SECONDS and _offers_quick(plan):
        yield "That is long for this machine: --preset quick is a smaller search"


def _offers_quick(plan: SearchPlan) -> bool:
    """Whether the space has a preset ``quick``, and another one was taken."""
    try:
        found = find_preset(plan.settings.space or plan.info.default_space, "quick")
    except InputError:  # most spaces have none
        return False
    return found != plan.preset


def _range(parameter: Parameter) -> str:
    if isinstance(parameter, ChoiceParameter):
        text = ", ".join(str(v) for v in parameter.values)
    else:
        text = f"{number(parameter.low)} to {number(parameter.high)}"
        if isinstance(parameter, IntParameter) and parameter.step > 1:
            text += f" in steps of {parameter.step}"
        if parameter.scale != "linear":
            text += f", uniform in {'log(1 − r)' if parameter.scale == 'log1m' else 'log'}"
    shown = number(parameter.default) if isinstance(parameter, FloatParameter) else parameter.default
    return f"{text} (default {shown})"


def epochs_line(trials: pd.DataFrame) -> str | None:
    """Say how many epochs the trials of a run have, and how many were reused; None if none were."""
    epochs, reused = int(trials["epochs"].sum()), int(trials["epochs_reused"].sum())
    return f"{epochs:,} epochs, {reused:,} of them reused warm-ups" if reused else None


def _warm_line(level: LevelPlan, plan: SearchPlan) -> str:
    """Say where the start points of a level come from, and for how many there is no trial."""
    points = "; ".join(f"{configuration(point.config)} (its {point.noise_level})" for point in level.warm)
    run = {arm: level.start[arm][:quota] for arm, quota in level.quotas.items()}
    waiting = sum(point.config not in run.get(point.arm, ()) for point in level.warm)
    tail = f"; no trial is left for {waiting} of them, raise --num-trials" if waiting else ""
    return f"{level.level} starts also from {plan.settings.warm_start}: {points}{tail}"


def _print_levels(plan: SearchPlan, console: Console) -> None:
    estimates = any(level.needs_estimate for level in plan.levels)
    rows = []
    used = plan.space.used_arms()
    arms = RATE_ARMS if set(used) <= set(RATE_ARMS) else used
    for level in plan.levels:
        if level.estimate is None:
            found = ["–", "–"]
        elif level.estimate.is_weak:
            found = ["too weak", "–"]
        else:
            found = [percent(level.estimate.noise_rate), rate(level.estimate.noise_cancelling_rate)]
        known = [level.level, percent(level.noise_rate), rate(level.noise_cancelling_rate)]
        trials = [str(level.quotas.get(arm, 0)) for arm in arms]
        rows.append((*known, *(found if estimates else ()), *trials))
    headings = ["noise rate", "noise-cancelling rate", *(["estimated", "its rate"] if estimates else ())]
    columns = (*words("noise level"), *numbers(*headings, *arms))
    print_table(Table(columns, tuple(rows)), console)
    for prior, text in _PRIORS.items():
        if levels := [level.level for level in plan.levels if level.prior == prior]:
            which = "" if len(levels) == len(plan.levels) else f" ({', '.join(levels)})"
            print_line(f"{text}{which}", console)
    weak = [level.level for level in plan.levels if level.estimate is not None and level.estimate.is_weak]
    if weak and transition_source(plan.space) == "estimate":
        way_out = "--set transition=matrix:FILE gives another"
        print_line(f"forward and backward correct for a matrix of weak models ({', '.join(weak)}): {way_out}", console)


#: What the plan says of where the noise-cancelling rate among the start points comes from.
_PRIORS = {
    "true noise": "Start points hold the noise-cancelling rate of the true noise",
    "estimate": "Start points hold the noise-cancelling rate of the estimated noise; the true noise is not used",
    "weak estimate": "The models of the estimate are too weak, so no start point holds a noise-cancelling rate",
    "unknown": "Before the trials the noise is estimated, and its noise-cancelling rate becomes a start point",
    "none": "The noise is unknown or that of people, and not estimated: no start point holds a noise-cancelling rate",
}


def _rungs(plan: SearchPlan) -> str:
    levels = plan.rungs().levels
    return f"trials {', '.join(map(str, levels))} epochs after their warm-up" if levels else "none"
