"""Several trainings of equal shape as one batched model: for networks too small to fill a device on their own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import stack_module_state
from torch.nn import functional

from nls_tune.errors import InputError
from nls_tune.losses import gls_loss
from nls_tune.metrics import EpochMetrics
from nls_tune.spaces.batching import check_vectorizable
from nls_tune.training.augment import normalise
from nls_tune.training.stacked import fused_logits, has_fused_layers, stacked_logits
from nls_tune.training.training import Training

#: Samples that are evaluated at once on a GPU, of each member.
_EVALUATED_AT_ONCE = {"images": 250, "flat": 2000}
#: Values of the activations of one layer that evaluation keeps at once on a CPU: they stay in its cache.
_EVALUATION_VALUES_CPU = 15_000


class VectorizedTraining:
    """Trains several configurations, or one with several seeds, at once.

    Each goes the way that it would go alone: the same initial weights, order, augmentation, precision and steps. Sums
    are taken in another order, so the numbers agree within the tolerance of the precision, not bit by bit. Epochs are
    noted in the trainings themselves; one that has ended, because it diverged or reached its last epoch, trains no
    more, and the others go on.

    Args:
        trainings: On one device, with the same data. They may differ in rate, warm-up, learning rates and seed, and
            in the epochs that they have behind them.
        stop_at: The epoch after which each of them ends; by default its last.

    Attributes:
        trainings: As they were given. Their models and optimisers are brought up to date by ``write_back`` alone.

    Raises:
        InputError: If the network cannot be batched, or the trainings differ in more than they may.
    """

    def __init__(self, trainings: Sequence[Training], stop_at: Sequence[int] | None = None) -> None:
        self.settings = check_vectorizable([training.settings for training in trainings])
        first = trainings[0]
        if any(training.data is not first.data for training in trainings):
            raise InputError("batched trainings must share their data; load them once and pass them to each training")
        self.trainings = list(trainings)
        self.device, self.data = first.device, first.data
        self._stop_at = [t.settings.epochs for t in trainings] if stop_at is None else list(stop_at)
        self._dtype = torch.bfloat16 if first.precision == "bfloat16" else torch.float32
        self._rows = self._still_running()
        self._stack()

    @property
    def finished(self) -> bool:
        """Whether every training has ended."""
        return not self._still_running()

    def run_epoch(self) -> list[EpochMetrics]:
        """Train and evaluate the next epoch of every training that has not ended.

        Returns:
            The metrics of these, in their order, also appended to their ``history``. ``seconds`` is a training's part
            of the time.

        Raises:
            RuntimeError: If all have ended.
        """
        if self.finished:
            raise RuntimeError("all trainings are finished; make new ones")
        start = time.perf_counter()
        self._drop_ended()
        running = self._running()
        for row, training in enumerate(running):
            if training.epoch == training.settings.warmup_epochs:  # a fresh optimiser
                for momentum in self._momenta.values():
                    momentum[row] = 0
        loss_sums, num_correct = self._train_epoch()
        val_losses, val_bits = self._evaluate(self.data.val_inputs, self.data.val_labels)
        test_bits = None
        if self.data.test_inputs is not None and self.data.test_labels is not None:
            _, test_bits = self._evaluate(self.data.test_inputs, self.data.test_labels)
        finite = (self._finite() & loss_sums.isfinite() & val_losses.isfinite()).to(torch.float64)
        sums = torch.stack([loss_sums, num_correct, val_losses, finite]).T.tolist()
        seconds = (time.perf_counter() - start) / len(running)
        return [
            training.add_epoch(sums[i], val_bits[i], None if test_bits is None else test_bits[i], seconds)
            for i, training in enumerate(running)
        ]

    @torch.no_grad()
    def write_back(self) -> None:
        """Bring models and optimisers of the trainings up to date: their ``state_dict`` is then that of now."""
        for row, training in enumerate(self._running()):
            training.model.load_state_dict({k: v[row] for k, v in {**self._parameters, **self._buffers}.items()})
            if training.settings.momentum:
                for name, parameter in training.model.named_parameters():
                    state = training.optimizer.state[parameter]
                    # In the parameter's layout, which torch's fused steps take for granted.
                    state["momentum_buffer"] = torch.empty_like(parameter).copy_(self._momenta[name][row])

    # The stack

    def _still_running(self) -> list[int]:
        pairs = zip(self.trainings, self._stop_at, strict=True)
        return [i for i, (t, stop_at) in enumerate(pairs) if not t.finished and t.epoch < stop_at]

    def _running(self) -> list[Training]:
        """The training of each row of the stack."""
        return [self.trainings[i] for i in self._rows]

    def _stack(self) -> None:
        """Stack weights, buffers and momenta of the trainings that run."""
        running = self._running()
        if not running:
            return
        self._skeleton = running[0].model
        for training in running:
            training.model.train()  # those that have trained were evaluated last; a stack has one mode
        parameters, buffers = stack_module_state([training.model for training in running])
        self._buffers = {k: v.contiguous() for k, v in buffers.items()}
        self._parameters = {k: v.detach().contiguous().requires_grad_() for k, v in parameters.items()}
        self._momenta = {
            # In the layout of the parameters: a step of tensors of several layouts takes many times as many kernels.
            name: torch.stack([_momentum(training, name) for training in running]).contiguous()
            for name in self._parameters
        }

    @torch.no_grad()
    def _drop_ended(self) -> None:
        """Leave out of the stack what has ended."""
        rows = self._still_running()
        if rows == self._rows:
            return
        kept = torch.tensor([self._rows.index(i) for i in rows], device=self.device)
        self.write_back()
        self._rows = rows
        self._parameters = {k: v.detach()[kept].requires_grad_() for k, v in self._parameters.items()}
        self._buffers = {k: v[kept] for k, v in self._buffers.items()}
        self._momenta = {k: v[kept] for k, v in self._momenta.items()}

    # An epoch

    def _train_epoch(self) -> tuple[Tensor, Tensor]:
        """One pass over the training samples; returns each one's sum of losses and number correct."""
        running = self._running()
        epochs = [training.epoch + 1 for training in running]
        settings = [training.settings for training in running]
        rates = [
            0.0 if s.phase(epoch) == "warmup" else s.smooth_rate for s, epoch in zip(settings, epochs, strict=True)
        ]
        lrs = [s.learning_rate(epoch) for s, epoch in zip(settings, epochs, strict=True)]
        rate, lr = torch.tensor(rates, device=self.device), torch.tensor(lrs, device=self.device)
        loss_sums = torch.zeros(len(running), dtype=torch.float64, device=self.device)
        num_correct = torch.zeros_like(loss_sums)
        self._skeleton.train()
        parameters = list(self._parameters.values())
        for inputs, labels in self._batches(epochs):
            logits = self._logits(inputs)
            size = labels.shape[1]
            losses = gls_loss(
                logits.flatten(0, 1),
                labels.flatten(),
                rate.repeat_interleave(size),
                ignore_index=None,
                reduction="none",
            ).view(labels.shape)
            mean = losses.mean(1)
            gradients = torch.autograd.grad(mean.sum(), parameters)
            self._step(gradients, lr)
            loss_sums += mean.detach() * size
            num_correct += (logits.detach().argmax(-1) == labels).sum(-1)
        return loss_sums, num_correct

    def _batches(self, epochs: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of each training: inputs (S, B, ...), or (1, B, ...) if all have the same; labels (S, B)."""
        running = self._running()
        keys = [(training.settings.seed, epoch) for training, epoch in zip(running, epochs, strict=True)]
        first: dict[tuple[int, int], Training] = {}
        for key, training in zip(keys, running, strict=True):
            first.setdefault(key, training)
        drawn = [training.source.draw(training.generator(epoch)) for (_, epoch), training in first.items()]
        orders = torch.stack([order for order, _ in drawn])
        # On the device: a list as an index is copied there in every step, and the host waits for it.
        which = torch.tensor([list(first).index(key) for key in keys], device=self.device)
        own = len(drawn) == len(running)
        for span in running[0].source.spans():
            if self.data.train_inputs.dtype == torch.uint8:
                batches = [running[0].source.take(order[span], draws and draws[span]) for order, draws in drawn]
                inputs, labels = (torch.stack(tensors) for tensors in zip(*batches, strict=True))
            else:
                inputs, labels = running[0].source.take(orders[:, span], None)
            if len(drawn) == 1:
                yield inputs, labels.expand(len(running), -1)
            else:
                yield (inputs, labels) if own else (inputs[which], labels[which])

    @torch.no_grad()
    def _step(self, gradients: Sequence[Tensor], lr: Tensor) -> None:
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
            parameter.addcmul_(update, _over(-lr, update))

    @torch.no_grad()
    def _evaluate(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, np.ndarray]:
        """Return the summed cross-entropy of each training and which samples each gets right, (S, N) bool."""
        self._skeleton.eval()
        members = len(self._rows)
        loss_sums = torch.zeros(members, dtype=torch.float64, device=self.device)
        correct = []
        for batch, target in self._pieces(inputs, labels):
            if self.settings.model == "mlp" and has_fused_layers(batch, self._dtype):
                logits = fused_logits(self._skeleton, self._parameters, batch)
            else:
                logits = self._logits(batch.unsqueeze(0)).float()
            losses = functional.cross_entropy(logits.flatten(0, 1), target.repeat(members), reduction="none")
            loss_sums += losses.view(members, -1).sum(1)
            correct.append(logits.argmax(-1) == target)
        return loss_sums, torch.cat(correct, dim=1).cpu().numpy()

    def _pieces(self, inputs: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Samples to be evaluated at once, normalised."""
        images = inputs.dtype == torch.uint8
        if self.device.type != "cpu":
            size = _EVALUATED_AT_ONCE["images" if images else "flat"]
        elif self.settings.model == "mlp" and has_fused_layers(inputs, self._dtype):
            size = len(inputs)
        else:
            size = max(50, _EVALUATION_VALUES_CPU // len(self._rows))
        for batch, target in zip(torch.split(inputs, size), torch.split(labels, size), strict=True):
            yield normalise(batch, self.data.mean, self.data.std) if images else batch, target

    def _logits(self, inputs: Tensor) -> Tensor:
        """Return the logits of each training, (S, B, K), for inputs (S, B, ...) of each or (1, B, ...) of all."""
        state = {**self._parameters, **self._buffers}
        return stacked_logits(self._skeleton, state, inputs, self._dtype)

    def _finite(self) -> Tensor:
        """Whether the norm of all parameters and floating-point buffers of each is finite: (S,) bool."""
        state = [t for t in {**self._parameters, **self._buffers}.values() if t.is_floating_point()]
        norms = [torch.linalg.vector_norm(t.detach().flatten(1), dim=1) for t in state]
        finite: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0).isfinite()
        return finite


def _momentum(training: Training, name: str) -> Tensor:
    """The momentum of a parameter; zeros, from which it goes on alike, where no step has been taken."""
    parameter = training.model.get_parameter(name)
    momentum = training.optimizer.state.get(parameter, {}).get("momentum_buffer")
    return torch.zeros_like(parameter) if momentum is None else momentum.detach()


def _over(values: Tensor, like: Tensor) -> Tensor:
    """Shape one value a training so that it multiplies that one's part of a stacked tensor."""
    return values.view(-1, *[1] * (like.dim() - 1))
