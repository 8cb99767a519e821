"""Generalised label smoothing (GLS): one loss for smoothing (rate > 0), cross-entropy (0) and negation (< 0).

Wei et al., "To Smooth or Not? When Label Smoothing Meets Noisy Labels", ICML 2022. torch's own
``cross_entropy(label_smoothing=r)`` cannot be used: for r < 0 it silently returns plain cross-entropy.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Protocol, cast

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own spelling)
from torch import Tensor, nn

_REDUCTIONS = ("none", "mean", "sum")
#: Stands for "none" in torch's own losses, which must be given a number.
_NO_LABEL = -100


def gls_loss(
    logits: Tensor,
    targets: Tensor,
    smooth_rate: float | Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy against ``(1 - r) * onehot(y) + r / K``, where the smooth rate r may be negative.

    Per sample, with logits z, label y and K classes, the loss is ``CE(z, y) + r * (z[y] - mean(z))`` and
    its gradient ``softmax(z) - (1 - r) * onehot(y) - r / K`` (Wei et al., ICML 2022); class probabilities may stand
    for ``onehot(y)``. It takes the place of ``torch.nn.functional.cross_entropy``: ``weight``, ``ignore_index`` and
    ``reduction`` mean what they mean there with ``label_smoothing=r``, at every rate. For r < 0 it has no
    lower bound. It can be differentiated twice, compiled (``fullgraph=True``) and used under ``torch.func``. NaN logits
    give a NaN loss, never an error.

    Args:
        logits: Shape (C,), (N, C) or (N, C, d1, ...), floating; bfloat16 and float16 are computed in float32, inside
            and outside autocast.
        targets: Class indices, int64 or uint8, of shape (), (N,) or (N, d1, ...); or class probabilities, floating, of
            the shape of ``logits``. These are not checked, and ``ignore_index`` does not concern them.
        smooth_rate: A finite number of at most 1; or a 0-dim floating tensor, which never recompiles a compiled caller;
            or one rate per sample, a tensor of the shape of class indices or (N,). Tensors may require gradients.
        weight: One weight per class, shape (C,). The smoothing term is weighted as well, as in torch.
        ignore_index: The label whose samples count neither in the loss nor in the mean. None says that every label is
            a class, 0 to C - 1: labels are then not checked, and the mean takes fewer passes over them.
        reduction: ``"mean"`` (divided by the sum of ``weight[y]``, without ignored samples; for class probabilities by
            N, as in torch), ``"sum"`` or ``"none"``.

    Returns:
        float32, or float64 for float64 logits; 0-dim, or one per sample for ``"none"``. The mean over none is NaN.

    Raises:
        ValueError: A rate above 1 or not finite, shapes that do not fit, an unknown reduction, or a label out of range.
            Values in tensors are checked on the CPU alone, and neither under ``torch.func.vmap`` nor while compiling.
        TypeError: A dtype or type that cannot be used, such as class indices of dtype int32.
    """
    _check_reduction(reduction)
    _check_tensors(logits, targets, weight)
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    rate = _broadcast_rate(_checked_rate(smooth_rate), logits)
    weight = None if weight is None else weight.to(logits.dtype)
    class_axis = 1 if logits.ndim > 1 else 0
    if targets.is_floating_point():
        return _of_probabilities(logits, targets.to(logits.dtype), rate, weight, reduction)
    targets = targets.long()
    if ignore_index is None:
        none_ignored, ignore_index = targets.numel() > 0, _NO_LABEL
    else:
        none_ignored = _check_labels(targets, logits.shape[class_axis], ignore_index)
    if not isinstance(rate, Tensor) and rate == 0:
        # Plain cross-entropy, and 0 * inf would turn masked logits (-inf) into NaN.
        return F.cross_entropy(logits, targets, weight=weight, ignore_index=ignore_index, reduction=reduction)
    log_p = torch.log_softmax(logits, class_axis)
    one_rate = not isinstance(rate, Tensor) or rate.ndim == 0
    if none_ignored and one_rate and weight is None and reduction != "none":
        return _reduced(log_p, targets, rate, reduction)
    return _per_sample(log_p, targets, rate, weight, ignore_index, reduction)


class HasLogits(Protocol):
    """What a model returns that has its logits as an attribute."""

    logits: Tensor


