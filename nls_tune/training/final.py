"""The last training: one configuration to one epoch, for the network that is taken home."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from nls_tune.datasets import NoisyDataset
from nls_tune.errors import InputError, error_line, is_out_of_memory
from nls_tune.metrics import PLAIN, Judging
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.training.devices import fastest_kernels
from nls_tune.training.training import Training
from nls_tune.training.trial import CHECKPOINT_SECONDS


def train_to_the_end(
    dataset: NoisyDataset,
    spec: TrialSpec,
    checkpoint: TrialCheckpoint,
    device: torch.device,
    *,
    report: Callable[[int], None],
    say: Callable[[str], None],
    judging: Judging = Judging(),  # noqa: B008 - it cannot change
) -> Training:
    """Train a trial to its last epoch, from its checkpoint where there is one.

    ``judging`` says by what the best epoch of a warm-up is found, where the training goes on from that one. ``report``
    is called with the epochs that are done, and ``say`` with a line if the checkpoint is taken or cannot be.

    Raises:
        RuntimeError: If the training diverges, or runs out of memory.
    """
    training = _begin(dataset, spec, checkpoint, device, say, judging)
    report(training.epoch)
    saved_at = time.monotonic()
    with fastest_kernels(device):
        while training.epoch < spec.last_epoch and not training.diverged:
            training.run_epoch()
            report(training.epoch)
            if time.monotonic() - saved_at >= CHECKPOINT_SECONDS and not training.diverged:
                checkpoint.save(training.state_dict())
                saved_at = time.monotonic()
    if training.diverged:
        raise RuntimeError(
            f"the training diverged in epoch {training.epoch} of {spec.last_epoch}; confirm the run with fresh seeds "
            "(nls-tune resume RUN --confirm-seeds 5), and train what that recommends"
        )
    return training


def final_weights(training: Training, readout: str) -> nn.Module:
    """Return the network of a training with the weights of a readout: ``plain``, or ``average:SPAN``."""
    trained = training.model if readout == PLAIN else training.readouts.averaged(readout)
    if training.model is training.network:
        return trained
    training.model.load_state_dict(trained.state_dict())  # the last layer of the network
    return training.network


def _begin(
    dataset: NoisyDataset,
    spec: TrialSpec,
    checkpoint: TrialCheckpoint,
    device: torch.device,
    say: Callable[[str], None],
    judging: Judging,
) -> Training:
    training = Training(dataset, spec.settings, device, judging=judging)
    if checkpoint.read_trial() != spec:
        checkpoint.remove()
        checkpoint.start(spec)
        return training
    try:
        state = checkpoint.load(device)
        if state is not None:
            training.load_state_dict(state)
            say(f"Going on after epoch {training.epoch} of {spec.last_epoch}")
    except (InputError, RuntimeError, KeyError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        say(f"It is trained anew: {error if isinstance(error, InputError) else error_line(error)}")
        training = Training(dataset, spec.settings, device, judging=judging)
    return training
