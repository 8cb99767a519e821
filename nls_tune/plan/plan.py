"""The plan of a search: the user's settings, checked, and turned into levels, groups and trials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from nls_tune.allocation.allocator import Config, Group
from nls_tune.allocation.asha import Rungs
from nls_tune.datasets import Data, DatasetInfo, NoisyDataset, Source, dataset_info, load_own, load_source, make_noisy
from nls_tune.datasets.source import hash_arrays
from nls_tune.errors import InputError
from nls_tune.noise import NoiseLevel, parse_noise_level
from nls_tune.noise.confident_learning import NoiseEstimate
from nls_tune.noise.matrices import read_matrix
from nls_tune.plan.annotators import estimate_of_annotators
from nls_tune.plan.level import GroupKey, LevelPlan, cancelling_rate, read_levels
from nls_tune.plan.models import check_models
from nls_tune.plan.notes import plan_notes, weighted_trials
from nls_tune.plan.settings import DATA_SETTINGS, SearchSettings
from nls_tune.plan.space import choose_preset, grid_quotas, load_plan_space
from nls_tune.plan.start_points import WarmPoint, read_warm_points, stored_warm_points, with_warm_points
from nls_tune.plan.sweep import DEFAULT_TRIALS, spread_settings, sweep_rates
from nls_tune.plan.transition import check_losses, transition_source
from nls_tune.plan.weights import parse_level_weights
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.run_json import RunIdentity, RunLevel
from nls_tune.runs.schemas import Stage
from nls_tune.spaces.settings import Arm, TrainingSettings, check_fit
from nls_tune.spaces.space import SearchSpace

#: The rate that ordinary label smoothing uses most; always tried.
USUAL_RATE = 0.1


#: Settings that say where and how fast a run computes, not what: they may differ when it is resumed.
_MAY_DIFFER = {
    "data_dir", "out", "trials_per_gpu", "cpus_per_trial", "compile", "address", "confirm_seeds",
    "confirm_on", "sweep", "sweep_trials", "warmup_store", "time_budget", "max_concurrent", "trial_timeout",
    "tensorboard", "mlflow", "wandb", "storage",
}  # fmt: skip
#: Settings that have gone into the search space or the splits, and are compared there or by fingerprint.
_IN_SPACE = {"space", "preset", "overrides", "methods", "num_trials", "epochs", "train_size", "val_fraction"}
#: Settings that are compared in one spelling, and only where they were given.
_IF_GIVEN = {"level_weight", "warm_start", "noise_draws", "test_size", "tta", "metric"}


@dataclass(frozen=True)
class EpochTime:
    """The seconds that an epoch of a trial took, and the device that trained it."""

    seconds: float
    device: str


@dataclass(frozen=True)
class SearchPlan:
    """A search, ready to run.

    The ``space`` has preset, overrides and the user's budget applied. Without a ``preset`` its file was taken as it
    stands; ``preset_reason`` says why, either way. The ``levels`` are in the order of the command.
    ``notes`` are what the user should know before it starts, one sentence each.
    """

    settings: SearchSettings
    info: DatasetInfo
    space: SearchSpace
    preset: str | None
    preset_reason: str
    levels: tuple[LevelPlan, ...]
    notes: tuple[str, ...]
    source: Source = field(repr=False)

    @property
    def num_trials(self) -> int:
        """Trials of all levels."""
        return sum(sum(level.quotas.values()) for level in self.levels)

    @property
    def num_confirm_trials(self) -> int:
        """Trials of the confirmation at most."""
        return self.trials_of_stages["confirm"] + self.trials_of_stages["confirm_all"]

    @property
    def sweep_rates(self) -> tuple[float, ...]:
        """The rates of the sweep at every level; none without one."""
        return () if self.settings.sweep is None else sweep_rates(self.space, self.settings.sweep)

    @property
    def sweep_settings(self) -> tuple[Config, ...]:
        """The settings that a sweep tries with every rate, besides those of the search's best trial near the rate.

        None where there is nothing to choose.
        """
        num = DEFAULT_TRIALS if self.settings.sweep_trials is None else self.settings.sweep_trials
        can_choose = set(self.space.parameters("ce")) != {"smooth_rate"}
        return (
            spread_settings(self.space, num - 1, self.settings.seed) if num and can_choose and self.sweep_rates else ()
        )

    @property
    def num_sweep_trials(self) -> int:
        """Trials of the sweep at most: those that choose the settings of its rates, and those with fresh seeds."""
        return self.trials_of_stages["sweep_search"] + self.trials_of_stages["sweep"]

    @property
    def trials_of_stages(self) -> dict[Stage, int]:
        """Trials of each stage at most, in their order.

        The confirmation has each arm's selected configuration and CE at the defaults, per seed.
        """
        seeds, rates = len(self.confirm_seeds()), len(self.sweep_rates) * len(self.levels)
        confirmed = seeds * sum(len(level.quotas) + ("ce" in level.quotas) for level in self.levels)
        return {
            "search": self.num_trials,
            "confirm": confirmed,
            "confirm_all": confirmed if self.settings.confirm_on == "all" else 0,
            "sweep_search": rates * (1 + len(found)) if (found := self.sweep_settings) else 0,
            "sweep": rates * seeds,
        }

    def epochs_after(self, stage: Stage) -> int:
        """Epochs of the stages that follow one, at most."""
        names = list(self.trials_of_stages)
        return self.space.budget.epochs * sum(self.trials_of_stages[name] for name in names[names.index(stage) + 1 :])

    def rungs(self) -> Rungs:
        """The rungs of every group's ASHA, whose clock is the epochs of the GLS phase; none without a scheduler."""
        if self.settings.scheduler == "none":
            return Rungs(())
        budget = self.space.budget
        return Rungs.geometric(budget.grace_epochs, budget.epochs, budget.reduction_factor)

    def groups(self) -> list[Group[GroupKey]]:
        """Return one group for each level and arm."""
        return [
            Group(
                key=GroupKey(level.level, arm),
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

        Where the true noise is unknown, or not to be used, the estimate's noise-cancelling rate becomes a start point,
        unless the networks of the estimate were too weak.
        """
        levels = []
        for level in self.levels:
            if level.level == estimate.noise_level:
                level = replace(level, estimate=estimate)
                if not level.knows_noise:
                    prior = None if estimate.is_weak else estimate.noise_cancelling_rate
                    level = replace(level, start=_start(self.space, level.quotas, prior, level.warm))
            levels.append(level)
        return replace(self, levels=tuple(levels))

    def training_settings(self, config: Config, seed: int | None = None) -> TrainingSettings:
        """Return what a trial trains for a configuration, by default with the search's seed."""
        return self.space.settings(config, self.settings.seed if seed is None else seed)

    @property
    def shares_warmups(self) -> bool:
        """Whether CE warm-ups are trained once and shared."""
        return self.settings.warmup_store != "none" and self.space.shares_warmups()

    def warmup_store(self, run: RunDirectory) -> Path | None:
        """Return the folder of shared CE warm-ups, by default one in the run directory; None if none are shared."""
        if not self.shares_warmups:
            return None
        given = self.settings.warmup_store
        # Absolute, because worker processes have other working directories.
        return run.warmups if given is None else Path(given).expanduser().absolute()

    def confirm_seeds(self) -> list[int]:
        """Seeds of the confirmation: none of them is the search's."""
        return [self.settings.seed + 1 + i for i in range(self.space.budget.confirm_seeds)]

    def confirm_noise_seed(self, level: str, seed: int) -> int | None:
        """The draw of the noise of a confirmation's seed, one for all configurations; None: that of the search."""
        if not self.settings.noise_draws or not parse_noise_level(level).is_drawn:
            return None
        return self.settings.noise_seed + seed - self.settings.seed

    def identity(self) -> RunIdentity:
        """Return what must agree when a run is resumed."""
        # A user's own data are compared by fingerprint.
        elsewhere = _MAY_DIFFER | _IN_SPACE | _IF_GIVEN | set(DATA_SETTINGS)
        settings = {name: value for name, value in vars(self.settings).items() if name not in elsewhere}
        settings["dataset"] = self.info.name
        if weights := {p.level: p.weight for p in self.levels if p.weight != 1}:
            settings["level_weight"] = weights
        if self.settings.noise_draws:
            settings["noise_draws"] = True
        if self.settings.test_size not in (None, self.info.num_test):
            settings["test_size"] = self.settings.test_size
        if self.settings.tta != "none":
            settings["tta"] = self.settings.tta
        if self.settings.metric != "accuracy":
            settings["metric"] = self.settings.metric
        settings["objective"] = self.settings.objective or self.training_settings(self.space.default()).objective
        if self.settings.warm_start is not None:
            settings["warm_start"] = str(self.settings.warm_start)
        if (source := transition_source(self.space) or "").startswith("matrix:"):
            matrix = read_matrix(source.removeprefix("matrix:"), self.info.num_classes)
            settings["transition_sha256"] = hash_arrays(matrix, seed="")
        identity = {
            "settings": {**settings, "noise": [p.level for p in self.levels]},
            # A finished search may be confirmed with more seeds.
            "space": self.space.model_dump(mode="json", exclude={"budget": {"confirm_seeds"}}),
            "fingerprints": {p.level: p.dataset.fingerprint for p in self.levels},
        }
        # Through JSON, so that it compares equal with what run.json gives back.
        return RunIdentity.model_validate_json(json.dumps(identity))

    def run_levels(self) -> list[RunLevel]:
        """Return what run.json says of each level before its first trial."""
        return [
            RunLevel.model_validate(
                {
                    "noise_level": p.level,
                    "noise_rate": p.noise_rate,
                    "noise_cancelling_rate": p.noise_cancelling_rate,
                    "num_train": p.dataset.num_train,
                    "num_val": p.dataset.num_val,
                    "trials": p.quotas,
                    "start": p.start,
                    "warm_start": [asdict(point) for point in p.warm],
                    "estimate": None if p.estimate is None else asdict(p.estimate),
                }
            )
            for p in self.levels
        ]


def make_plan(
    settings: SearchSettings,
    num_gpus: float,
    *,
    assumed: bool = False,
    progress: bool = True,
    data: Data | None = None,
) -> SearchPlan:
    """Check everything, load the data and plan the search on a machine or cluster. No Ray process is started.

    With ``assumed`` the GPUs are those of another machine. The user's own ``data`` are by default those that the
    settings name.

    Raises:
        InputError: For anything that cannot work.
    """
    own = data or settings.data
    source = None
    if own is not None:  # only then is it known what they are
        source = load_own(own, split_seed=settings.seed, val_fraction=settings.val_fraction, progress=progress)
    info = dataset_info(settings.dataset) if source is None else source.info
    levels = read_levels(settings.noise, info)
    how = "assumed" if assumed else "found"
    preset, reason = choose_preset(settings, num_gpus, how, space=info.default_space)
    space = load_plan_space(settings, preset, info if info.own else None)
    space = check_models(space, info.num_classes, info.input_shape)
    if settings.tta == "mirror" and len(info.input_shape) != 3:
        raise InputError(f"--tta mirror is for images, the inputs have shape {info.input_shape}; leave it out")
    if source is None:
        source = load_source(settings.dataset, data_dir=settings.data_dir, progress=progress)
    if settings.test_size is not None:
        source = source.with_test_size(settings.test_size, settings.seed)
    weights = parse_level_weights(settings.level_weight, levels)
    if weights and settings.sampler == "grid":
        raise InputError(
            "--level-weight cannot go with --sampler grid, which runs every point once at every level; leave one out"
        )
    datasets = [make_dataset(source, level, settings, space, settings.noise_seed) for level in levels]
    warm = _warm_points(settings, space, datasets)
    plans = [
        _plan_level(space, dataset, settings, weights.get(name := dataset.noise_level, 1.0), warm.get(name, ()), info)
        for dataset in datasets
    ]
    check_losses(space, plans)
    if settings.sweep is not None:
        sweep_rates(space, settings.sweep)
    for corner in space.corner_settings():
        check_fit(corner, min(dataset.num_train for dataset in datasets), info.input_shape)
    said, val_clean = ((), False) if source.own is None else (source.own.notes, source.own.val_clean)
    notes = (*said, *plan_notes(space, plans, settings, val_clean=val_clean))
    plan = SearchPlan(settings, info, space, preset, reason, tuple(plans), notes, source)
    for level in plans:
        estimate = estimate_of_annotators(source, level.dataset) if level.needs_estimate else None
        plan = plan if estimate is None else plan.with_estimate(estimate)
    return plan


def make_dataset(
    source: Source, level: NoiseLevel, settings: SearchSettings, space: SearchSpace, noise_seed: int
) -> NoisyDataset:
    """Return a noisy dataset of a search, split as the search splits it, for a draw of the noise."""
    return make_noisy(
        source,
        level,
        noise_seed=noise_seed,
        val_fraction=settings.val_fraction,
        train_size=space.budget.train_size,
        split_seed=settings.seed,
    )


def _warm_points(
    settings: SearchSettings, space: SearchSpace, datasets: Sequence[NoisyDataset]
) -> dict[str, tuple[WarmPoint, ...]]:
    if settings.warm_start is None:
        return {}
    stored = stored_warm_points(settings.out, settings.warm_start)
    if stored is not None:
        return stored
    known = {dataset.noise_level: dataset.noise_rate if _is_known(dataset) else None for dataset in datasets}
    return read_warm_points(settings.warm_start, space, known)


def _is_known(dataset: NoisyDataset) -> bool:
    return parse_noise_level(dataset.noise_level).is_known


def _is_estimated(dataset: NoisyDataset) -> bool:
    """Whether the noise is estimated by default: where it is unknown, or that takes no network."""
    return dataset.noise_rate is None or dataset.is_of_annotators


def _plan_level(
    space: SearchSpace,
    dataset: NoisyDataset,
    settings: SearchSettings,
    weight: float,
    warm: tuple[WarmPoint, ...],
    info: DatasetInfo,
) -> LevelPlan:
    quotas = grid_quotas(space) if settings.sampler == "grid" else space.quotas(weighted_trials(space, weight))
    if not quotas:
        raise InputError(
            f"{dataset.noise_level}: --num-trials must give every method a trial, at least "
            f"{len(space.method_shares())}, got {weighted_trials(space, weight)}"
        )
    rate, estimates = cancelling_rate(dataset), settings.estimate_noise
    for_loss = transition_source(space) == "estimate"
    if for_loss and estimates is False:
        raise InputError(
            "losses forward and backward need the noise to be estimated; leave --no-estimate-noise out, or give a "
            "matrix with --set transition=matrix:FILE"
        )
    return LevelPlan(
        dataset=dataset,
        noise_rate=dataset.noise_rate,
        noise_cancelling_rate=rate,
        quotas=quotas,
        start=_start(space, quotas, rate if _is_known(dataset) else None, warm),
        weight=weight,
        warm=warm,
        needs_estimate=for_loss or (_is_estimated(dataset) if estimates is None else estimates),
    )


def _start(
    space: SearchSpace, quotas: dict[Arm, int], prior: float | None, warm: tuple[WarmPoint, ...]
) -> dict[Arm, tuple[Config, ...]]:
    """Start points by arm: three rates at the defaults of the space, its own, and those of an earlier run."""
    rates = [0.0, USUAL_RATE, *([] if prior is None else [prior])]
    return {arm: with_warm_points(space.arm(arm).start(rates), arm, warm) for arm in quotas}
