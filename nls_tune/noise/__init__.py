"""Label noise: levels, transition matrices, corrupted labels, and estimates from noisy labels."""

from nls_tune.noise.corruption import (
    apply_transition,
    corrupt_labels,
    instance_dependent,
    noise_cancelling_rate,
    noise_rate,
    signal_share,
    transition_matrix,
)
from nls_tune.noise.levels import NoiseLevel, parse_noise_level, parse_noise_levels
from nls_tune.noise.matrices import asymmetric_matrix, pairflip_matrix, read_matrix, symmetric_matrix

__all__ = [
    "NoiseLevel",
    "apply_transition",
    "asymmetric_matrix",
    "corrupt_labels",
    "instance_dependent",
    "noise_cancelling_rate",
    "noise_rate",
    "pairflip_matrix",
    "parse_noise_level",
    "parse_noise_levels",
    "read_matrix",
    "signal_share",
    "symmetric_matrix",
    "transition_matrix",
]
