"""What a frozen network makes of its inputs before the last layer: computed once and kept for all trials."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nls_tune.datasets import NoisyDataset
from nls_tune.datasets.cache import META, checksum_of, new_entry, warn_once
from nls_tune.datasets.downloads import locked
from nls_tune.datasets.image_cache import remove_unused
from nls_tune.datasets.locations import cache_folder
from nls_tune.datasets.mapped import InputArray, MappedImages
from nls_tune.datasets.source import hash_arrays
from nls_tune.files import parse_json, seal_holds, sealed_json
from nls_tune.training.augment import normalise
from nls_tune.training.devices import Precision
from nls_tune.training.last_layer import last_layer_name

_logger = logging.getLogger(__name__)
_FORMAT = 1  # raise it when a network makes other features of the same inputs
#: Samples that go through a network at once.
_BATCH = 64
_FEATURES = "features.npy"


class FrozenNetwork:
    """A network on a device, in evaluation mode but for its last layer, which alone is trained."""

    def __init__(self, network: nn.Module, precision: Precision, memory_format: torch.memory_format) -> None:
        self._network, self._precision, self._memory_format = network, precision, memory_format
        self._name = str(last_layer_name(network))
        self.last_layer = network.get_submodule(self._name)

    def features_of(self, dataset: NoisyDataset) -> NoisyDataset | None:
        """Return a dataset whose inputs are what enters the last layer, float32 (N, ...), mapped from a file.

        The file is in the user's cache folder; of several processes that need it one makes it. None if the network goes
        on after its last layer, or, with a warning, if the file cannot be written.
        """
        entry = cache_folder() / "features" / self._key(dataset)
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            with locked(entry):
                if (found := _read(entry)) is None:
                    remove_unused(entry.parent, entry.name)
                    if not self._make(entry, dataset):
                        return None
                    found = _read(entry)
            if found is None:
                raise OSError(errno.EIO, "what is written is not what is read")
        except OSError as error:
            warn_once(entry.parent, error.strerror or str(error))
            return None
        labelled = len(dataset.inputs)
        ones = np.ones(found.shape[1], np.float32)
        return replace(
            dataset,
            inputs=found[:labelled],
            test_inputs=None if dataset.test_inputs is None else found[labelled:],
            input_mean=np.zeros_like(ones),
            input_std=ones,
        )

    def _key(self, dataset: NoisyDataset) -> str:
        """A name of what decides the features."""
        state = hashlib.sha256()
        for name, value in self._network.state_dict().items():
            if not name.startswith(f"{self._name}."):
                state.update(f"{name}{value.shape}".encode())
                state.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        device = next(self._network.parameters()).device.type
        inputs = [_digest(part) for part in (dataset.inputs, dataset.test_inputs) if part is not None]
        constants = hash_arrays(dataset.input_mean, dataset.input_std)
        said = [_FORMAT, state.hexdigest(), inputs, constants, self._precision, device, str(torch.__version__)]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]

    def _make(self, entry: Path, dataset: NoisyDataset) -> bool:
        """Write the features of all samples, test samples last; False if they do not decide what the network says."""
        parts = [part for part in (dataset.inputs, dataset.test_inputs) if part is not None]
        mean, std = (torch.from_numpy(np.array(a)) for a in (dataset.input_mean, dataset.input_std))
        _logger.info("computing the features of %s, once for all trials", dataset.name)
        self._network.eval()
        features, logits = self._run(next(_batches(parts)), mean, std)
        with torch.inference_mode(), self._autocast(features.device):
            if not torch.allclose(self.last_layer(features), logits):
                return False
        shape = (sum(map(len, parts)), *features.shape[1:])
        with new_entry(entry) as made:
            # Not through a map, where a full disk ends the process.
            with (made / _FEATURES).open("wb") as stream:
                head = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, head)
                for batch in _batches(parts):
                    stream.write(self._run(batch, mean, std)[0].float().cpu().contiguous().numpy().data)
            written = np.load(made / _FEATURES, mmap_mode="r", allow_pickle=False)
            (made / META).write_text(sealed_json(json.dumps({"features": checksum_of(written)})))
        return True

    @torch.inference_mode()
    def _run(self, batch: np.ndarray, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Return what enters the last layer, and what the network says."""
        device, entered = next(self._network.parameters()).device, list[Tensor]()
        inputs = torch.from_numpy(batch).to(device)
        if inputs.dtype == torch.uint8:
            inputs = inputs.to(memory_format=self._memory_format)
        hook = self.last_layer.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        try:
            with self._autocast(device):
                logits: Tensor = self._network(normalise(inputs, mean.to(device), std.to(device)))
        finally:
            hook.remove()
        return entered[-1], logits

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self._precision == "bfloat16")


def _batches(parts: Sequence[InputArray]) -> Iterator[np.ndarray]:
    for part in parts:
        for begin in range(0, len(part), _BATCH):
            yield np.array(part[begin : begin + _BATCH])


def _digest(inputs: InputArray) -> str:
    if isinstance(inputs, MappedImages):  # whose file is named after its content
        return hash_arrays(inputs.rows, seed=str(inputs.file))
    return hash_arrays(inputs)


def _read(entry: Path) -> np.ndarray | None:
    """Return the features of an entry, mapped; None if there is none, or a torn one."""
    try:
        content = (entry / META).read_bytes()
        features = np.load(entry / _FEATURES, mmap_mode="r", allow_pickle=False)
        if not seal_holds(content) or parse_json(content)["features"] != checksum_of(features):
            raise ValueError("it has changed")
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever is wrong with an entry, making it again is right
        _logger.info("the features in %s are damaged and are made again (%s)", entry, error)
        return None
    with suppress(OSError):
        entry.touch()  # in use
    return np.asarray(features)
