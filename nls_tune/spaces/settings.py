"""The settings of one training: plain data, checked, free of torch, so that planning and reading need none."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nls_tune.errors import InputError, unknown_name
from nls_tune.losses.registry import LOSS_SETTINGS, LOSSES, check_loss
from nls_tune.metrics import Objective
from nls_tune.spaces.networks import LIBRARIES, is_own, split_fingerprint

#: A part of the smooth rate's range: ``ce`` (exactly 0), ``positive`` or ``negative``; or the name of another loss.
Arm = str
#: The arms of generalised label smoothing (GLS) and of cross-entropy, which is GLS at rate 0.
RATE_ARMS: tuple[Arm, ...] = ("ce", "positive", "negative")

Phase = Literal["warmup", "gls"]

#: Settings that a CE warm-up's epochs do not depend on: trainings that differ in nothing else share them.
_NOT_OF_WARMUP = (
    "loss", *LOSS_SETTINGS, "transition",
    "smooth_rate", "warmup_epochs", "lr", "schedule", "milestones", "gamma", "epochs",
)  # fmt: skip

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Epochs = Annotated[int, Field(ge=1)]
_Span = Annotated[float, Field(gt=0, le=1)]

#: The one cycle: share of the steps in which the learning rate rises, and its first and last value over the peak.
_RISE, _FIRST, _LAST = 0.23, 0.2, 0.07

_T = TypeVar("_T")
#: A setting that runs of version 0.1 do not have. At its default it changes nothing, neither a training nor its name:
#: rows, names and saved states that lack it mean the default.
Later = Annotated[_T, "later"]


class TrainingSettings(BaseModel):
    """Everything that decides what a training computes, apart from its data.

    Epochs ``1..warmup_epochs`` train with cross-entropy (CE) at ``warmup_lr``; the rest, the GLS phase, train with the
    ``loss`` at ``lr``, with a fresh optimiser: by default generalised label smoothing (GLS). The warm-up's
    learning rate depends on the absolute epoch alone, never on the warm-up's length, so that warm-ups of
    different lengths are prefixes of each other.

    Attributes:
        model: Name of the network, see ``nls_tune.spaces.networks``.
        weights: Weights that the network starts from: ``default``, those that torchvision or timm has for it, or a file
            ``.pth`` or ``.safetensors``. By default they are drawn at random.
        freeze: Trains the last layer alone; what comes before it keeps its weights, and batch norm its statistics.
        epochs: Number of epochs, warm-up included.
        loss: Loss of the GLS phase: ``gls``, another name of ``nls_tune.losses.LOSSES``, or ``module.path:Class``.
        gce_q: Exponent q of loss ``gce``; 0 is CE, 1 half the mean absolute error.
        sce_alpha: Weight of CE in loss ``sce``.
        sce_beta: Weight of the reverse cross-entropy there.
        nce_rce_alpha: Weight of the normalised cross-entropy in loss ``nce_rce``.
        nce_rce_beta: Weight of the reverse cross-entropy there.
        elr_lambda: Weight of the regulariser of loss ``elr``; 0 is CE.
        elr_beta: Share of a sample's target that its next prediction leaves of it in loss ``elr``.
        ce_eps_mae_alpha: Weight of the epsilon-softmax cross-entropy in loss ``ce_eps_mae``.
        ce_eps_mae_beta: Weight of the mean absolute error there.
        ce_eps_mae_m: What the epsilon-softmax adds to the likeliest class there.
        bootstrap_beta: Share of the label in the target of loss ``bootstrap``; 1 is CE.
        bootstrap_kind: The rest of that target: the likeliest class (``hard``), or all probabilities (``soft``).
        transition: Transition matrix of the losses ``forward`` and ``backward``: ``estimate``, from the noisy labels;
            ``matrix:FILE``; or ``true_noise``, that of the level's synthetic noise, which no user of real data knows.
        class_weights: Weights of the samples' losses by their labels, in the warm-up as well: ``none``, or
            ``balanced``, ``n / (K * n_c)`` for the n_c of n training labels that are of class c, wrong ones included;
            the mean of a batch is divided by the sum of its weights. For every loss but one of your own.
        smooth_rate: Rate r of the GLS target ``(1 - r) * onehot + r / K``; 0 is CE, at most 1, any negative. It is 0
            for other losses.
        warmup_epochs: CE epochs before the GLS phase; at least one GLS epoch follows.
        lr: Learning rate at the start of the GLS phase.
        schedule: What the GLS phase does with ``lr``: ``constant``; ``step``, multiplied by ``gamma`` after each
            of ``milestones`` (counted from the start of the phase); ``cosine``, down towards 0 at its end;
            ``one_cycle``, step by step over the whole training: up from a fifth of the peak over the first 23 % of
            the steps, then down to 7 %, where ``warmup_lr`` is the peak in the warm-up and ``lr`` in the GLS phase.
        warmup_lr: Learning rate of the warm-up's first epoch; with ``one_cycle`` its peak.
        warmup_milestones: Absolute epochs after which the warm-up's learning rate is multiplied by
            ``warmup_gamma``.
        warmup_momentum: Momentum of the warm-up, by default ``momentum``; 0 is plain SGD, whatever ``nesterov`` says.
        warmup_weight_decay: Weight decay of the warm-up, by default ``weight_decay``.
        warmup_from: Weights that the GLS phase starts from: those after the ``last`` epoch of the warm-up, or after its
            ``best`` one by validation accuracy, smoothed as for a trial's best epoch.
        optimizer: ``sgd`` (with ``momentum``, ``nesterov``) or ``adamw``.
        weight_decay: L2 penalty (SGD) or decoupled decay (AdamW).
        norm_bias_lr_factor: Learning rate of batch norm's biases over that of the other parameters; their decay per
            step stays that of the others.
        batch_size: Samples per step; the last batch of an epoch may be smaller, no sample is dropped.
        crop_padding: Pixels of padding of the random crop; 0 turns it off.
        padding_mode: What the padding shows: ``zeros``, or the image mirrored at its border, ``reflect``.
        flip: Random horizontal flips.
        alternate_flip: Flips an image, where ``flip`` is on, in every second epoch: at random in the first epoch, and
            then always the other way round.
        cutout: Side in pixels of the square that cutout blanks; 0 turns it off.
        clip_norm: Largest global norm of a gradient; 0 turns clipping off.
        precision: ``float32``, ``bfloat16`` (autocast; the loss stays in float32), or ``auto``: bfloat16 where the
            hardware computes it (for images on CPUs with AVX512-BF16 or AMX, for everything on GPUs that have it),
            else float32.
        average_spans: Running averages of the weights that are judged beside the weights themselves: one for each
            span, the share of a phase's steps so far over which it reaches back (0.2: about the last fifth).
        seed: Decides initialisation, order, augmentation and dropout.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "resnet34"
    weights: Later[Annotated[str | None, Field(min_length=1)]] = None
    freeze: Later[bool] = False
    epochs: _Epochs = 100
    loss: Later[str] = "gls"
    gce_q: Later[Annotated[float, Field(ge=0, le=1)]] = 0.7
    sce_alpha: Later[_NonNegative] = 0.1
    sce_beta: Later[_NonNegative] = 1.0
    nce_rce_alpha: Later[_NonNegative] = 1.0
    nce_rce_beta: Later[_NonNegative] = 1.0
    elr_lambda: Later[_NonNegative] = 3.0
    elr_beta: Later[Annotated[float, Field(ge=0, lt=1)]] = 0.7
    ce_eps_mae_alpha: Later[_NonNegative] = 0.01
    ce_eps_mae_beta: Later[_NonNegative] = 5.0
    ce_eps_mae_m: Later[_NonNegative] = 1e5
    bootstrap_beta: Later[Annotated[float, Field(ge=0, le=1)]] = 0.8
    bootstrap_kind: Later[Literal["hard", "soft"]] = "hard"
    transition: Later[str] = "estimate"
    class_weights: Later[Literal["none", "balanced"]] = "none"
    smooth_rate: Annotated[float, Field(le=1, allow_inf_nan=False)] = 0.0
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    lr: _Positive = 0.01
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "constant"
    milestones: tuple[_Epochs, ...] = ()
    gamma: _Positive = 0.1
    warmup_lr: _Positive = 0.1
    warmup_milestones: tuple[_Epochs, ...] = ()
    warmup_gamma: _Positive = 0.1
    warmup_momentum: Later[Annotated[float | None, Field(ge=0, lt=1)]] = None
    warmup_weight_decay: Later[Annotated[float | None, Field(ge=0, allow_inf_nan=False)]] = None
    warmup_from: Later[Literal["last", "best"]] = "last"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: _NonNegative = 5e-4
    norm_bias_lr_factor: Later[_Positive] = 1.0
    batch_size: Annotated[int, Field(ge=2)] = 128
    crop_padding: Annotated[int, Field(ge=0)] = 0
    padding_mode: Later[Literal["zeros", "reflect"]] = "zeros"
    flip: bool = False
    alternate_flip: Later[bool] = False
    cutout: Annotated[int, Field(ge=0)] = 0
    clip_norm: _NonNegative = 0.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    average_spans: Later[tuple[_Span, ...]] = ()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _check_together(self) -> TrainingSettings:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must leave at least one GLS epoch, got {self.warmup_epochs} of {self.epochs} "
                "epochs; lower warmup_epochs or raise epochs"
            )
        if self.weights == "default" and self.model.partition(":")[0] not in LIBRARIES:
            raise ValueError(f"weights default is for torchvision:NAME and timm:NAME, not {self.model}; give a file")
        if self.freeze and self.weights is None and not is_own(self.model):
            raise ValueError(f"freeze would keep random weights of {self.model}; give weights, default or a file")
        check_loss(self.loss)
        if self.loss != "gls" and self.smooth_rate != 0:
            raise ValueError(f"smooth_rate must be 0 with loss {self.loss}, got {self.smooth_rate:g}; use loss gls")
        if self.class_weights != "none" and ":" in self.loss:
            raise ValueError(f"class_weights must be none with a loss of your own, {self.loss}; weigh in it")
        kind, _, file = self.transition.partition(":")
        if self.transition not in ("estimate", "true_noise") and not (kind == "matrix" and file):
            raise ValueError(f"transition must be estimate, true_noise or matrix:FILE, got {self.transition!r}")
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, got 0; set nesterov to false or raise momentum")
        return self

    @classmethod
    def later_defaults(cls) -> dict[str, object]:
        """Return the defaults of the settings that are ``Later``, by name."""
        return {name: info.default for name, info in cls.model_fields.items() if "later" in info.metadata}

    def identity(self) -> dict[str, object]:
        """Return the settings as plain JSON values, but for ``Later`` ones at their defaults.

        A file of weights counts by its content, wherever it lies.
        """
        unchanged = {name for name, default in self.later_defaults().items() if getattr(self, name) == default}
        values = self.model_dump(mode="json", exclude=unchanged)
        if self.weights is not None:
            values["weights"] = split_fingerprint(self.weights)[1] or self.weights
        return values

    @property
    def arm(self) -> Arm:
        """The arm that this training belongs to: that of its rate, or its loss where that is not GLS."""
        return arm_of(self.smooth_rate) if self.loss == "gls" else self.loss

    def loss_settings(self) -> dict[str, object]:
        """Return the settings of the loss by their names, without the matrix."""
        names = ["smooth_rate"] if self.loss == "gls" else [n for n, loss in LOSS_SETTINGS.items() if loss == self.loss]
        return {name: getattr(self, name) for name in names}

    def loss_text(self) -> str:
        """Name the loss with its settings: ``smooth_rate -1``, ``gce, gce_q 0.7``."""
        values = {n: f"{v:g}" if isinstance(v, float) else v for n, v in self.loss_settings().items()}
        of_loss = [f"{name} {value}" for name, value in values.items()]
        return ", ".join(of_loss if self.loss == "gls" else [self.loss, *of_loss])

    @property
    def first_counting_epoch(self) -> int:
        """The first epoch that may be the best one: the first of the GLS phase, for CE the first of all.

        No trial may win by its CE warm-up; for CE the warm-up is what is compared.
        """
        return 1 if self.arm == "ce" else self.warmup_epochs + 1

    @property
    def trains_on_features(self) -> bool:
        """Whether what enters the only layer that learns is the same in every epoch."""
        return self.freeze and not (self.crop_padding or self.flip or self.cutout)

    @property
    def objective(self) -> Objective:
        """The epoch that counts where the user names none: the last one of a cycle, else the best one."""
        return "last" if self.schedule == "one_cycle" else "best"

    def warmup_settings(self) -> dict[str, object]:
        """Return the settings that shape a warm-up epoch, as plain JSON values."""
        kept = ("schedule", "epochs") if self.schedule == "one_cycle" else ()
        unused = {n for n in ("momentum", "weight_decay") if getattr(self, f"warmup_{n}") is not None}
        unused |= set(_NOT_OF_WARMUP) - set(kept)
        return {name: value for name, value in self.identity().items() if name not in unused}

    def gls_epochs(self, epoch: int) -> int:
        """How many of the epochs up to a 1-based epoch belong to the GLS phase: the clock that rungs count in."""
        return max(0, epoch - self.warmup_epochs)

    def rung_epoch(self, rung: int) -> int | None:
        """The epoch at which a rung judges this training; None if it ends first."""
        epoch = self.warmup_epochs + rung
        return epoch if epoch < self.epochs else None

    def phase(self, epoch: int) -> Phase:
        """The phase of a 1-based epoch."""
        return "warmup" if epoch <= self.warmup_epochs else "gls"

    def momentum_at(self, epoch: int) -> float:
        """The momentum of a 1-based epoch, where the optimiser has one."""
        own = self.warmup_momentum if self.phase(epoch) == "warmup" else None
        return self.momentum if own is None else own

    def weight_decay_at(self, epoch: int) -> float:
        """The weight decay of a 1-based epoch."""
        own = self.warmup_weight_decay if self.phase(epoch) == "warmup" else None
        return self.weight_decay if own is None else own

    def learning_rate(self, epoch: int, progress: float = 0.0) -> float:
        """The learning rate of a 1-based epoch, of whose steps the share ``progress`` is done.

        It is constant within an epoch, but for ``one_cycle``.
        """
        if self.schedule == "one_cycle":
            peak = self.warmup_lr if self.phase(epoch) == "warmup" else self.lr
            done = (epoch - 1 + progress) / self.epochs
            if done < _RISE:
                return peak * (_FIRST + (1 - _FIRST) * done / _RISE)
            return peak * (1 - (1 - _LAST) * (done - _RISE) / (1 - _RISE))
        if self.phase(epoch) == "warmup":
            return self.warmup_lr * self.warmup_gamma ** sum(epoch > m for m in self.warmup_milestones)
        done = epoch - self.warmup_epochs - 1
        if self.schedule == "step":
            return self.lr * self.gamma ** sum(done >= m for m in self.milestones)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * done / (self.epochs - self.warmup_epochs)))
        return self.lr


