"""Which trainings can run as one batched model; without torch, so that a search can be planned without it."""

from __future__ import annotations

from collections.abc import Sequence

from nls_tune.errors import InputError
from nls_tune.settings import TrainingSettings

#: Networks without dropout, whose randomness lies in initial weights, order and augmentation alone.
VECTORIZABLE_MODELS = ("mlp", "small_cnn")
#: Those that are faster batched, by kind of device. On a CPU ``small_cnn`` is slower: torch computes the grouped
#: convolutions that a batch needs one group after another (``benchmarks/vectorize.py``).
FASTER_BATCHED = {"cpu": ("mlp",), "cuda": VECTORIZABLE_MODELS}
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
