"""The Ray Tune trainable: a process that trains one trial after the other."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from nls_tune.datasets import NoisyDataset
from nls_tune.errors import error_line, is_out_of_memory
from nls_tune.machine.provenance import cpu_name
from nls_tune.training.trial import SingleTrial, Workplace


class TrainingTrainable(tune.Trainable):
    """Trains one trial after the other in a process that is reused.

    What trials share comes through ``tune.with_parameters``, once a node: ``arrays`` (the inputs that all noise
    levels share), ``datasets`` (each level's dataset without them) and ``shared`` (plain values of the run). The
    configuration of a trial holds plain values only:

    * ``trial_id``, ``noise_level``, ``stage``, ``settings``;
    * ``data``: name of its dataset, where that is not the noise level;
    * ``report_at``: epochs at which a report must go out, because a scheduler looks at them;
    * ``stop_at``: the epoch after which a trial on all labels ends. No samples are left to validate it, so its reports
      have no best epoch, and NaN where its epochs would tell of validation.

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

        from nls_tune.training.compiling import Compiler
        from nls_tune.training.devices import keep_freed_memory, limit_memory

        self._arrays, self._datasets = arrays, datasets
        self._shared_gpu = shared.get("trials_per_gpu", 1) > 1
        use_gpu, store = shared["use_gpu"], shared["warmup_store"]
        device = torch.device("cuda" if use_gpu else "cpu")
        # Also where the user's OMP_NUM_THREADS says otherwise: what Ray has given to a trial is what it uses.
        torch.set_num_threads(max(1, int(shared["cpus_per_trial"])))
        if use_gpu:
            torch.backends.cudnn.benchmark = True
            limit_memory(device, shared["trials_per_gpu"])
        else:
            keep_freed_memory()
        self._workplace = Workplace(
            device,
            torch.cuda.get_device_name() if use_gpu else cpu_name(),
            Compiler(shared.get("compile", "off")),
            shared["objective"],
            Path(shared["checkpoints"]),
            store and Path(store),
            tuple(shared["warmup_epochs"]),
        )
        self._cached: tuple[str, NoisyDataset, Any] | None = None
        self._trial: SingleTrial | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take over another trial in the same process: imports and data are there already."""
        self._release()
        self._begin(new_config)
        return True

    def _begin(self, config: Mapping[str, Any]) -> None:
        """Prepare a trial; one for which there is no memory says so in its first report."""
        self._out_of_memory: str | None = None
        self._report_at_hand = self._workplace.report_of_nothing()
        self._within_memory(lambda: self._prepare(config))

    def _prepare(self, config: Mapping[str, Any]) -> None:
        import torch

        from nls_tune.training.data import DeviceData

        key, device = config.get("data", config["noise_level"]), self._workplace.device
        if self._cached is None or self._cached[0] != key:
            self._cached = None  # free one level's tensors before the next come
            dataset = replace(self._datasets[key], **self._arrays)
            self._cached = (key, dataset, DeviceData.load(dataset, device))
        _, dataset, data = self._cached
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._trial = SingleTrial(config, dataset, data, self._workplace)

    def step(self) -> dict[str, Any]:
        """Train until a report is due.

        Returns:
            The epochs since the last report and the state of the trial; ``done`` at the end.
        """
        if self._out_of_memory is None:
            self._within_memory(self._train)
        if self._out_of_memory is not None:
            # What was reached stands; nothing of it is there any more.
            end = {"new_epochs": [], "out_of_memory": self._out_of_memory, "done": True}
            self._report_at_hand = {**self._report_at_hand, **end}
        return self._report_at_hand

    def _train(self) -> None:
        if self._trial is not None:
            self._report_at_hand = self._trial.train()

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