def arm_of(smooth_rate: float) -> Arm:
    """Return the arm of a smooth rate: ``ce`` (exactly 0), ``positive`` or ``negative``."""
    if smooth_rate == 0:
        return "ce"
    return "positive" if smooth_rate > 0 else "negative"


def method_of(arm: Arm) -> str:
    """Return the method that an arm is a part of: ``gls`` has two, every other method one of its own name."""
    return "gls" if arm in ("positive", "negative") else arm


def ordered_arms(arms: Iterable[Arm]) -> list[Arm]:
    """Return arms, each once: those of the rate, the other losses as the registry has them, then one's own."""
    known = [*RATE_ARMS, *LOSSES]
    return sorted(set(arms), key=lambda arm: (known.index(arm) if arm in known else len(known), arm))


#: Settings that have a column of their own in the trials table; every other one is ``config_<name>``.
OWN_COLUMNS = ("smooth_rate", "warmup_epochs", "lr", "seed")


def column_of(setting: str) -> str:
    """Return the column of the trials table that holds a setting."""
    return setting if setting in OWN_COLUMNS else f"config_{setting}"


def describe_validation_error(error: ValidationError, where: str = "", skip: Collection[str] = ()) -> str:
    """Turn pydantic's report into one line: place, rule and value of the first problem, and how many more there are.

    ``where``, for example a file name, stands before the message; the parts ``skip`` of a place are not the user's.
    """
    first, more = error.errors()[0], error.error_count() - 1
    key = ".".join(str(part) for part in first["loc"] if part not in skip)
    rule = first["msg"].removeprefix("Value error, ")
    value = first.get("input")
    shown = f", got {value!r}" if isinstance(value, str | int | float | bool | list | None) and key else ""
    place = ": ".join(part for part in (where, key) if part)
    tail = f" (and {more} more)" if more else ""
    said = f"got {value!r}" in rule or "got '" in rule
    return f"{place}: {rule}{'' if said else shown}{tail}" if place else f"{rule}{tail}"


