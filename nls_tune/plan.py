"""What a search is going to do: settings from the user, checked, turned into levels, groups and trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

from nls_tune.allocation import Group, Rungs
from nls_tune.datasets import (
    DatasetInfo,
    NoisyDataset,
    check_level,
    dataset_info,
    load_source,
    make_noisy,
)
from nls_tune.errors import InputError
from nls_tune.noise import noise_cancelling_rate, parse_noise_level, parse_noise_levels
from nls_tune.noise_estimation import NoiseEstimate
from nls_tune.parameters import FloatParameter
from nls_tune.results import trial_id
from nls_tune.search_settings import SearchSettings
from nls_tune.settings import TrainingSettings
from nls_tune.space_files import load_space
from nls_tune.spaces import ARMS, Arm, Preset, SearchSpace

#: The rate that ordinary label smoothing uses most; always tried.
USUAL_RATE = 0.1


#: Settings that say where and how fast a run computes, not what: they may differ when it is resumed.
_MAY_DIFFER = {"data_dir", "out", "trials_per_gpu", "cpus_per_trial", "address", "confirm_seeds"}
#: Settings that have gone into the search space or the split, and are compared there or by fingerprint.
_IN_SPACE = {"space", "preset", "overrides", "num_trials", "epochs", "train_size", "val_fraction"}

Prior = Literal["true noise", "estimate", "unknown", "none"]


@dataclass(frozen=True)
class LevelPlan:
    """What is known of a noise level before its first trial.

    Attributes:
        dataset: The data with this level's labels.
        noise_rate: Share of wrong labels before ``train_size``, None where unknown.
        noise_cancelling_rate: r* of the true noise, None where it does not exist or is unknown.
        quotas: Trials by arm.
        start: Start points by arm.
        needs_estimate: Whether the noise is to be estimated before the trials.
        estimate: What that found; None before, and where it is not done.
    """

    dataset: NoisyDataset
    noise_rate: float | None
    noise_cancelling_rate: float | None
    quotas: dict[Arm, int]
    start: dict[Arm, tuple[dict[str, Any], ...]]
    needs_estimate: bool = False
    estimate: NoiseEstimate | None = None

    @property
    def level(self) -> str:
        """The noise level in its stored spelling."""
        return self.dataset.noise_level

    @property
    def prior(self) -> Prior:
        """Where the noise-cancelling rate among the start points comes from; ``unknown`` before an estimate."""
        if self.noise_rate is not None:
            return "true noise"
        if self.estimate is not None:
            return "estimate"
        return "unknown" if self.needs_estimate else "none"


@dataclass(frozen=True)
class SearchPlan:
    """A search, ready to run.

    Attributes:
        settings: What the user asked for.
        info: Of the dataset.
        space: With preset, overrides and the user's budget applied.
        preset: The preset that was taken.
        preset_reason: Why.
        levels: In the order of the command.
        notes: What the user should know before it starts, one sentence each.
    """

    settings: SearchSettings
    info: DatasetInfo
    space: SearchSpace
    preset: Preset
    preset_reason: str
    levels: tuple[LevelPlan, ...]
    notes: tuple[str, ...]

    @property
    def num_trials(self) -> int:
        """Trials of all levels."""
        return sum(sum(level.quotas.values()) for level in self.levels)

    def rungs(self) -> Rungs:
        """The rungs of every group's ASHA, whose clock is the epoch; none without a scheduler."""
        if self.settings.scheduler == "none":
            return Rungs(())
        budget = self.space.budget
        return Rungs.geometric(budget.grace_epochs, budget.epochs, budget.reduction_factor)

    def groups(self) -> list[Group]:
        """One group for each level and arm."""
        return [
            Group(
                key=group_key(level.level, arm),
                space=self.space.arm(arm),
                num_trials=quota,
                start=level.start[arm][:quota],
                share=quota,
            )
            for level in self.levels
            for arm, quota in level.quotas.items()
        ]

    def level_plan(self, level: str) -> LevelPlan:
        """Return the plan of a level."""
        return next(p for p in self.levels if p.level == level)

    def with_estimate(self, estimate: NoiseEstimate) -> SearchPlan:
        """Return the plan with the estimated noise of one level.

        Where the true noise is unknown, the estimate's noise-cancelling rate becomes a start point.
        """
        levels = []
        for level in self.levels:
            if level.level == estimate.noise_level:
                level = replace(level, estimate=estimate)
                if level.noise_rate is None:
                    level = replace(level, start=_start(self.space, level.quotas, estimate.noise_cancelling_rate))
            levels.append(level)
        return replace(self, levels=tuple(levels))

    def training_settings(self, config: dict[str, Any], seed: int | None = None) -> TrainingSettings:
        """Return what a trial trains for a configuration, by default with the search's seed."""
        return self.space.settings(config, self.settings.seed if seed is None else seed)

    def trial_id(self, level: str, settings: TrainingSettings, stage: str) -> str:
        """Return the name of a trial."""
        dataset = self.level_plan(level).dataset
        return trial_id(dataset.fingerprint, level, dataset.noise_seed, settings, stage)

    def confirm_seeds(self) -> list[int]:
        """Seeds of the confirmation: none of them is the search's."""
        return [self.settings.seed + 1 + i for i in range(self.space.budget.confirm_seeds)]

    def identity(self) -> dict[str, Any]:
        """What must agree when a run is resumed, as plain JSON values."""
        settings = self.settings.model_dump(mode="json", exclude=_MAY_DIFFER | _IN_SPACE)
        identity = {
            "settings": {**settings, "noise": [p.level for p in self.levels]},
            # A finished search may be confirmed with more seeds.
            "space": self.space.model_dump(mode="json", exclude={"budget": {"confirm_seeds"}}),
            "fingerprints": {p.level: p.dataset.fingerprint for p in self.levels},
        }
        # Through JSON, so that it compares equal with what run.json gives back.
        return cast("dict[str, Any]", json.loads(json.dumps(identity)))

    def facts(self) -> list[dict[str, Any]]:
        """What is known of each level before its first trial, as plain JSON values."""
        return [
            {
                "noise_level": p.level,
                "noise_rate": p.noise_rate,
                "noise_cancelling_rate": p.noise_cancelling_rate,
                "num_train": p.dataset.num_train,
                "num_val": p.dataset.num_val,
                "trials": p.quotas,
                "start": p.start,
                "estimate": None if p.estimate is None else asdict(p.estimate),
            }
            for p in self.levels
        ]


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List what differs between two nested mappings, as ``key: before -> now``."""
    found = []
    for key in [*before, *(k for k in now if k not in before)]:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old} -> {new}")
    return found


def group_key(level: str, arm: str) -> str:
    """Return the key of a group."""
    return f"{level}/{arm}"


def choose_preset(settings: SearchSettings, num_gpus: float) -> tuple[Preset, str]:
    """Return the preset to take and why.

    Args:
        settings: What the user asked for.
        num_gpus: GPUs of the machine or the cluster.

    Returns:
        The preset and half a sentence.
    """
    if settings.preset != "auto":
        return settings.preset, "as asked for"
    if num_gpus:
        return "gpu", f"{num_gpus:g} GPU{'s' if num_gpus != 1 else ''} found"
    return "cpu", "no GPU found"


def load_plan_space(settings: SearchSettings, preset: Preset) -> SearchSpace:
    """Read the search space and apply the user's budget to it.

    Raises:
        InputError: For a space that cannot be read or breaks a rule.
    """
    name = settings.space or settings.dataset
    space = load_space(name, preset=preset, epochs=settings.epochs, overrides=settings.overrides)
    budget = space.budget
    if budget.grace_epochs > budget.epochs:
        raise InputError(
            f"{space.name}: budget.grace_epochs must be at most budget.epochs, "
            f"got {budget.grace_epochs} and {budget.epochs}"
        )
    changes: Mapping[str, Any] = {
        name: value
        for name, value in (
            ("trials", settings.num_trials),
            ("train_size", settings.train_size),
            ("confirm_seeds", settings.confirm_seeds),
        )
        if value is not None
    }
    space = space.model_copy(update={"budget": budget.model_copy(update=changes)})
    space.check_settings()
    return space


def make_plan(settings: SearchSettings, num_gpus: float, *, progress: bool = True) -> SearchPlan:
    """Check everything, load the data and plan the search. No Ray process is started.

    Args:
        settings: What the user asked for.
        num_gpus: GPUs of the machine or the cluster.
        progress: Whether downloads show a progress bar.

    Returns:
        The plan.

    Raises:
        InputError: For anything that cannot work.
    """
    info = dataset_info(settings.dataset)
    texts = info.default_levels if settings.noise is None else settings.noise
    levels = parse_noise_levels(",".join(texts))
    for level in levels:
        check_level(info, level)
    preset, reason = choose_preset(settings, num_gpus)
    space = load_plan_space(settings, preset)
    _check_training(space, info)
    source = load_source(settings.dataset, data_dir=settings.data_dir, progress=progress)
    quotas = _grid_quotas(space) if settings.sampler == "grid" else space.quotas(space.budget.trials)
    plans = []
    for level in levels:
        dataset = make_noisy(
            source,
            level,
            noise_seed=settings.noise_seed,
            val_fraction=settings.val_fraction,
            train_size=space.budget.train_size,
            split_seed=settings.seed,
        )
        plans.append(_plan_level(space, dataset, quotas, settings.estimate_noise))
    _check_batches(space, plans[0].dataset)
    return SearchPlan(settings, info, space, preset, reason, tuple(plans), _notes(space, quotas, plans))


def _grid_quotas(space: SearchSpace) -> dict[Arm, int]:
    """Every point of every arm that has a share, whatever ``trials`` says."""
    quotas: dict[Arm, int] = {}
    for arm in ARMS:
        if not space.arms.get(arm, 0) or not space.has_arm(arm):
            continue
        size = space.arm(arm).size()
        if size is None:
            real = [n for n, p in space.space.items() if isinstance(p, FloatParameter)]
            raise InputError(
                f"--sampler grid needs choices, {real[0]} is a float in {space.name}; "
                f"fix it with --set {real[0]}=VALUE, make it a choice in a file of your own, or take another sampler"
            )
        quotas[arm] = size
    return quotas


def _plan_level(
    space: SearchSpace, dataset: NoisyDataset, quotas: dict[Arm, int], estimate_noise: bool | None
) -> LevelPlan:
    rate = cancelling_rate(dataset)
    return LevelPlan(
        dataset=dataset,
        noise_rate=dataset.noise_rate,
        noise_cancelling_rate=rate,
        quotas=quotas,
        start=_start(space, quotas, rate),
        needs_estimate=dataset.noise_rate is None if estimate_noise is None else estimate_noise,
    )


def _start(space: SearchSpace, quotas: dict[Arm, int], prior: float | None) -> dict[Arm, tuple[dict[str, Any], ...]]:
    """Start points by arm: those of the space, and three rates at its defaults."""
    rates = [0.0, USUAL_RATE, *([] if prior is None else [prior])]
    return {arm: space.arm(arm).start(rates) for arm in quotas}


def cancelling_rate(dataset: NoisyDataset) -> float | None:
    """Return the noise-cancelling rate of a dataset's noise.

    Of symmetric noise it is that of its nominal rate, of other noise the symmetric equivalent of the observed
    share of wrong labels.

    Args:
        dataset: With clean labels, or with symmetric noise.

    Returns:
        The rate, or None where the noise is unknown or the rate does not exist.
    """
    level = parse_noise_level(dataset.noise_level)
    noise_rate = dataset.noise_rate
    if noise_rate is not None and level.rate is not None and level.kind == "symmetric":
        noise_rate = level.rate
    if noise_rate is None or noise_rate >= (dataset.num_classes - 1) / dataset.num_classes:
        return None
    return noise_cancelling_rate(noise_rate, dataset.num_classes)


def _check_training(space: SearchSpace, info: DatasetInfo) -> None:
    """Check model and image settings against the dataset before anything is loaded."""
    from nls_tune.models import check_model

    parameter = space.space.get("model")
    names = getattr(parameter, "values", None) or [space.settings(space.default(), 0).model]
    for name in names:
        check_model(name, info.input_shape)


def _check_batches(space: SearchSpace, dataset: NoisyDataset) -> None:
    from nls_tune.training import check_fit

    for settings in space.corner_settings():
        check_fit(settings, dataset.num_train, dataset.input_shape)


def _notes(space: SearchSpace, quotas: dict[Arm, int], levels: Sequence[LevelPlan]) -> tuple[str, ...]:
    notes = [
        f"at {level.level} right labels do not outweigh wrong ones: noisy validation cannot choose a rate"
        for level in levels
        if level.noise_rate is not None and level.noise_cancelling_rate is None
    ]
    for arm in ARMS:
        size = space.arm(arm).size() if arm in quotas else None
        if size is not None and quotas[arm] == size:
            notes.append(f"arm {arm} has {size} configuration{'s' if size > 1 else ''} in all and then ends")
        if arm not in quotas and space.has_arm(arm) and space.arms.get(arm, 0):
            notes.append(f"arm {arm} gets no trial of {space.budget.trials}; raise --num-trials")
    if "ce" not in quotas:
        notes.append("without the ce arm no gain can be told; give it a share in arms")
    return tuple(notes)
