"""The Ray Tune trainable: a thin wrapper of ``Training`` that reports, keeps a checkpoint, and is reused."""

from __future__ import annotations

import gc
import json
import math
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from nls_tune.datasets import NoisyDataset
from nls_tune.errors import InputError, is_out_of_memory
from nls_tune.metrics import Objective, best_epoch
from nls_tune.packing import error_line
from nls_tune.provenance import cpu_name
from nls_tune.results import write_atomically
from nls_tune.settings import TrainingSettings

if TYPE_CHECKING:
    import torch

#: Reports go to the driver at rungs, at the end, and otherwise this often; epochs between travel together.
_REPORT_SECONDS = 0.5
#: How often a trial looks whether the warm-up that another one trains is there.
_POLL_SECONDS = 0.05
#: A checkpoint is this old at most when a process is killed.
CHECKPOINT_SECONDS = 30.0

_SETTINGS = "trial.json"
_STATE = "state.pt"


@dataclass(frozen=True)
class StartedTrial:
    """What a trial wrote down when it started."""

    noise_level: str
    stage: str
    settings: TrainingSettings


class TrialCheckpoint:
    """The folder of an unfinished trial: what it is, and its newest state.

    It stands in the run directory and not in Tune's, so that a lost worker, a killed driver and an interrupted
    run all go on in the same way.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, trial: dict[str, Any]) -> None:
        """Write down what the trial is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / _SETTINGS, json.dumps(trial).encode())

    def read_trial(self) -> StartedTrial | None:
        """Return what ``start`` wrote; None if that is missing, torn or of another version."""
        try:
            trial = json.loads((self.folder / _SETTINGS).read_text(encoding="utf-8"))
            return StartedTrial(trial["noise_level"], trial["stage"], TrainingSettings(**trial["settings"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state; without the folder, whose trial has ended, nothing is written."""
        import io

        import torch

        if not self.folder.is_dir():
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.folder / _STATE, buffer.getvalue())

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Return the newest state; None if there is none or it cannot be read."""
        import torch

        try:
            state = torch.load(self.folder / _STATE, map_location=device, weights_only=True)
        except Exception as error:  # a torn file fails in many ways, and all mean: from the start
            if is_out_of_memory(error):
                raise  # the file is good
            return None
        return state if isinstance(state, dict) else None

    def remove(self) -> None:
        """Remove the folder: the trial has a row now."""
        shutil.rmtree(self.folder, ignore_errors=True)


class TrainingTrainable(tune.Trainable):
    """Trains one trial.

    What trials share comes through ``tune.with_parameters``, once a node: ``arrays`` (the inputs that all noise
    levels share), ``datasets`` (each level's dataset without them) and ``shared`` (plain values of the run). The
    configuration of a trial holds plain values only:

    * ``trial_id``, ``noise_level``, ``stage``, ``settings``;
    * ``data``: name of its dataset, where that is not the noise level;
    * ``report_at``: epochs at which a report must go out, because a scheduler looks at them;
    * ``stop_at``: the epoch after which a trial on all labels ends. No samples are left to validate it, so its reports
      have no best epoch, and NaN where its epochs would tell of validation.

    Epochs that a trial has not trained now, but taken over from the store of warm-ups or from its own checkpoint, are
    reported rung by rung as if it had: a scheduler sees the same reports whatever was reused. A trial that waits for
    another one's warm-up sends reports without epochs, so that Tune can stop it.

    A trial that runs out of memory does not raise: it ends with a report that says so in ``out_of_memory``, frees what
    it held, and the process takes over the next trial.
    """

    def setup(  # type: ignore[override] # tune.with_parameters adds the keywords
        self,
        config: dict[str, Any],
        *,
        arrays: dict[str, Any],
        datasets: dict[str, NoisyDataset],
        shared: dict[str, Any],
    ) -> None:
        """Import, pick the device and prepare the first trial."""
        import torch

        from nls_tune.compiling import Compiler
        from nls_tune.devices import keep_freed_memory, limit_memory

        self._arrays, self._datasets, self._shared = arrays, datasets, shared
        self._objective: Objective = self._shared["objective"]
        use_gpu = self._shared["use_gpu"]
        self._device = torch.device("cuda" if use_gpu else "cpu")
        self._device_name = torch.cuda.get_device_name() if use_gpu else cpu_name()
        # Also where the user's OMP_NUM_THREADS says otherwise: what Ray has given to a trial is what it uses.
        torch.set_num_threads(max(1, int(self._shared["cpus_per_trial"])))
        if use_gpu:
            torch.backends.cudnn.benchmark = True
            limit_memory(self._device, self._shared["trials_per_gpu"])
        else:
            keep_freed_memory()
        self._compiler = Compiler(self._shared.get("compile", "off"))
        self._cached: tuple[str, NoisyDataset, Any] | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take over another trial in the same process: imports and data are there already."""
        self._release()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        """Prepare a trial; one for which there is no memory says so in its first report."""
        self._out_of_memory: str | None = None
        self._reported = 0
        self._report_at_hand = self._report_of_nothing()
        self._within_memory(lambda: self._prepare(config))

    def _prepare(self, config: dict[str, Any]) -> None:
        import torch

        from nls_tune.devices import DeviceData
        from nls_tune.training import Training
        from nls_tune.warmup import SharedWarmup

        key = config.get("data", config["noise_level"])
        if self._cached is None or self._cached[0] != key:
            self._cached = None  # free one level's tensors before the next come
            dataset = replace(self._datasets[key], **self._arrays)
            self._cached = (key, dataset, DeviceData.load(dataset, self._device))
        _, dataset, data = self._cached
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        settings = TrainingSettings(**config["settings"])
        self._validates = "stop_at" not in config
        self._stop_at = config.get("stop_at", settings.epochs)
        # A warm-up that was taken over may be longer: the report shows the trial as it was at its end.
        self._report_at = sorted({*config["report_at"], self._stop_at})
        self._training = Training(dataset, settings, self._device, data=data, compiler=self._compiler)
        self._checkpoint = TrialCheckpoint(Path(self._shared["checkpoints"]) / config["trial_id"])
        state = self._checkpoint.load(self._device)
        try:
            if state is not None:
                self._training.load_state_dict(state)
        except (InputError, RuntimeError, KeyError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            # Of another version: anew.
            self._training = Training(dataset, settings, self._device, data=data, compiler=self._compiler)
        self._description = {key: config[key] for key in ("trial_id", "noise_level", "stage", "settings")}
        store = self._shared["warmup_store"]
        self._warmup = SharedWarmup(store and Path(store), self._training, self._shared["warmup_epochs"])
        self._begun_at = self._training.epoch
        self._described = False
        self._saved_at = time.monotonic()

    def step(self) -> dict[str, Any]:
        """Train until a report is due.

        Returns:
            The epochs since the last report and the state of the trial; ``done`` at the end.
        """
        if self._out_of_memory is None:
            self._within_memory(self._train)
        if self._out_of_memory is None:
            return self._report_at_hand
        # What the trial has reached stands; nothing of it is there any more.
        return {**self._report_at_hand, "new_epochs": [], "out_of_memory": self._out_of_memory, "done": True}

    def _within_memory(self, work: Callable[[], None]) -> None:
        """Do some work; if the memory for it is not there, note that and free what the trial holds."""
        from nls_tune.devices import empty_cache

        try:
            work()
            return
        except Exception as error:
            if not is_out_of_memory(error, shared_gpu=self._shared.get("trials_per_gpu", 1) > 1):
                raise
            self._out_of_memory = error_line(error)
        # Not in the handler: as long as the error is there, its traceback holds the tensors of all calls.
        self._release()
        gc.collect()
        empty_cache(self._device)

    def _train(self) -> None:
        training, begin = self._training, time.monotonic()
        if training.epoch == 0 and not self._described:
            self._checkpoint.start(self._description)
            self._described = True
        while (rung := self._rung_to_report()) is None and not self._finished:
            self._advance()
            if time.monotonic() - begin >= _REPORT_SECONDS:
                break
        stale = time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS
        if stale and not self._finished and training.epoch > self._begun_at:
            self._save()
        self._report_at_hand = self._report(training.epoch if rung is None else rung)

    @property
    def _finished(self) -> bool:
        return self._training.finished or self._training.epoch >= self._stop_at

    def _rung_to_report(self) -> int | None:
        """The first rung that has been reached and not reported; None if there is none."""
        return next((e for e in self._report_at if self._reported < e <= self._training.epoch), None)

    def _advance(self) -> None:
        """Train an epoch, or take over a warm-up, or wait a moment for it."""
        turn = self._warmup.turn()
        if turn == "wait":
            time.sleep(_POLL_SECONDS)
        elif turn == "train":
            try:
                self._training.run_epoch()
            except BaseException:
                # In the middle of an epoch the state is of no epoch: nobody must go on from it.
                self._warmup.abandon()
                self._training = None  # type: ignore[assignment] # the trial starts again or ends
                raise
            self._warmup.trained()

    def _report(self, epoch: int) -> dict[str, Any]:
        """The state of the trial as it was after an epoch."""
        training = self._training
        accuracies, first_counting = training.val_accuracies(epoch), training.settings.first_counting_epoch
        best = best_epoch(accuracies, first_counting, self._objective) if self._validates else None
        val_bits, test_bits = training.correct_bits(best.epoch) if best else (None, None)
        new = [asdict(m) for m in training.history[self._reported : epoch]]
        if not self._validates:
            new = [{**metrics, "val_loss": math.nan, "val_accuracy": math.nan} for metrics in new]
        self._reported = epoch
        at_end = epoch == training.epoch
        finished = epoch == self._stop_at or (training.finished and at_end)
        return {
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
            "out_of_memory": None,
            "warning": self._compiler.warning,
            "device": self._device_name,
            "node": platform.node(),
            "done": finished,
        }

    def _report_of_nothing(self) -> dict[str, Any]:
        """The state of a trial before its first epoch."""
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
            "device": self._device_name,
            "node": platform.node(),
            "done": False,
        }

    def _save(self) -> None:
        self._checkpoint.save(self._training.state_dict())
        self._saved_at = time.monotonic()

    def cleanup(self) -> None:
        """Keep the state of a trial that is being interrupted.

        Tune waits about 5 s for this; a trial in the middle of a longer epoch goes on from its last checkpoint.
        """
        training = getattr(self, "_training", None)
        # Tune may make an actor for a trial and never run it, while another one is training that trial.
        if training is not None and not self._finished and training.epoch > self._begun_at:
            self._save()
        self._release()

    def _release(self) -> None:
        from nls_tune.devices import empty_cache

        if (warmup := getattr(self, "_warmup", None)) is not None:
            warmup.close()
        self._training = self._warmup = None  # type: ignore[assignment] # the next trial makes its own
        empty_cache(self._device)