def unknown_setting(name: str) -> InputError:
    """Return the error for a training setting that does not exist, with the nearest one."""
    return unknown_name("training setting", name, TrainingSettings.model_fields)


def check_training_settings(values: Mapping[str, object], where: str = "") -> TrainingSettings:
    """Return the checked settings of a training, or raise InputError: ``where``, place, rule, and the nearest name."""
    for name in values:
        if name not in TrainingSettings.model_fields:
            error = unknown_setting(name)
            raise InputError(f"{where}: {error}" if where else str(error))
    try:
        return TrainingSettings.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(describe_validation_error(error, where)) from None


def check_fit(settings: TrainingSettings, num_train: int, input_shape: tuple[int, ...]) -> None:
    """Raise an InputError if the batch is larger than the data, or image settings do not fit the inputs' shape."""
    if settings.batch_size > num_train:
        raise InputError(
            f"batch_size must be at most the {num_train} training samples, got {settings.batch_size}; "
            "lower it with --set batch_size=N"
        )
    image = len(input_shape) == 3
    for name in ("crop_padding", "flip", "cutout"):
        value = getattr(settings, name)
        if value and not image:
            raise InputError(f"{name} is for images, the inputs have shape {input_shape}; set {name} to 0")
        if image and value > min(input_shape[1:]):
            raise InputError(f"{name} must be at most the image's side {min(input_shape[1:])}, got {value}")
