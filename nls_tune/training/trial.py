"""A trial in the process that trains it."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nls_tune.errors import InputError, error_line, is_out_of_memory
from nls_tune.metrics import AVERAGES, METRICS, PLAIN, Judging, ReadoutScore, Scores
from nls_tune.runs.checkpoint import StoredCheckpoint, TrialCheckpoint
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.training.report import TrialReport

if TYPE_CHECKING:
    import torch

    from nls_tune.datasets import NoisyDataset
    from nls_tune.runs.storage.store import Store
    from nls_tune.training.compiling import Compiler
    from nls_tune.training.data import DeviceData
    from nls_tune.training.evaluation import Judged
    from nls_tune.training.training import Training

#: Reports go to the driver at rungs, at the end, and otherwise this often; epochs between travel together.
REPORT_SECONDS = 0.5
#: How often a trial looks whether the warm-up that another one trains is there.
_POLL_SECONDS = 0.05
#: A checkpoint is this old at most when a process is killed.
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Workplace:
    """What the trials of a process share; ``warmup_epochs`` are the lengths of CE warm-ups that are stored.

    With a ``store`` the checkpoints lie there, and not in the folder ``checkpoints``.
    """

    device: torch.device
    device_name: str
    compiler: Compiler
    judging: Judging
    checkpoints: Path
    warmup_store: Path | None
    warmup_epochs: tuple[int, ...]
    store: Store | None = None

    def checkpoint(self, trial_id: str) -> TrialCheckpoint:
        """Return the checkpoint of a trial, behind a URL where the nodes share no folder."""
        if self.store is not None:
            return StoredCheckpoint(self.store, trial_id)
        return TrialCheckpoint(self.checkpoints / trial_id)

    def first_report(self) -> TrialReport:
        """Return the report of a trial before its first epoch."""
        return TrialReport(device=self.device_name, node=platform.node())


class Trial:
    """One trial: its training, its checkpoint, its part in the shared warm-up, and what it has reported.

    It goes on from the newest state in its folder, if there is one that can be loaded. Epochs that it has not trained
    now, but taken from the store of warm-ups or from its checkpoint, are reported rung by rung as if it had trained
    them: a scheduler sees the same reports whatever was reused. While it waits for a warm-up that another trial trains,
    it sends reports without epochs, so that Tune can stop it.
    """

    def __init__(self, spec: TrialSpec, dataset: NoisyDataset, data: DeviceData, workplace: Workplace) -> None:
        from nls_tune.training.warmup import SharedWarmup

        self._spec, self._workplace = spec, workplace
        self._validates = spec.stop_at is None
        # A warm-up that was taken over may be longer: the report shows the trial as it was at its end.
        self._report_at = sorted({*spec.judged_at, spec.last_epoch})
        self._reported = 0
        self._checkpoint = workplace.checkpoint(spec.trial_id)
        self._not_loaded: str | None = None
        self._not_saved: str | None = None
        self.training = self._load(dataset, data)
        self._begun_at = self.training.epoch
        self._described, self._spoilt = self._begun_at > 0, False
        self._warmup = SharedWarmup(workplace.warmup_store, self.training, workplace.warmup_epochs)
        self._saved_at = time.monotonic()

    def _load(self, dataset: NoisyDataset, data: DeviceData) -> Training:
        """Return the training in its newest state; anew where that cannot be loaded, and reports then warn."""
        from nls_tune.training.training import Training

        def new() -> Training:
            place = self._workplace
            settings, device = self._spec.settings, place.device
            return Training(dataset, settings, device, data=data, compiler=place.compiler, judging=place.judging)

        training = new()
        try:
            state = self._checkpoint.load(self._workplace.device)
            if state is not None:
                training.load_state_dict(state)
        except (InputError, RuntimeError, KeyError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            reason = str(error) if isinstance(error, InputError) else error_line(error)
            self._not_loaded = f"trial {self._spec.trial_id} is trained anew: {reason}"
            training = new()
        return training

    @property
    def _finished(self) -> bool:
        return self.training.finished or self.training.epoch >= self._spec.last_epoch

    # Training

    def train(self) -> TrialReport:
        """Train until a report is due, and return it."""
        begin = time.monotonic()
        if not self._described:
            self._described = self._written(lambda: self._checkpoint.start(self._spec))
        while (rung := self._rung_to_report()) is None and not self._finished:
            self._advance()
            if time.monotonic() - begin >= REPORT_SECONDS:
                break
        if time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS:
            self.keep()
        return self._report(self.training.epoch if rung is None else rung)

    def _rung_to_report(self) -> int | None:
        """The first rung that has been reached and not reported; None if there is none."""
        return next((e for e in self._report_at if self._reported < e <= self.training.epoch), None)

    def _advance(self) -> None:
        """Train an epoch, or take over a warm-up, or wait a moment for it."""
        turn = self._warmup.turn()
        if turn == "wait":
            time.sleep(_POLL_SECONDS)
        elif turn == "train":
            try:
                self.training.run_epoch()
            except BaseException:
                self._spoilt = True  # the state is in the middle of an epoch: nobody may go on from it
                self._warmup.abandon()
                raise
            self._warmup.trained()

    def _report(self, epoch: int) -> TrialReport:
        """The state of the trial as it was after an epoch, with the epochs since the last report."""
        training = self.training
        plain, average = training.readouts.scores(training.history[:epoch]) if self._validates else (None, None)
        best = training.readouts.choose(plain, average)
        if not self._validates:
            average = self._tested_average(epoch)
        val: Judged | None = None
        test: Judged | None = None
        if best is not None:
            val, test = (training if best is plain else training.readouts).judged(best.epoch)
        new = training.history[self._reported : epoch]
        if not self._validates:
            nothing: dict[str, Any] = {f"val_{metric}": None for metric in METRICS} | dict.fromkeys(
                AVERAGES.values(), ()
            )
            nothing |= {"val_loss": math.nan, "val_accuracy": math.nan}
            new = [replace(metrics, **nothing) for metrics in new]
        self._reported = epoch
        at_end = epoch == training.epoch
        finished = epoch == self._spec.last_epoch or (training.finished and at_end)
        warnings = (self._not_loaded, self._warmup.warning, self._workplace.compiler.warning, self._not_saved)
        return replace(
            self._workplace.first_report(),
            epoch=epoch,
            gls_epochs=training.settings.gls_epochs(epoch),
            epochs_reused=min(training.epochs_reused, epoch),
            best_value=best.val.of(training.readouts.metric) if best else 0.0,
            best_epoch=best.epoch if best else None,
            readout=best.readout if best else None,
            plain=plain,
            average=average,
            mirrored_test_accuracy=training.readouts.mirrored(best.epoch) if best else None,
            val_correct_at_best=val.bits.tobytes() if val else None,
            test_correct_at_best=test.bits.tobytes() if test else None,
            val_counts_at_best=_flat(val),
            test_counts_at_best=_flat(test),
            diverged=training.diverged and at_end,
            finished=finished,
            train_seconds=sum(m.seconds for m in training.history[training.epochs_reused : epoch]),
            new_epochs=tuple(new),
            warnings=tuple(filter(None, warnings)),
            done=finished,
        )

    def _tested_average(self, epoch: int) -> ReadoutScore | None:
        """What the averaged weights of a trial on all labels reach on test at its end, if they are the ones to use."""
        training, readout = self.training, self._spec.readout
        inputs, labels = training.data.test_inputs, training.data.test_labels
        if readout == PLAIN or inputs is None or labels is None or training.diverged:
            return None
        if not epoch == training.epoch == self._spec.last_epoch:
            return None
        test = training.evaluator.judge(training.readouts.averaged(readout), inputs, labels)[1]
        return ReadoutScore(readout, epoch, Scores(math.nan), test.scores)

    # The end

    def keep(self) -> None:
        """Save what was trained; where it cannot be written the trial goes on, and its reports warn.

        Tune may make an actor for a trial and never run it, while another one is training that trial: a trial that has
        not trained saves nothing. Nor does one whose folder does not say what it is: nobody could go on from that.
        """
        if self._spoilt or self._finished or self.training.epoch <= self._begun_at or not self._described:
            return
        self._written(lambda: self._checkpoint.save(self.training.state_dict()))
        self._saved_at = time.monotonic()

    def _written(self, write: Callable[[], None]) -> bool:
        """Write to the checkpoint, and return whether there was room for it; reports warn where not."""
        self._not_saved = None
        try:
            write()
        except (FileExistsError, NotADirectoryError):
            raise  # something else lies in its place: no later try helps
        except OSError as error:
            self._not_saved = (
                f"states of running trials cannot be saved in {self._checkpoint.place} "
                f"({error.strerror or error}); they go on, and would start anew after an interruption"
            )
        return self._not_saved is None

    def close(self) -> None:
        """Let others go on with the warm-up."""
        self._warmup.close()
        self._checkpoint.close()


def _flat(judged: Judged | None) -> tuple[int, ...] | None:
    """The counts by class; None in the states of early versions."""
    return None if judged is None or judged.counts is None else tuple(judged.counts.flat())
