"""The Ray Tune trainable: a process that trains one trial after the other."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ray import tune

from nls_tune.datasets import NoisyDataset
from nls_tune.errors import error_line, is_out_of_memory
from nls_tune.machine.limits import usable_cpus
from nls_tune.machine.provenance import cpu_name
from nls_tune.metrics import Judging
from nls_tune.runs.storage.store import Store
from nls_tune.runs.trial_spec import DataName, TrialSpec
from nls_tune.training.trial import Trial, Workplace
from nls_tune.tune.shared import node_warmups

if TYPE_CHECKING:
    from nls_tune.datasets.mapped import InputArray
    from nls_tune.training.compiling import CompileMode
    from nls_tune.training.data import DeviceData


class SharedInputs(NamedTuple):
    """The inputs that all datasets of an experiment share; of mapped images only the name of their file travels."""

    inputs: InputArray
    test_inputs: InputArray | None


@dataclass(frozen=True, kw_only=True)
class SharedSettings:
    """The settings that all trials of an experiment share.

    ``checkpoints`` and ``warmup_store`` are folders; without a store no CE warm-up is shared. Warm-ups of the lengths
    ``warmup_epochs`` are stored. With the URL of a ``storage`` the nodes share no folder: checkpoints lie there. With
    the run's id in ``node_warmups`` each node has a store of its own. A user's own network is looked for where the
    search finds it, in the ``import_paths`` as well.
    """

    judging: Judging
    use_gpu: bool
    checkpoints: Path
    cpus_per_trial: int
    trials_per_gpu: int = 1
    compile: CompileMode = "off"
    warmup_store: Path | None = None
    warmup_epochs: tuple[int, ...] = ()
    storage: str | None = None
    node_warmups: str | None = None
    import_paths: tuple[str, ...] = ()


class TrainingTrainable(tune.Trainable):
    """Trains one trial after the other in a process that is reused.

    What trials share comes through ``tune.with_parameters``, once per node: ``inputs`` (those that all datasets
    share), ``datasets`` (by name, without these inputs) and ``shared``. The configuration of a trial is a ``TrialSpec``
    as plain values, its results are ``TrialReport``s. A trial on all labels leaves no samples to validate it: its
    reports have no best epoch, and NaN where its epochs would tell of validation.

    A trial that runs out of memory does not raise: it ends with a report that says so in ``out_of_memory``, frees what
    it held, and the process takes over the next trial.
    """

    def setup(  # type: ignore[override] # tune.with_parameters adds the keywords
        self,
        config: dict[str, Any],
        *,
        inputs: SharedInputs,
        datasets: dict[DataName, NoisyDataset],
        shared: SharedSettings,
    ) -> None:
        """Import, pick the device and prepare the first trial."""
        import torch

        from nls_tune.training.compiling import Compiler
        from nls_tune.training.devices import keep_freed_memory, limit_memory

        sys.path += [path for path in shared.import_paths if path not in sys.path]
        self._inputs, self._datasets = inputs, datasets
        self._shared_gpu = shared.trials_per_gpu > 1
        self._sharing = shared.trials_per_gpu if shared.use_gpu else max(1, usable_cpus() // shared.cpus_per_trial)
        device = torch.device("cuda" if shared.use_gpu else "cpu")
        # Also where the user's OMP_NUM_THREADS says otherwise: what Ray has given to a trial is what it uses.
        torch.set_num_threads(max(1, shared.cpus_per_trial))
        if shared.use_gpu:
            torch.backends.cudnn.benchmark = True
            limit_memory(device, shared.trials_per_gpu)
        else:
            keep_freed_memory()
        self._workplace = Workplace(
            device,
            torch.cuda.get_device_name() if shared.use_gpu else cpu_name(),
            Compiler(shared.compile),
            shared.judging,
            shared.checkpoints,
            shared.warmup_store if shared.node_warmups is None else node_warmups(shared.node_warmups),
            shared.warmup_epochs,
            None if shared.storage is None else Store(shared.storage),
        )
        self._cached: tuple[DataName, NoisyDataset, DeviceData] | None = None
        self._trial: Trial | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take over another trial in the same process: imports and data are there already."""
        self._release()
        self._begin(new_config)
        return True

    def _begin(self, config: Mapping[str, Any]) -> None:
        """Prepare a trial; if there is no memory for it, its first report says so."""
        self._out_of_memory: str | None = None
        self._last_report = self._workplace.first_report()
        self._within_memory(lambda: self._prepare(TrialSpec.from_config(config)))

    def _prepare(self, spec: TrialSpec) -> None:
        import torch

        from nls_tune.training.data import DeviceData

        device = self._workplace.device
        if self._cached is None or self._cached[0] != spec.data:
            self._cached = None  # free one dataset's tensors before the next come
            dataset = replace(self._datasets[spec.data], **self._inputs._asdict())
            self._cached = (spec.data, dataset, DeviceData.load(dataset, device, sharing=self._sharing))
        _, dataset, data = self._cached
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._trial = Trial(spec, dataset, data, self._workplace)

    def step(self) -> dict[str, Any]:
        """Train until a report is due, and return it for Tune."""
        if self._out_of_memory is None:
            self._within_memory(self._train)
        if self._out_of_memory is not None:
            # The numbers stay; the tensors are gone.
            self._last_report = replace(self._last_report, new_epochs=(), out_of_memory=self._out_of_memory, done=True)
        return self._last_report.to_result()

    def _train(self) -> None:
        if self._trial is not None:
            self._last_report = self._trial.train()

    def _within_memory(self, work: Callable[[], None]) -> None:
        """Do some work; if the memory for it is not there, note that and free what the trial holds."""
        from nls_tune.training.devices import empty_cache

        try:
            work()
            return
        except Exception as error:
            if not is_out_of_memory(error, shared_gpu=self._shared_gpu):
                raise
            self._out_of_memory = error_line(error)
        # Not in the handler: as long as the error is there, its traceback holds the tensors of all calls.
        self._release()
        gc.collect()
        empty_cache(self._workplace.device)

    def cleanup(self) -> None:
        """Keep the state of a trial that is being interrupted.

        Tune waits about 5 s for this; a trial in the middle of a longer epoch goes on from its last checkpoint.
        """
        if self._trial is not None:
            self._trial.keep()
        self._release()

    def _release(self) -> None:
        from nls_tune.training.devices import empty_cache

        if self._trial is not None:
            self._trial.close()
        self._trial = None
        empty_cache(self._workplace.device)