class GLSLoss(nn.Module):
    """``gls_loss`` as a module, with its arguments; takes the place of ``torch.nn.CrossEntropyLoss``.

    A rate that is a tensor becomes a buffer outside ``state_dict`` (so that the state stays that of
    ``CrossEntropyLoss``), an ``nn.Parameter`` a parameter. ``weight`` is a buffer, as in ``CrossEntropyLoss``.

    Raises:
        ValueError: A rate above 1 or not finite, or an unknown reduction.
        TypeError: A rate or weight of a type that cannot be used.
    """

    smooth_rate: float | Tensor
    weight: Tensor | None

    def __init__(
        self,
        smooth_rate: float | Tensor,
        *,
        weight: Tensor | None = None,
        ignore_index: int | None = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        _check_reduction(reduction)
        rate = _checked_rate(smooth_rate)
        if isinstance(rate, Tensor) and not isinstance(rate, nn.Parameter):
            self.register_buffer("smooth_rate", rate, persistent=False)
        else:
            self.smooth_rate = rate
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction

    def forward(
        self, logits: Tensor | HasLogits, targets: Tensor, num_items_in_batch: float | Tensor | None = None
    ) -> Tensor:
        """Return the loss of ``logits`` against ``targets``: shapes, dtypes and errors as in ``gls_loss``.

        So that it can be a ``compute_loss_func`` of Hugging Face's Trainer, ``logits`` may be an output that has them,
        and with ``num_items_in_batch``, the labels of all batches of an accumulated step, the mean is over these.
        """
        shared = num_items_in_batch is not None and self.reduction == "mean"
        loss = gls_loss(
            logits if isinstance(logits, Tensor) else logits.logits,
            targets,
            self.smooth_rate,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction="sum" if shared else self.reduction,
        )
        return loss / num_items_in_batch if shared and num_items_in_batch is not None else loss

    def extra_repr(self) -> str:
        """Return what ``print`` shows between the brackets."""
        rate = self.smooth_rate
        if isinstance(rate, Tensor):
            shown = f"{rate.item():g}" if rate.ndim == 0 else f"tensor of shape {tuple(rate.shape)}"
        else:
            shown = f"{rate:g}"
        return f"smooth_rate={shown}, ignore_index={self.ignore_index}, reduction={self.reduction!r}"


def _reduced(log_p: Tensor, targets: Tensor, rate: float | Tensor, reduction: str) -> Tensor:
    """Return the mean or sum where one rate holds for all and nothing is ignored or weighted.

    Summing all log-probabilities at once leaves one number where the general form keeps a vector, and the
    order saves a pass over memory: backward visits the later node first, so the label's gradient becomes a
    fresh buffer to which that of the sum, a broadcast number, is added in place. It is faster than a fused
    ``autograd.Function`` with a backward of its own (``benchmarks/loss.py`` measures both).
    """
    total = log_p.sum()
    nll = F.nll_loss(log_p, targets, reduction=reduction)
    samples = targets.numel() if reduction == "mean" else 1
    classes = log_p.numel() // targets.numel()
    return (1 - rate) * nll - _smoothing(total, rate, 1 / (classes * samples))


def _per_sample(
    log_p: Tensor, targets: Tensor, rate: float | Tensor, weight: Tensor | None, ignore_index: int, reduction: str
) -> Tensor:
    """Return the loss in its general form: weights, ignored samples, one rate per sample, any reduction."""
    class_axis = 1 if log_p.ndim > 1 else 0
    classes = log_p.shape[class_axis]
    if weight is None:
        total = log_p.sum(class_axis)
    else:
        total = (log_p.movedim(class_axis, -1) * weight).sum(-1)
    nll = F.nll_loss(log_p, targets, weight=weight, ignore_index=ignore_index, reduction="none")
    losses = (1 - rate) * nll - _smoothing(total, rate, 1 / classes)
    counted = targets != ignore_index
    losses = torch.where(counted, losses, 0.0)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if weight is None:
        return losses.sum() / counted.sum()
    # gather, not weight[targets]: a 0-dim index would read its value, which torch.func.vmap forbids.
    label_weights = weight.gather(0, torch.where(counted, targets, 0).reshape(-1))
    return losses.sum() / torch.where(counted.reshape(-1), label_weights, 0.0).sum()


def _of_probabilities(
    logits: Tensor, targets: Tensor, rate: float | Tensor, weight: Tensor | None, reduction: str
) -> Tensor:
    """Return the loss against ``(1 - r) p + r / K`` for class probabilities p of the shape of ``logits``."""
    if not isinstance(rate, Tensor) and rate == 0:
        return F.cross_entropy(logits, targets, weight=weight, reduction=reduction)
    class_axis = 1 if logits.ndim > 1 else 0
    log_p = torch.log_softmax(logits, class_axis)
    if weight is not None:
        log_p = log_p * weight.reshape(-1, *(1 for _ in logits.shape[class_axis + 1 :]))
    nll = -(targets * log_p).sum(class_axis)
    losses = (1 - rate) * nll - _smoothing(log_p.sum(class_axis), rate, 1 / logits.shape[class_axis])
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()


def _smoothing(total: Tensor, rate: float | Tensor, share: float) -> Tensor:
    """Return ``rate * share * total``, and 0 at rate 0 even where masked logits (-inf) make the total infinite.

    A finite total is kept at rate 0: the gradient with respect to the rate is made of it.
    """
    if isinstance(rate, Tensor):
        return rate * share * torch.where((rate == 0) & ~total.isfinite(), 0.0, total)
    return total * (rate * share)


def _check_reduction(reduction: str) -> None:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(_REDUCTIONS)}, got {reduction!r}")


