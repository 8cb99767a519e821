"""The transition matrix that the losses ``forward`` and ``backward`` correct for, at each noise level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nls_tune.errors import InputError
from nls_tune.losses.registry import check_takes_probabilities
from nls_tune.noise import parse_noise_level, transition_matrix
from nls_tune.noise.matrices import read_matrix
from nls_tune.spaces.settings import method_of
from nls_tune.spaces.space import SearchSpace, setting_values

if TYPE_CHECKING:
    from nls_tune.datasets import NoisyDataset
    from nls_tune.noise.confident_learning import NoiseEstimate
    from nls_tune.plan.level import LevelPlan


def transition_source(space: SearchSpace) -> str | None:
    """Return where the matrix comes from, the setting ``transition``; None where no loss of the space needs one."""
    return str(setting_values(space, "transition")[0]) if space.needs_matrix() else None


def transition_of(space: SearchSpace, level: LevelPlan) -> np.ndarray | None:
    """Return the matrix of a level, float64 (K, K); None where no loss needs it, or its estimate is not there yet.

    Raises:
        InputError: As ``matrix_of``.
    """
    source = transition_source(space)
    return None if source is None else matrix_of(source, level.dataset, level.estimate)


def matrix_of(source: str, dataset: NoisyDataset, estimate: NoiseEstimate | None) -> np.ndarray | None:
    """Return the matrix that a setting ``transition`` names, float64 (K, K); None for an estimate that there is not.

    Raises:
        InputError: For a file without such a matrix, or the true matrix of noise that was not drawn.
    """
    if source == "estimate":
        return None if estimate is None else np.array(estimate.matrix)
    if source != "true_noise":
        return read_matrix(source.removeprefix("matrix:"), dataset.num_classes)
    if dataset.clean_labels is None or not parse_noise_level(dataset.noise_level).is_drawn:
        raise InputError(
            f"transition=true_noise is for noise that is drawn here, {dataset.noise_level} is not; use "
            "transition=estimate, or matrix:FILE"
        )
    noisy = dataset.may_be_wrong(np.arange(len(dataset.noisy_labels)))
    return transition_matrix(dataset.clean_labels[noisy], dataset.noisy_labels[noisy], dataset.num_classes)


def check_losses(space: SearchSpace, levels: Sequence[LevelPlan]) -> None:
    """Raise an InputError for a loss of one's own that cannot be imported here, or a matrix that there cannot be.

    So for a loss that does not take the class probabilities of a level.
    """
    for arm in space.used_arms():
        for level in levels:
            if level.dataset.soft_labels is not None:
                check_takes_probabilities(method_of(arm), level.level)
        if ":" in arm:
            from nls_tune.losses.building import loss_class  # torch, which planning does without where it can

            loss_class(arm)
    for level in levels:
        transition_of(space, level)
