"""One training: cross-entropy warm-up, then the GLS phase, epoch by epoch, on one device."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nls_tune._version import __version__
from nls_tune.datasets import NoisyDataset
from nls_tune.errors import InputError
from nls_tune.losses import balanced_weights, make_loss
from nls_tune.losses.registry import check_takes_probabilities
from nls_tune.metrics import AVERAGES, METRICS, EpochMetrics, Judging, Scores, best_epoch
from nls_tune.spaces.settings import TrainingSettings, check_fit
from nls_tune.training.averages import floating_state
from nls_tune.training.compiling import Compiler, Forward, run_network
from nls_tune.training.data import Batches, DeviceData
from nls_tune.training.devices import peak_memory_bytes, resolve_precision, seeded
from nls_tune.training.evaluation import Evaluator, Judged
from nls_tune.training.features import FrozenNetwork
from nls_tune.training.last_layer import set_training
from nls_tune.training.readouts import Readouts
from nls_tune.training.starting_network import starting_network
from nls_tune.training.streaming import Inputs

_STATE_VERSION = 2
#: Plain values and tensors by name, as torch saves them.
State = dict[str, Any]


class Training:
    """Trains one configuration, epoch by epoch.

    Order, augmentation and dropout of epoch t are drawn from (seed, t) alone, and the whole state is one
    ``state_dict``: saved, loaded in another process and continued it gives the same numbers, bit by bit on the
    CPU, as without the stop (with the same number of threads).

    ``data`` is the dataset on the device, if it is there already; trainings of one process share the ``compiler``.
    ``readouts`` are judged as ``judging`` says.
    ``history`` has the metrics of the finished epochs, of which the first ``epochs_reused`` were taken over with
    ``load_warmup``, and ``precision`` what ``settings.precision`` means on the device.

    Raises:
        InputError: If the settings do not fit the data or the device, or the loss lacks its transition matrix.
        CompileError: If compiling was asked for and fails.
    """

    def __init__(
        self,
        dataset: NoisyDataset,
        settings: TrainingSettings,
        device: torch.device | str = "cpu",
        *,
        data: DeviceData | None = None,
        compiler: Compiler | None = None,
        judging: Judging = Judging(),  # noqa: B008 - it cannot change
    ) -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.num_classes = dataset.num_classes
        check_fit(settings, dataset.num_train, dataset.input_shape)
        if dataset.soft_labels is not None:
            check_takes_probabilities(settings.loss, dataset.noise_level)
        self.data = DeviceData.load(dataset, self.device) if data is None else data
        with seeded(self._stream(0), self.device):
            self.network = starting_network(dataset, settings, self.data).to(self.device)
        images = len(dataset.input_shape) == 3
        self.precision = resolve_precision(settings.precision, self.device, images=images)
        self._memory_format = torch.channels_last if images else torch.contiguous_format
        self.network.to(memory_format=self._memory_format)
        #: What is trained, evaluated and saved: the network, or its last layer on the features that the rest makes.
        self.model: nn.Module = self.network
        # Mirrored features are not those of mirrored images.
        if settings.trains_on_features and not judging.mirror:
            frozen = FrozenNetwork(self.network, self.precision, self._memory_format)
            if (features := frozen.features_of(dataset)) is not None:
                self.model, self.data = frozen.last_layer, DeviceData.load(features, self.device)
        self._frozen = settings.freeze and self.model is self.network
        set_training(self.model, frozen=self._frozen)
        self._state = floating_state(self.model)
        self.history: list[EpochMetrics] = []
        self.epochs_reused = 0
        self._judged: list[tuple[Judged, Judged | None]] = []
        self.evaluator = Evaluator(self.data, self.precision, self._memory_format)
        self.readouts = Readouts(self.model, settings, self.evaluator, judging)
        self.source = Batches(self.data, settings, self._memory_format)
        self.optimizer = self._new_optimizer(1)
        balanced = settings.class_weights == "balanced"
        self._weights = balanced_weights(self.data.train_labels, self.num_classes) if balanced else None
        self._warmup_loss = make_loss("ce", class_weights=self._weights).to(self.device)
        self._transition = dataset.transition
        self._loss = self._new_loss()
        self._best_warmup: dict[str, Tensor] | None = None
        self._compiled = self._compile(compiler, dataset.num_train)

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return len(self.history)

    @property
    def diverged(self) -> bool:
        """Whether the last epoch left a loss or a parameter that is not finite."""
        return bool(self.history) and self.history[-1].diverged

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train: all epochs are done, or it diverged."""
        return self.diverged or self.epoch >= self.settings.epochs

    def curve(self, epochs: int | None = None) -> list[float]:
        """Return the metric on validation after every epoch, or the first ``epochs``, that did not diverge."""
        return self.readouts.curve(self.history[:epochs])

    def judged(self, epoch: int) -> tuple[Judged, Judged | None]:
        """Return what a finished (1-based) epoch makes of validation and test samples; None without a test set."""
        return self._judged[epoch - 1]

    # Training

    def run_epoch(self) -> EpochMetrics:
        """Train and evaluate the next epoch; return its metrics, also appended to ``history``."""
        if self.finished:
            raise RuntimeError(f"the training is finished after epoch {self.epoch}; make a new one")
        start = time.perf_counter()
        epoch = self.epoch + 1
        if epoch == self.settings.warmup_epochs + 1:
            self._return_to_best_warmup()
            self.optimizer, self._loss = self._new_optimizer(epoch), self._new_loss()
            self.readouts.averages.restart()  # what the warm-up reached is not the GLS phase's
        with seeded(self._stream(epoch), self.device):
            loss_sum, num_correct = self._train_epoch(epoch)
        val_loss, val = self.evaluator.judge(self.model, self.data.val_inputs, self.data.val_labels)
        test = None
        if self.data.test_inputs is not None and self.data.test_labels is not None:
            _, test = self.evaluator.judge(self.model, self.data.test_inputs, self.data.test_labels)
        # One transfer for everything that is a number; the step loop never waits for the device.
        finite = self._parameters_finite() & loss_sum.isfinite() & val_loss.isfinite()
        sums = torch.stack([loss_sum, num_correct, val_loss, finite.to(torch.float64)]).tolist()
        num_train = len(self.data.train_labels)
        metrics = EpochMetrics(
            epoch=epoch,
            phase=self.settings.phase(epoch),
            lr=self.settings.learning_rate(epoch),
            train_loss=sums[0] / num_train,
            train_accuracy=sums[1] / num_train,
            val_loss=sums[2] / val.num_samples,
            **_columns("val", val),
            **_columns("test", test),
            diverged=not sums[3],
            seconds=0.0,
            peak_memory_bytes=peak_memory_bytes(self.device),
            **_average_columns(self.readouts.validate(epoch) if sums[3] else []),
        )
        self._judged.append((val, test))
        if not metrics.diverged:
            self.readouts.judge([*self.history, metrics])
        self.history.append(replace(metrics, seconds=time.perf_counter() - start))
        self._keep_best_warmup()
        return self.history[-1]

    def _keep_best_warmup(self) -> None:
        """Copy the weights after a warm-up epoch that is the best so far, if the GLS phase is to start from it."""
        if self.settings.warmup_from == "best" and self.epoch <= self.settings.warmup_epochs:
            best = best_epoch(self.curve())
            if best is not None and best.epoch == self.epoch:
                self._best_warmup = {name: value.clone() for name, value in self.model.state_dict().items()}

    def _return_to_best_warmup(self) -> None:
        if self._best_warmup is not None:
            self.model.load_state_dict(self._best_warmup)
            self._best_warmup = None

    def _train_epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """One pass over the training samples; returns the sum of the losses and the number correct."""
        set_training(self.model, frozen=self._frozen)
        loss_of = self._warmup_loss if self.settings.phase(epoch) == "warmup" else self._loss
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        num_correct = torch.zeros((), dtype=torch.float64, device=self.device)
        num_batches, soft = self.source.num_batches, self.data.train_probabilities
        for step, (inputs, labels, indices) in enumerate(self.source.of_epoch(epoch, self.generator)):
            lr = self.settings.learning_rate(epoch, step / num_batches)
            for group in self.optimizer.param_groups:
                group["lr"] = lr * group["lr_factor"]
            # The batch that is smaller than the others would be another graph.
            forward = (self._compiled if len(labels) == self.settings.batch_size else None) or run_network
            with self.evaluator.autocast():
                logits = forward(self.model, inputs)
                loss = loss_of(logits, labels if soft is None else soft[indices], indices)  # checked when loaded
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)  # loss.backward() without its missing annotation
            if self.settings.clip_norm:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
            self.optimizer.step()
            self.readouts.averages.update()
            loss_sum += loss.detach() * len(labels)
            num_correct += (logits.detach().argmax(1) == labels).sum()
        return loss_sum, num_correct

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield shuffled, augmented, normalised batches; every sample once, the last batch may be smaller."""
        return ((inputs, labels) for inputs, labels, _ in self.source.of_epoch(epoch, self.generator))

    def predict_probabilities(self, inputs: Inputs) -> Tensor:
        """Return the model's class probabilities now, in evaluation mode: float32 (N, K), rows sum to 1.

        ``inputs`` (N, ...) are as in ``data``, on the device: uint8 images, or standardised float32 features.
        """
        return self.evaluator.probabilities(self.model, inputs)

    def _compile(self, compiler: Compiler | None, num_train: int) -> Forward | None:
        """The compiled forward pass for whole batches of so many samples; None where it is not to be compiled."""
        size = self.settings.batch_size
        steps = self.settings.epochs * (num_train // size)
        if compiler is None or not compiler.wants(self.device.type, steps):
            return None
        inputs, _ = next(self.batches(1))
        if len(inputs) != size:
            return None  # the only batch took in one more sample
        return compiler.forward(self.settings.model, self.model, inputs, self.evaluator.autocast)

    def _parameters_finite(self) -> Tensor:
        """Whether all parameters and floating-point buffers are finite: a 0-dim bool on the device."""
        return nn.utils.get_total_norm(self._state).isfinite()

    def _new_optimizer(self, epoch: int) -> torch.optim.Optimizer:
        """A fresh optimiser of the phase to which a (1-based) epoch belongs."""
        s, momentum = self.settings, self.settings.momentum_at(epoch)
        groups = self._parameter_groups(s.weight_decay_at(epoch))
        if s.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=s.lr, fused=True)
        return torch.optim.SGD(groups, lr=s.lr, momentum=momentum, nesterov=s.nesterov and momentum > 0, fused=True)

    def _new_loss(self) -> nn.Module:
        """The loss of the GLS phase as it is at the start of the phase."""
        made = make_loss(
            self.settings.loss,
            num_classes=self.num_classes,
            num_samples=len(self.data.train_labels),
            matrix=self._transition,
            class_weights=self._weights,
            **self.settings.loss_settings(),
        )
        return made.to(self.device)

    def _parameter_groups(self, decay: float) -> list[dict[str, Any]]:
        """The trained parameters, by what their learning rate is multiplied with; decay per step is that of all."""
        factor = self.settings.norm_bias_lr_factor
        norms = [m.bias for m in self.model.modules() if isinstance(m, nn.BatchNorm2d)] if factor != 1 else []
        norms = [bias for bias in norms if bias is not None and bias.requires_grad]
        of_norms = {id(bias) for bias in norms}
        others = [p for p in self.model.parameters() if p.requires_grad and id(p) not in of_norms]
        groups: list[dict[str, Any]] = [{"params": others, "lr_factor": 1.0, "weight_decay": decay}]
        if norms:
            groups.append({"params": norms, "lr_factor": factor, "weight_decay": decay / factor})
        return groups

    def _stream(self, epoch: int) -> int:
        """A 63-bit seed for (seed, epoch); epoch 0 is the initialisation."""
        return int(np.random.SeedSequence([self.settings.seed, epoch]).generate_state(1, np.uint64)[0] >> 1)

    def generator(self, epoch: int) -> torch.Generator:
        """Return what an epoch's order and augmentation, or another stream, are drawn from."""
        return torch.Generator().manual_seed(self._stream(epoch))

    def state_dict(self) -> State:
        """Return everything needed to continue: plain data and tensors, loadable with ``weights_only=True``."""
        return {
            "version": _STATE_VERSION,
            "settings": self.settings.identity(),
            "fingerprint": self.data.fingerprint,
            "precision": self.precision,
            "warmup": self.warmup_identity(),
            "epochs_reused": self.epochs_reused,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(m) for m in self.history],
            **_judged_state([[val for val, _ in self._judged], [test for _, test in self._judged if test is not None]]),
            **({"readouts": self.readouts.state_dict()} if self.readouts.identity() else {}),
            **({} if self._best_warmup is None else {"best_warmup": self._best_warmup}),
            **(
                {"loss": found}
                if self.epoch > self.settings.warmup_epochs and (found := self._loss.state_dict())
                else {}
            ),
        }

    def load_state_dict(self, state: State) -> None:
        """Take over what ``state_dict`` returned, in any process, on any device; InputError: it does not fit."""
        expected = {
            "version": _STATE_VERSION,
            "settings": self.settings.identity(),
            "fingerprint": self.data.fingerprint,
            "precision": self.precision,  # auto is not the same everywhere
        }
        for key, value in expected.items():
            if state.get(key) != value:
                raise InputError(
                    f"the saved state has another {key} ({state.get(key)!r}, expected {value!r}); "
                    "start this training anew"
                )
        self._restore(state)
        self.epochs_reused = state["epochs_reused"]

    def warmup_identity(self) -> State:
        """Return all that decides what a warm-up epoch computes: trainings that agree in it share their warm-up."""
        return {
            "state_version": _STATE_VERSION,
            "nls_tune": __version__,
            "torch": str(torch.__version__),
            "fingerprint": self.data.fingerprint,
            "device": self.device.type,
            # The number of threads decides the order of sums, so the last bits.
            "threads": torch.get_num_threads() if self.device.type == "cpu" else None,
            "settings": {**self.settings.warmup_settings(), "precision": self.precision},
            # Another order of operations, so other last bits.
            **({"compiled": True} if self._compiled else {}),
            **self.readouts.identity(),
        }

    def load_warmup(self, state: State) -> None:
        """Take over what ``state_dict`` returned within the same CE warm-up of another configuration.

        All epochs so far are replaced and count as reused.

        Raises:
            InputError: If it is of another ``warmup_identity`` or longer; nothing has changed then.
        """
        if state.get("warmup") != self.warmup_identity():
            raise InputError("the saved state is of another warm-up; start this training anew")
        if len(state["history"]) > self.settings.warmup_epochs:
            raise InputError(
                f"the saved warm-up must be at most {self.settings.warmup_epochs} epochs long, "
                f"got {len(state['history'])}; start this training anew"
            )
        self._restore(state)
        self.epochs_reused = self.epoch

    def _restore(self, state: State) -> None:
        """Take over what a state says of network, optimiser and epochs."""
        shapes = [{n: t.shape for n, t in m.items()} for m in (self.model.state_dict(), state["model"])]
        if shapes[0] != shapes[1]:  # checked before anything is changed
            raise InputError("the saved state is of another network; start this training anew")
        history = [_metrics(m) for m in state["history"]]
        optimizer = self._new_optimizer(max(1, len(history)))
        # A copy: the optimiser keeps the tensors that it is given and changes them in place.
        optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        for group in optimizer.param_groups:
            group.setdefault("lr_factor", 1.0)  # states of version 0.1 have none
        self.model.load_state_dict(state["model"])
        self._loss = self._new_loss()
        if "loss" in state:
            self._loss.load_state_dict(state["loss"])
        if "readouts" in state:
            self.readouts.load_state_dict(state["readouts"])
        self.optimizer, self.history, self._best_warmup = optimizer, history, state.get("best_warmup")
        labels = self.data.val_labels, self.data.test_labels
        val, test = (_judged(state, name, of) for name, of in zip(("val", "test"), labels, strict=True))
        self._judged = [(one, test[epoch] if test else None) for epoch, one in enumerate(val)]