def _check_tensors(logits: Tensor, targets: Tensor, weight: Tensor | None) -> None:
    """Refuse dtypes and shapes that do not fit, by what the tensors are, not by what is in them."""
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}; convert them with logits.float()")
    shape, dtype = logits.shape, targets.dtype
    if not shape:
        raise ValueError("logits must have a class axis, shape (C,), (N, C) or (N, C, d1, ...), got shape ()")
    expected = shape[:1] + shape[2:] if len(shape) > 1 else shape[1:]
    if dtype.is_floating_point and targets.shape != shape:
        raise TypeError(
            f"targets must be class indices of dtype int64 or uint8, or class probabilities of the shape of logits "
            f"{tuple(shape)}, got {dtype} of shape {tuple(targets.shape)}"
        )
    if not dtype.is_floating_point:
        if dtype is not torch.int64 and dtype is not torch.uint8:
            raise TypeError(
                f"targets must be class indices of dtype int64 or uint8, got {dtype}; convert them with targets.long()"
            )
        if targets.shape != expected:
            raise ValueError(
                f"targets must have the shape of logits {tuple(shape)} without the class axis, {tuple(expected)}, "
                f"got {tuple(targets.shape)}"
            )
    if weight is not None:
        if not isinstance(weight, Tensor):
            raise TypeError(f"weight must be a tensor, got {weight!r}; convert it with torch.tensor(weight)")
        classes = shape[1] if len(shape) > 1 else shape[0]
        if not weight.is_floating_point():
            raise TypeError(f"weight must be floating point, got {weight.dtype}; convert it with weight.float()")
        if weight.shape != (classes,):
            raise ValueError(f"weight must have one entry per class, shape ({classes},), got {tuple(weight.shape)}")


def _checked_rate(rate: object) -> float | Tensor:
    """Return the rate as a float or a tensor, or refuse it."""
    rule = "smooth_rate must be finite and at most 1"
    if isinstance(rate, Tensor):
        if not rate.is_floating_point():
            raise TypeError(f"smooth_rate must be floating point, got a {rate.dtype} tensor; use rate.float()")
        bounds = _bounds(rate)
        if bounds is not None and not (-math.inf < bounds[0] and bounds[1] <= 1):
            raise ValueError(f"{rule}, got a tensor with values from {bounds[0]:g} to {bounds[1]:g}; clamp it")
        return rate
    if torch.compiler.is_compiling():
        return cast("float", rate)  # symbolic: a comparison would specialise the graph to this rate
    if isinstance(rate, bool) or not isinstance(rate, Real):
        raise TypeError(f"smooth_rate must be a number or a torch tensor, got {type(rate).__name__}")
    rate = float(rate)
    if not -math.inf < rate <= 1:
        raise ValueError(f"{rule}, got {rate:g}; use 1 or less, below 0 for negative label smoothing")
    return rate


def _broadcast_rate(rate: float | Tensor, logits: Tensor) -> float | Tensor:
    """Return the rate in the dtype of ``logits`` and a shape that broadcasts over the samples, or refuse it."""
    if not isinstance(rate, Tensor):
        return rate
    rate, samples = rate.to(logits.dtype), logits.shape[:1] + logits.shape[2:] if logits.ndim > 1 else logits.shape[1:]
    if rate.ndim == 0 or rate.shape == samples:
        return rate
    if logits.ndim > 1 and rate.shape == logits.shape[:1]:
        return rate.reshape(-1, *(1 for _ in samples[1:]))
    raise ValueError(
        f"smooth_rate must be a number, a 0-dim tensor or one rate per sample, shape {tuple(samples)}"
        f"{f' or {tuple(samples[:1])}' if len(samples) > 1 else ''}, got shape {tuple(rate.shape)}"
    )


def _check_labels(targets: Tensor, classes: int, ignore_index: int) -> bool:
    """Refuse labels out of range where they can be read; return whether it is known that none is ignored."""
    bounds = _bounds(targets)
    if bounds is None:
        return False
    low, high = bounds
    if low >= 0 and high < classes:
        return not low <= ignore_index <= high
    wrong = targets[((targets < 0) | (targets >= classes)) & (targets != ignore_index)]
    if wrong.numel():
        raise ValueError(
            f"targets must be 0 to {classes - 1} or ignore_index ({ignore_index}), got {int(wrong[0])}; "
            "renumber the labels or give the model more outputs"
        )
    return False


def _bounds(tensor: Tensor) -> tuple[float, float] | None:
    """Return the smallest and largest value (NaN if there is one), or None where they cannot be had at once."""
    if tensor.device.type != "cpu" or torch.compiler.is_compiling() or not tensor.numel():
        return None
    try:
        low, high = torch.aminmax(tensor.detach())
        return low.item(), high.item()
    except RuntimeError:  # under torch.func.vmap and with fake tensors no value can be read
        return None
