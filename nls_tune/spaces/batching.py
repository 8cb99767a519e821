"""Which trainings can run as one batched model; without torch, so that a search can be planned without it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from nls_tune.errors import InputError
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.spaces.space import setting_values

if TYPE_CHECKING:
    from nls_tune.spaces.space import SearchSpace

#: Networks without dropout, whose randomness lies in initial weights, order and augmentation alone.
VECTORIZABLE_MODELS = ("mlp", "small_cnn")
#: Those that are faster batched, by kind of device. On a CPU ``small_cnn`` is slower: torch computes the grouped
#: convolutions that a batch needs one group after another (``benchmarks/vectorize.py``).
FASTER_BATCHED = {"cpu": ("mlp",), "cuda": VECTORIZABLE_MODELS}
#: Trials of a batch at most. More are hardly faster on a CPU, and more are lost with one process.
MOST_TOGETHER = 16
#: Settings that the members of a batch may differ in. All others decide shapes or the kind of a step.
_MAY_DIFFER = {"smooth_rate", "warmup_epochs", "lr", "schedule", "milestones", "gamma", "seed", "warmup_lr"}


def shared_settings(settings: TrainingSettings) -> tuple[object, ...]:
    """Return the values that trainings must agree in to run as one batched model."""
    return tuple(getattr(settings, name) for name in TrainingSettings.model_fields if name not in _MAY_DIFFER)


def check_vectorizable(settings: Sequence[TrainingSettings]) -> TrainingSettings:
    """Check that trainings can run as one batched model.

    Args:
        settings: Of all of them.

    Returns:
        The first, for what they share.

    Raises:
        InputError: If there is none, the network or the optimiser cannot be batched, or they differ in more
            than rate, warm-up, learning rates and seed.
    """
    if not settings:
        raise InputError("there must be at least one training, got none; give settings")
    first = settings[0]
    if first.model not in VECTORIZABLE_MODELS:
        raise InputError(f"model must be one of {', '.join(VECTORIZABLE_MODELS)} to be batched, got {first.model!r}")
    if first.optimizer != "sgd":
        raise InputError(f"batched trainings take optimizer sgd, got {first.optimizer}; train one by one")
    for other in settings[1:]:
        for name in TrainingSettings.model_fields:
            if name not in _MAY_DIFFER and getattr(other, name) != getattr(first, name):
                raise InputError(
                    f"batched trainings must agree in {name}, got {getattr(first, name)!r} and "
                    f"{getattr(other, name)!r}; train them in batches of their own"
                )
    return first


def check_space(space: SearchSpace, device: Literal["cpu", "cuda"]) -> None:
    """Check that the confirmation of a search can train its trials in batches.

    Args:
        space: With the user's overrides.
        device: Where the trials train.

    Raises:
        InputError: If a network or an optimiser of the space cannot be batched there, or there is no confirmation.
    """
    if not space.budget.confirm_seeds:
        raise InputError("--vectorize needs a confirmation, and --confirm-seeds is 0; raise it, or leave it out")
    allowed, where = FASTER_BATCHED[device], "a CPU" if device == "cpu" else "a GPU"
    for model in setting_values(space, "model"):
        if model not in allowed:
            raise InputError(
                f"--vectorize takes {' or '.join(allowed)} on {where}, got model {model}; leave it out, or --model mlp"
            )
    for optimizer in setting_values(space, "optimizer"):
        if optimizer != "sgd":
            raise InputError(f"--vectorize takes optimizer sgd, got {optimizer}; leave it out, or --set optimizer=sgd")


def make_batches(configs: Sequence[dict[str, Any]], slots: int) -> list[list[dict[str, Any]]]:
    """Divide trials into batches.

    Those of a batch have the same data, stage and shapes. There are as many batches as slots or a multiple of that,
    where there are enough trials: a slot that is idle helps nobody. Trials that can be together are divided evenly, in
    their order, and the first batches of all come first.

    Args:
        configs: Of the trials, see ``TrainingTrainable``.
        slots: How many batches run at once.

    Returns:
        The batches; some may have one trial.
    """
    groups: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for config in configs:
        key = (config["data"], config["stage"], *shared_settings(TrainingSettings(**config["settings"])))
        groups.setdefault(key, []).append(config)
    counts = {key: -(-len(group) // MOST_TOGETHER) for key, group in groups.items()}
    while sum(counts.values()) % slots:
        largest = max(groups, key=lambda key: len(groups[key]) / counts[key])
        if counts[largest] == len(groups[largest]):
            break  # every batch is one trial
        counts[largest] += 1
    divided = [_divide(group, counts[key]) for key, group in groups.items()]
    return [batches[i] for i in range(max(counts.values(), default=0)) for batches in divided if i < len(batches)]


def _divide(group: Sequence[dict[str, Any]], parts: int) -> list[list[dict[str, Any]]]:
    """Cut a list into so many parts whose lengths differ by one at most."""
    cuts = [len(group) * i // parts for i in range(parts + 1)]
    return [list(group[begin:end]) for begin, end in pairwise(cuts)]
