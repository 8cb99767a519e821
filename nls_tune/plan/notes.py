"""Notes on a plan for the user, and the number of trials that a level's weight gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nls_tune.noise.levels import parse_noise_level
from nls_tune.plan.transition import transition_source
from nls_tune.spaces.space import SearchSpace

if TYPE_CHECKING:
    from nls_tune.plan.level import LevelPlan
    from nls_tune.plan.settings import SearchSettings


def weighted_trials(space: SearchSpace, weight: float) -> int:
    """Return the number of trials of a level, at least one."""
    return max(1, round(space.budget.trials * weight))


def plan_notes(
    space: SearchSpace, levels: Sequence[LevelPlan], settings: SearchSettings, *, val_clean: bool
) -> tuple[str, ...]:
    """Return what the user should know before a search starts, one sentence each."""
    notes = [
        f"at {level.level} right labels do not outweigh wrong ones: noisy validation cannot choose a rate"
        for level in levels
        if not val_clean and level.noise_rate is not None and level.noise_cancelling_rate is None
    ]
    if all(level.quotas == levels[0].quotas for level in levels):
        notes += _notes_on_arms(space, levels[0])
    else:
        notes += [f"{level.level}: {note}" for level in levels for note in _notes_on_arms(space, level)]
    if fixed := [
        level.level for level in levels if settings.noise_draws and not parse_noise_level(level.level).is_drawn
    ]:
        notes.append(f"the labels of {', '.join(fixed)} are not drawn: the confirmation keeps them for all seeds")
    notes += [
        f"{level.level} has {level.dataset.num_train:,} training and {level.dataset.num_val:,} validation samples"
        for level in levels
        if len(level.dataset.val_indices) != len(levels[0].dataset.val_indices)
        or level.dataset.num_train != levels[0].dataset.num_train
    ]
    if transition_source(space) == "true_noise":
        notes.append("forward and backward are given the true matrix of the noise, which real data do not have")
    for level, trials in {level.level: weighted_trials(space, level.weight) for level in levels}.items():
        if left := trials - space.dealt(trials):
            notes.append(f"{level}: {left} of {trials} trials are left out, so that all methods get as many")
    if not any("ce" in level.quotas for level in levels):
        notes.append("without the ce arm no gain can be told; give it a share in arms")
    return tuple(notes)


def _notes_on_arms(space: SearchSpace, level: LevelPlan) -> list[str]:
    """Return notes on the arms that run out of configurations and on those that get no trial."""
    notes, quotas = [], level.quotas
    for arm in space.used_arms():
        size = space.arm(arm).size() if arm in quotas else None
        if size is not None and quotas[arm] == size:
            notes.append(f"arm {arm} has {size} configuration{'s' if size > 1 else ''} in all and then ends")
        if arm not in quotas:
            notes.append(f"arm {arm} gets no trial of {weighted_trials(space, level.weight)}; raise --num-trials")
    return notes
