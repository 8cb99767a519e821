"""Label noise: levels, transition matrices, corrupted labels, and estimates from noisy labels."""

from nls_tune.noise.corruption import apply_transition as apply_transition
from nls_tune.noise.corruption import corrupt_labels as corrupt_labels
from nls_tune.noise.corruption import instance_dependent as instance_dependent
from nls_tune.noise.corruption import noise_cancelling_rate as noise_cancelling_rate
from nls_tune.noise.corruption import noise_rate as noise_rate
from nls_tune.noise.corruption import signal_share as signal_share
from nls_tune.noise.corruption import transition_matrix as transition_matrix
from nls_tune.noise.levels import NoiseLevel as NoiseLevel
from nls_tune.noise.levels import parse_noise_level as parse_noise_level
from nls_tune.noise.levels import parse_noise_levels as parse_noise_levels
from nls_tune.noise.matrices import asymmetric_matrix as asymmetric_matrix
from nls_tune.noise.matrices import pairflip_matrix as pairflip_matrix
from nls_tune.noise.matrices import read_matrix as read_matrix
from nls_tune.noise.matrices import symmetric_matrix as symmetric_matrix
