"""The search space of a plan: preset, the user's budget, and the trials of a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nls_tune.datasets import DatasetInfo
from nls_tune.errors import InputError
from nls_tune.plan.settings import SearchSettings
from nls_tune.spaces.networks import NETWORKS
from nls_tune.spaces.parameters import FloatParameter
from nls_tune.spaces.reading import find_preset, load_space
from nls_tune.spaces.settings import Arm
from nls_tune.spaces.space import SearchSpace, setting_values

#: Own data are trained in at least so many steps per epoch, if the batch need not be smaller than the smallest for it.
_STEPS, _SMALLEST_BATCH = 32, 16


def choose_preset(
    settings: SearchSettings, num_gpus: float, how: str = "found", *, space: str | None = None
) -> tuple[str | None, str]:
    """Return the preset to take, None where the space has none for the machine, and why.

    The GPUs are those of the machine or the cluster; ``how`` says how they are known. ``space`` is the space of data
    that have another name.

    Raises:
        InputError: For a preset that the space does not have, or a space that cannot be read.
    """
    name, reason = settings.preset, "as asked for"
    if name == "auto":
        name = "gpu" if num_gpus else "cpu"
        reason = f"{num_gpus:g} GPU{'s' if num_gpus != 1 else ''} {how}" if num_gpus else f"no GPU {how}"
    preset = find_preset(settings.space or space or settings.dataset, name)
    return preset, reason if preset else f"{reason}, the space has no preset {name}"


def load_plan_space(settings: SearchSettings, preset: str | None, own: DatasetInfo | None = None) -> SearchSpace:
    """Read the search space, fitted to a user's ``own`` data, and apply the user's budget to it.

    Raises:
        InputError: For a space that cannot be read or breaks a rule.
    """
    name = settings.space or (settings.dataset if own is None else own.default_space)
    overrides, methods = settings.overrides, settings.methods
    if own is not None and settings.space is None:
        overrides = (*_fitting(load_space(name, preset=preset), own, overrides, settings.train_size), *overrides)
    space = load_space(name, preset=preset, epochs=settings.epochs, overrides=overrides, methods=methods)
    budget = space.budget
    if budget.grace_epochs > budget.epochs:
        raise InputError(
            f"{space.name}: budget.grace_epochs must be at most budget.epochs, "
            f"got {budget.grace_epochs} and {budget.epochs}"
        )
    given = {
        "trials": settings.num_trials, "train_size": settings.train_size, "confirm_seeds": settings.confirm_seeds,
    }  # fmt: skip
    changes = {name: value for name, value in given.items() if value is not None}
    space = space.model_copy(update={"budget": budget.model_copy(update=changes)})
    space.check_settings()
    if settings.confirm_on == "all" and "best" in setting_values(space, "warmup_from"):
        raise InputError(
            "--confirm-on all leaves no validation samples to find the best epoch of the warm-up; "
            "confirm on the split, or --set warmup_from=last"
        )
    asked = {
        "--noise-draws": settings.noise_draws,
        "--confirm-on all": settings.confirm_on == "all",
        "--sweep": settings.sweep,
    }
    if flags := [flag for flag, given in asked.items() if given and space.budget.confirm_seeds == 0]:
        raise InputError(f"{flags[0]} needs a confirmation, and --confirm-seeds is 0; raise it, or leave one out")
    return space


def _fitting(space: SearchSpace, own: DatasetInfo, overrides: Sequence[str], train_size: int | None) -> list[str]:
    """Return the changes that fit a shipped space to a user's own data, without those that the user makes.

    An epoch of few samples has few steps, so the batch becomes smaller: with one cycle the learning rates in proportion
    and the weight decay the other way, as the presets of cifar10 have them.
    """
    found: dict[str, object] = {}
    settings = space.settings(space.default(), 0)
    most = train_size or space.budget.train_size or own.num_labelled
    num_train = min(round(own.num_labelled * (1 - own.default_val_fraction)), most)
    batch = min(settings.batch_size, max(_SMALLEST_BATCH, 2 ** int(math.log2(max(1, num_train / _STEPS)))))
    if batch < settings.batch_size:
        found["batch_size"] = min(batch, max(2, num_train))
        lr, ratio = space.space.get("lr"), batch / settings.batch_size
        if settings.schedule == "one_cycle" and isinstance(lr, FloatParameter):
            found |= {f"lr.{end}": float(f"{getattr(lr, end) * ratio:.4g}") for end in ("low", "high", "default")}
            found["warmup_lr"] = float(f"{settings.warmup_lr * ratio:.4g}")
            found["weight_decay"] = float(f"{settings.weight_decay / ratio:.4g}")
    smallest = min(own.input_shape[1:], default=0)
    if len(own.input_shape) == 3 and smallest < NETWORKS[settings.model].min_side:
        found["model"] = "mlp"
    given = {override.partition("=")[0].strip().partition(".")[0] for override in overrides}
    if given & {"batch_size", "schedule"}:
        found = {name: value for name, value in found.items() if name == "model"}
    return [f"{key}={value}" for key, value in found.items() if key.partition(".")[0] not in given]


def grid_quotas(space: SearchSpace) -> dict[Arm, int]:
    """Return the number of points of every arm that has a share, whatever ``trials`` says."""
    quotas: dict[Arm, int] = {}
    for arm in space.used_arms():
        size = space.arm(arm).size()
        if size is None:
            real = [n for n, p in space.parameters(arm).items() if isinstance(p, FloatParameter)]
            raise InputError(
                f"--sampler grid needs choices, {real[0]} is a float in {space.name}; "
                f"fix it with --set {real[0]}=VALUE, make it a choice in a file of your own, or take another sampler"
            )
        quotas[arm] = size
    return quotas
