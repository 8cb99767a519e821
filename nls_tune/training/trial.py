"""A trial in the process that trains it: alone, and what it has in common with one in a batch."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nls_tune.errors import InputError, is_out_of_memory
from nls_tune.metrics import Objective, best_epoch
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.spaces.settings import TrainingSettings

if TYPE_CHECKING:
    import torch

    from nls_tune.datasets import NoisyDataset
    from nls_tune.training.compiling import Compiler
    from nls_tune.training.data import DeviceData

#: Reports go to the driver at rungs, at the end, and otherwise this often; epochs between travel together.
REPORT_SECONDS = 0.5
#: How often a trial looks whether the warm-up that another one trains is there.
_POLL_SECONDS = 0.05
#: A checkpoint is this old at most when a process is killed.
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Workplace:
    """What the trials of a process share.

    Attributes:
        device: Where they train.
        device_name: For people.
        compiler: Of their steps.
        objective: Which epoch counts.
        checkpoints: The folder of their checkpoints.
        warmup_store: Of shared CE warm-ups; None for none.
        warmup_epochs: The lengths of warm-ups that are stored.
    """

    device: torch.device
    device_name: str
    compiler: Compiler
    objective: Objective
    checkpoints: Path
    warmup_store: Path | None
    warmup_epochs: tuple[int, ...]

    def report_of_nothing(self) -> dict[str, Any]:
        """Return the state of a trial before its first epoch."""
        return {
            "epoch": 0,
            "gls_epochs": 0,
            "epochs_reused": 0,
            "best_val_accuracy": 0.0,
            "best_epoch": None,
            "val_correct_at_best": None,
            "test_correct_at_best": None,
            "diverged": False,
            "finished": False,
            "train_seconds": 0.0,
            "new_epochs": [],
            "out_of_memory": None,
            "warning": None,
            "device": self.device_name,
            "node": platform.node(),
            "done": False,
        }


class TrialTraining:
    """A trial's training, its checkpoint, and what it has reported.

    It goes on from the newest state in its folder, if there is one.

    Args:
        config: Of the trial, see ``TrainingTrainable``.
        dataset: Its data.
        data: The same on the device.
        workplace: Of the process.
    """

    def __init__(
        self, config: Mapping[str, Any], dataset: NoisyDataset, data: DeviceData, workplace: Workplace
    ) -> None:
        from nls_tune.training.training import Training

        settings = TrainingSettings(**config["settings"])
        self._workplace = workplace
        self._description = {key: config[key] for key in ("trial_id", "noise_level", "stage", "settings")}
        self._validates = "stop_at" not in config
        self.stop_at: int = config.get("stop_at", settings.epochs)
        self.reported = 0
        self._checkpoint = TrialCheckpoint(workplace.checkpoints / config["trial_id"])

        def new() -> Training:
            return Training(dataset, settings, workplace.device, data=data, compiler=workplace.compiler)

        self.training = new()
        state = self._checkpoint.load(workplace.device)
        try:
            if state is not None:
                self.training.load_state_dict(state)
        except (InputError, RuntimeError, KeyError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            self.training = new()  # of another version: anew
        self._begun_at = self.training.epoch
        self._described = self._spoilt = False
        self._not_saved: str | None = None

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.training.finished or self.training.epoch >= self.stop_at

    def describe(self) -> None:
        """Write down what the trial is, before its first epoch."""
        if self.training.epoch == 0 and not self._described:
            self._checkpoint.start(self._description)
            self._described = True

    @property
    def is_worth_saving(self) -> bool:
        """Whether it has trained and is not at its end.

        Tune may make an actor for a trial and never run it, while another one is training that trial.
        """
        return not self._spoilt and not self.finished and self.training.epoch > self._begun_at

    def spoil(self) -> None:
        """Note that an epoch failed in its middle: the state is of no epoch, and nobody must go on from it."""
        self._spoilt = True

    def save(self) -> None:
        """Replace the state in the checkpoint; where it cannot be written the trial goes on, and its reports warn."""
        self._not_saved = None
        try:
            self._checkpoint.save(self.training.state_dict())
        except OSError as error:
            self._not_saved = (
                f"states of running trials cannot be saved in {self._checkpoint.folder.parent} "
                f"({error.strerror or error}); they go on, and would start anew after an interruption"
            )

    def report(self, epoch: int) -> dict[str, Any]:
        """Return the state of the trial as it was after an epoch, with the epochs since the last report."""
        training = self.training
        accuracies, first_counting = training.val_accuracies(epoch), training.settings.first_counting_epoch
        best = best_epoch(accuracies, first_counting, self._workplace.objective) if self._validates else None
        val_bits, test_bits = training.correct_bits(best.epoch) if best else (None, None)
        new = [asdict(m) for m in training.history[self.reported : epoch]]
        if not self._validates:
            new = [{**metrics, "val_loss": math.nan, "val_accuracy": math.nan} for metrics in new]
        self.reported = epoch
        at_end = epoch == training.epoch
        finished = epoch == self.stop_at or (training.finished and at_end)
        return {
            **self._workplace.report_of_nothing(),
            "epoch": epoch,
            "gls_epochs": training.settings.gls_epochs(epoch),
            "epochs_reused": min(training.epochs_reused, epoch),
            # Every report carries every key; 0.0 stands for an objective that does not count yet.
            "best_val_accuracy": best.value if best else 0.0,
            "best_epoch": best.epoch if best else None,
            "val_correct_at_best": val_bits,
            "test_correct_at_best": test_bits,
            "diverged": training.diverged and at_end,
            "finished": finished,
            "train_seconds": sum(m.seconds for m in training.history[training.epochs_reused : epoch]),
            "new_epochs": new,
            "warning": self._workplace.compiler.warning or self._not_saved,
            "done": finished,
        }


class SingleTrial:
    """A trial that has the process to itself.

    Epochs that it has not trained now, but taken over from the store of warm-ups or from its own checkpoint, are
    reported rung by rung as if it had: a scheduler sees the same reports whatever was reused. While it waits for
    another one's warm-up it sends reports without epochs, so that Tune can stop it.

    Args:
        config: Of the trial, see ``TrainingTrainable``.
        dataset: Its data.
        data: The same on the device.
        workplace: Of the process.
    """

    def __init__(
        self, config: Mapping[str, Any], dataset: NoisyDataset, data: DeviceData, workplace: Workplace
    ) -> None:
        from nls_tune.training.warmup import SharedWarmup

        self.trial = TrialTraining(config, dataset, data, workplace)
        # A warm-up that was taken over may be longer: the report shows the trial as it was at its end.
        self._report_at = sorted({*config["report_at"], self.trial.stop_at})
        self._warmup = SharedWarmup(workplace.warmup_store, self.trial.training, workplace.warmup_epochs)
        self._saved_at = time.monotonic()

    def train(self) -> dict[str, Any]:
        """Train until a report is due, and return it."""
        trial, begin = self.trial, time.monotonic()
        trial.describe()
        while (rung := self._rung_to_report()) is None and not trial.finished:
            self._advance()
            if time.monotonic() - begin >= REPORT_SECONDS:
                break
        if time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS:
            self.keep()
        return trial.report(trial.training.epoch if rung is None else rung)

    def _rung_to_report(self) -> int | None:
        """The first rung that has been reached and not reported; None if there is none."""
        reported, reached = self.trial.reported, self.trial.training.epoch
        return next((e for e in self._report_at if reported < e <= reached), None)

    def _advance(self) -> None:
        """Train an epoch, or take over a warm-up, or wait a moment for it."""
        turn = self._warmup.turn()
        if turn == "wait":
            time.sleep(_POLL_SECONDS)
        elif turn == "train":
            try:
                self.trial.training.run_epoch()
            except BaseException:
                self.trial.spoil()
                self._warmup.abandon()
                raise
            self._warmup.trained()

    def keep(self) -> None:
        """Save what was trained."""
        if self.trial.is_worth_saving:
            self.trial.save()
            self._saved_at = time.monotonic()

    def close(self) -> None:
        """Let others go on with the warm-up."""
        self._warmup.close()
