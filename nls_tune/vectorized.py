"""Several trainings of equal shape as one batched model: for networks too small to fill a device on their own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from nls_tune.augment import normalise
from nls_tune.datasets import NoisyDataset
from nls_tune.devices import DeviceData
from nls_tune.errors import InputError
from nls_tune.losses import gls_loss
from nls_tune.metrics import EpochMetrics
from nls_tune.settings import TrainingSettings
from nls_tune.training import Training

#: Networks without dropout, whose randomness lies in initial weights, order and augmentation alone.
VECTORIZABLE_MODELS = ("mlp", "small_cnn")
#: Settings that the members of a batch may differ in. All others decide shapes, order or the kind of a step.
_MAY_DIFFER = {"smooth_rate", "warmup_epochs", "lr", "schedule", "milestones", "gamma", "seed", "warmup_lr"}
#: Values of the activations of one layer that evaluation keeps at once: they stay in a CPU's cache.
_EVALUATION_VALUES = 15_000


@dataclass
class _Member:
    """One of the trainings: what it is and what it has measured."""

    settings: TrainingSettings
    history: list[EpochMetrics] = field(default_factory=list)
    val_correct: list[np.ndarray] = field(default_factory=list)
    test_correct: list[np.ndarray] = field(default_factory=list)

    @property
    def diverged(self) -> bool:
        return bool(self.history) and self.history[-1].diverged


@dataclass(frozen=True)
class WarmState:
    """A model after some epochs of warm-up, and what they measured.

    Attributes:
        model: Its ``state_dict``.
        history: The metrics of its epochs.
        val_correct: Of each epoch, the packed bits of the validation samples that were right.
        test_correct: The same of the test samples; empty without a test set.
    """

    model: Mapping[str, Tensor]
    history: tuple[EpochMetrics, ...]
    val_correct: tuple[np.ndarray, ...]
    test_correct: tuple[np.ndarray, ...]


class VectorizedTraining:
    """Trains several configurations, or one with several seeds, at once.

    Each is the training that ``Training`` would run alone: the same initial weights, order, augmentation and
    steps. Sums are taken in another order, so the numbers agree within the tolerance of float32, not bit by bit.

    Args:
        dataset: Data with noisy training and validation labels.
        settings: What to train, at least one; they may differ in rate, warm-up, learning rates and seed.
        device: Where to train.
        data: The dataset on that device, if it is there already.
        warm: A model that every member starts from, instead of fresh weights. Its epochs count as done.

    Raises:
        InputError: If the network cannot be batched, or the settings differ in more than they may.
    """

    def __init__(
        self,
        dataset: NoisyDataset,
        settings: Sequence[TrainingSettings],
        device: torch.device | str = "cpu",
        *,
        data: DeviceData | None = None,
        warm: WarmState | None = None,
    ) -> None:
        self.settings = check_vectorizable(settings)
        self.device = torch.device(device)
        self.data = DeviceData.load(dataset, self.device) if data is None else data
        self.members = [_Member(s) for s in settings]
        # One ordinary training a seed gives initial weights, order and augmentation.
        seeds = list(dict.fromkeys(s.seed for s in settings))
        self._sources = [
            Training(dataset, next(s for s in settings if s.seed == seed), self.device, data=self.data)
            for seed in seeds
        ]
        self._source_of = torch.tensor([seeds.index(s.seed) for s in settings])
        models = [self._sources[i].model for i in self._source_of.tolist()]
        if warm is not None:
            for model in models:
                model.load_state_dict(dict(warm.model))
            for member in self.members:
                member.history = list(warm.history)
                member.val_correct, member.test_correct = list(warm.val_correct), list(warm.test_correct)
        self._skeleton = models[0]
        parameters, buffers = stack_module_state(models)
        self._parameters: dict[str, Tensor] = {k: v.detach().requires_grad_() for k, v in parameters.items()}
        self._buffers: dict[str, Tensor] = buffers
        self._momenta: dict[str, Tensor] = {k: torch.zeros_like(v) for k, v in self._parameters.items()}

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return len(self.members[0].history)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.settings.epochs

    def run_epoch(self) -> list[EpochMetrics]:
        """Train and evaluate the next epoch of every member.

        Returns:
            The metrics of each, in the order of the settings. ``seconds`` is a member's part of the time. A
            member that has diverged stays diverged.

        Raises:
            RuntimeError: If the training is finished.
        """
        if self.finished:
            raise RuntimeError(f"the training is finished after epoch {self.epoch}; make a new one")
        start, epoch = time.perf_counter(), self.epoch + 1
        for index, member in enumerate(self.members):
            if epoch == member.settings.warmup_epochs + 1:  # a fresh optimiser
                for momentum in self._momenta.values():
                    momentum[index] = 0
        loss_sums, num_correct = self._train_epoch(epoch)
        val_losses, val_bits = self._evaluate(self.data.val_inputs, self.data.val_labels)
        test_bits = None
        if self.data.test_inputs is not None and self.data.test_labels is not None:
            _, test_bits = self._evaluate(self.data.test_inputs, self.data.test_labels)
        finite = (self._finite() & loss_sums.isfinite() & val_losses.isfinite()).tolist()
        seconds = (time.perf_counter() - start) / len(self.members)
        num_train = len(self.data.train_labels)
        for i, member in enumerate(self.members):
            member.val_correct.append(np.packbits(val_bits[i]))
            if test_bits is not None:
                member.test_correct.append(np.packbits(test_bits[i]))
            member.history.append(
                EpochMetrics(
                    epoch=epoch,
                    phase=member.settings.phase(epoch),
                    lr=member.settings.learning_rate(epoch),
                    train_loss=float(loss_sums[i]) / num_train,
                    train_accuracy=float(num_correct[i]) / num_train,
                    val_loss=float(val_losses[i]) / val_bits.shape[1],
                    val_accuracy=float(val_bits[i].mean()),
                    test_accuracy=None if test_bits is None else float(test_bits[i].mean()),
                    diverged=member.diverged or not finite[i],
                    seconds=seconds,
                    peak_memory_bytes=0,
                )
            )
        return [member.history[-1] for member in self.members]

    def warm_state(self, index: int) -> WarmState:
        """Return the model of a member as it is now, for others to start from."""
        member = self.members[index]
        state = {k: v.detach()[index].clone() for k, v in {**self._parameters, **self._buffers}.items()}
        return WarmState(state, tuple(member.history), tuple(member.val_correct), tuple(member.test_correct))

    def _train_epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        phases = [m.settings.phase(epoch) for m in self.members]
        rates = torch.tensor(
            [0.0 if p == "warmup" else m.settings.smooth_rate for p, m in zip(phases, self.members, strict=True)],
            device=self.device,
        )
        lrs = torch.tensor([m.settings.learning_rate(epoch) for m in self.members], device=self.device)
        loss_sums = torch.zeros(len(self.members), dtype=torch.float64, device=self.device)
        num_correct = torch.zeros_like(loss_sums)
        self._skeleton.train()
        for inputs, labels in self._batches(epoch):
            shared = 0 if len(self._sources) > 1 else None
            logits = self._forward(inputs, shared)
            losses = vmap(gls_loss, in_dims=(0, shared, 0))(logits, labels, rates)
            gradients = torch.autograd.grad(losses.sum(), list(self._parameters.values()))
            self._step(gradients, lrs)
            loss_sums += losses.detach() * labels.shape[-1]
            num_correct += (logits.detach().argmax(-1) == labels).sum(-1)
        return loss_sums, num_correct

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of every seed; with several seeds stacked, one for each member."""
        for batches in zip(*(source.batches(epoch) for source in self._sources), strict=True):
            if len(batches) == 1:
                yield batches[0]
                continue
            inputs, labels = (torch.stack(tensors) for tensors in zip(*batches, strict=True))
            yield inputs[self._source_of], labels[self._source_of]

    @torch.no_grad()
    def _step(self, gradients: Sequence[Tensor], lrs: Tensor) -> None:
        """One step of SGD with (Nesterov) momentum, as ``torch.optim.SGD`` takes it."""
        s = self.settings
        parameters, momenta = list(self._parameters.values()), list(self._momenta.values())
        updates = list(gradients)
        if s.clip_norm:
            squares = sum(g.square().flatten(1).sum(1) for g in updates)
            scales = (s.clip_norm / (torch.as_tensor(squares).sqrt() + 1e-6)).clamp(max=1.0)
            updates = [g * _over(scales, g) for g in updates]
        if s.weight_decay:
            torch._foreach_add_(updates, parameters, alpha=s.weight_decay)
        if s.momentum:
            torch._foreach_mul_(momenta, s.momentum)
            torch._foreach_add_(momenta, updates)
            if s.nesterov:
                torch._foreach_add_(updates, momenta, alpha=s.momentum)
            else:
                updates = momenta
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.addcmul_(update, _over(-lrs, update))

    @torch.no_grad()
    def _evaluate(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, np.ndarray]:
        """Return the summed cross-entropy of each member and which samples each gets right, (S, N) bool."""
        self._skeleton.eval()
        loss_sums = torch.zeros(len(self.members), dtype=torch.float64, device=self.device)
        correct = []
        size = max(50, _EVALUATION_VALUES // len(self.members))
        for batch, target in zip(torch.split(inputs, size), torch.split(labels, size), strict=True):
            if batch.dtype == torch.uint8:
                batch = normalise(batch, self.data.mean, self.data.std)
            logits = self._forward(batch, None)
            flat = functional.cross_entropy(
                logits.flatten(0, 1).float(), target.repeat(len(self.members)), reduction="none"
            )
            loss_sums += flat.view(len(self.members), -1).sum(1)
            correct.append(logits.argmax(-1) == target)
        return loss_sums, torch.cat(correct, dim=1).cpu().numpy()

    def _forward(self, inputs: Tensor, shared: int | None) -> Tensor:
        """Return the logits of each member, (S, B, K), for inputs of all of them or (0) of each."""
        if self.settings.model == "mlp":
            return _mlp_forward(self._skeleton, self._parameters, inputs if shared == 0 else inputs.unsqueeze(0))

        def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
            logits: Tensor = functional_call(self._skeleton, (parameters, buffers), (batch,))
            return logits

        return vmap(forward, in_dims=(0, 0, shared))(self._parameters, self._buffers, inputs)

    def _finite(self) -> Tensor:
        """Whether all parameters and floating-point buffers of each member are finite: (S,) bool."""
        state = [t for t in {**self._parameters, **self._buffers}.values() if t.is_floating_point()]
        return torch.stack([t.detach().flatten(1).isfinite().all(1) for t in state]).all(0)


def _mlp_forward(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Return the logits of stacked MLPs, (S, B, K), for inputs (S or 1, B, ...).

    ``vmap`` adds a linear layer's bias in a pass of its own, a quarter of the time of a step.
    """
    hidden = inputs.flatten(2)
    for name, layer in model.named_children():
        if isinstance(layer, nn.Linear):
            weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
            hidden = torch.baddbmm(bias.unsqueeze(1), hidden.expand(len(weight), -1, -1), weight.transpose(1, 2))
        elif isinstance(layer, nn.ReLU):
            hidden = hidden.relu_()
    return hidden


def _over(values: Tensor, like: Tensor) -> Tensor:
    """Shape one value a member so that it multiplies that member's part of a stacked tensor."""
    return values.view(-1, *[1] * (like.dim() - 1))


def check_vectorizable(settings: Sequence[TrainingSettings]) -> TrainingSettings:
    """Check that trainings can run as one batched model.

    Args:
        settings: Of all of them.

    Returns:
        The first, for what they share.

    Raises:
        InputError: If there is none, the network or the optimiser cannot be batched, or they differ in more
            than rate, warm-up, learning rates and seed.
    """
    if not settings:
        raise InputError("there must be at least one training, got none; give settings")
    first = settings[0]
    if first.model not in VECTORIZABLE_MODELS:
        raise InputError(f"model must be one of {', '.join(VECTORIZABLE_MODELS)} to be batched, got {first.model!r}")
    if first.optimizer != "sgd" or first.precision == "bfloat16":
        raise InputError(
            f"batched trainings take optimizer sgd in float32, got {first.optimizer} in {first.precision}; "
            "train one by one"
        )
    for other in settings[1:]:
        for name in TrainingSettings.model_fields:
            if name not in _MAY_DIFFER and getattr(other, name) != getattr(first, name):
                raise InputError(
                    f"batched trainings must agree in {name}, got {getattr(first, name)!r} and "
                    f"{getattr(other, name)!r}; train them in batches of their own"
                )
    return first