def _metrics(values: State) -> EpochMetrics:
    """The metrics of an epoch of a saved state."""
    return EpochMetrics(**{**values, **{name: tuple(values.get(name, ())) for name in AVERAGES.values()}})


def _columns(split: str, judged: Judged | None) -> State:
    """The metrics of an epoch by the names of their columns; None without a test set."""
    scores = None if judged is None else judged.scores
    return {f"{split}_{metric}": None if scores is None else scores.of(metric) for metric in METRICS}


def _average_columns(scores: Sequence[Scores]) -> State:
    """The metrics of the averaged weights by the names of their columns."""
    return {column: tuple(one.of(metric) for one in scores) for metric, column in AVERAGES.items()}


def _judged_state(found: list[list[Judged]]) -> State:
    """What a saved state holds of the judged epochs: bits and counts."""
    saved = {name: [one.state() for one in judged] for name, judged in zip(("val", "test"), found, strict=True)}
    correct: State = {f"{name}_correct": [bits for bits, _ in states] for name, states in saved.items()}
    return correct | {f"{name}_counts": [counts for _, counts in states] for name, states in saved.items()}


def _judged(state: State, name: str, labels: Tensor | None) -> list[Judged]:
    """The judged epochs of a saved state; early versions saved no counts."""
    correct = state[f"{name}_correct"]
    counts = state.get(f"{name}_counts", [None] * len(correct))
    return [
        Judged.of_state(*one, num_samples=0 if labels is None else len(labels))
        for one in zip(correct, counts, strict=True)
    ]
