"""Which losses there are, their papers and their settings: plain data, so that planning a search needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nls_tune.errors import InputError, unknown_name


@dataclass(frozen=True)
class LossInfo:
    """What is known of a loss before torch is there.

    Attributes:
        where: Its class, as ``module:Class``; the module is one of ``nls_tune.losses``.
        paper: Where it comes from.
        formula: The loss of one sample, with logits z, label y, probabilities p = softmax(z) and K classes.
        settings: The training settings that belong to it, each as a search space would write its parameter; defaults
            are those of the paper, on CIFAR-10 where the paper has several.
        needs: What its constructor needs besides them: ``indices``, the numbers of samples and classes, because it
            remembers something per sample; ``matrix``, a transition matrix (rows: clean class).
        takes_probabilities: Whether it takes class probabilities in place of labels.
    """

    where: str
    paper: str
    formula: str
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    needs: Literal["nothing", "indices", "matrix"] = "nothing"
    takes_probabilities: bool = False


def _number(low: float, high: float, default: float, scale: str = "linear") -> dict[str, object]:
    return {"type": "float", "low": low, "high": high, "scale": scale, "default": default}


LOSSES: dict[str, LossInfo] = {
    "ce": LossInfo("ce:CE", "cross-entropy", "-log p_y", takes_probabilities=True),
    "gls": LossInfo(
        "ce:GLS",
        "Wei et al., To Smooth or Not? When Label Smoothing Meets Noisy Labels, ICML 2022",
        "-log p_y + r (z_y - mean(z)); r: smooth_rate",
        {"smooth_rate": _number(-8, 0.8, -0.5, "log1m")},
        takes_probabilities=True,
    ),
    "gce": LossInfo(
        "gce:GCE",
        "Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels, "
        "NeurIPS 2018",
        "(1 - p_y^q) / q; CE at q = 0, half the mean absolute error at q = 1",
        {"gce_q": _number(0.1, 1, 0.7)},
    ),
    "sce": LossInfo(
        "sce:SCE",
        "Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels, ICCV 2019",
        "alpha CE + beta RCE, RCE = 4 (1 - p_y): the reverse cross-entropy with log 0 taken as -4",
        {"sce_alpha": _number(0.01, 10, 0.1, "log"), "sce_beta": _number(0.1, 10, 1, "log")},
    ),
    "nce_rce": LossInfo(
        "nce_rce:NCEAndRCE",
        "Ma et al., Normalized Loss Functions for Deep Learning with Noisy Labels, ICML 2020",
        "alpha NCE + beta RCE, NCE = log p_y / sum_k log p_k, RCE = -ln(0.0001) (1 - p_y)",
        {"nce_rce_alpha": _number(0.1, 10, 1, "log"), "nce_rce_beta": _number(0.1, 10, 1, "log")},
    ),
    "forward": LossInfo(
        "corrected:Forward",
        "Patrini et al., Making Deep Neural Networks Robust to Label Noise: A Loss Correction Approach, CVPR 2017",
        "-log (T' p)_y with the transition matrix T",
        needs="matrix",
    ),
    "backward": LossInfo(
        "corrected:Backward",
        "Patrini et al., Making Deep Neural Networks Robust to Label Noise: A Loss Correction Approach, CVPR 2017",
        "-sum_k (T^-1)_yk log p_k with the transition matrix T; unbounded below",
        needs="matrix",
    ),
    "elr": LossInfo(
        "elr:ELR",
        "Liu et al., Early-Learning Regularization Prevents Memorization of Noisy Labels, NeurIPS 2020",
        "CE + lambda log(1 - t'p); t: running mean of the sample's probabilities, t <- beta t + (1 - beta) p",
        {"elr_lambda": _number(0.5, 10, 3, "log"), "elr_beta": _number(0.5, 0.99, 0.7)},
        needs="indices",
    ),
    "ce_eps_mae": LossInfo(
        "ce_eps_mae:CEEpsAndMAE",
        "Wang et al., epsilon-Softmax: Approximating One-Hot Vectors for Mitigating Label Noise, NeurIPS 2024",
        "alpha CE_eps + beta MAE, CE_eps = -log((p_y + m [y is the likeliest class]) / (m + 1)), MAE = 2 (1 - p_y)",
        {
            "ce_eps_mae_alpha": _number(0.001, 1, 0.01, "log"),
            "ce_eps_mae_beta": _number(0.5, 10, 5, "log"),
            "ce_eps_mae_m": _number(100, 100_000, 100_000, "log"),
        },
    ),
    "bootstrap": LossInfo(
        "bootstrap:Bootstrap",
        "Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping, ICLR workshop 2015",
        "CE against beta onehot(y) + (1 - beta) t; t: the likeliest class (kind hard) or p (soft)",
        {
            "bootstrap_beta": _number(0.5, 1, 0.8),
            "bootstrap_kind": {"type": "choice", "values": ["hard", "soft"], "default": "hard"},
        },
    ),
}
"""The losses by name."""

LOSS_SETTINGS: dict[str, str] = {
    setting: name for name, info in LOSSES.items() if name != "gls" for setting in info.settings
}
"""The loss that a training setting belongs to, for the settings of other losses than GLS."""


def check_loss(name: str) -> None:
    """Raise an InputError unless a loss exists, or its name is ``module.path:Class``, which is not imported here."""
    module, colon, attribute = name.partition(":")
    own = bool(colon) and all(part.isidentifier() for part in [*module.split("."), attribute])
    if name not in LOSSES and not own:
        raise (
            unknown_name("loss", name, LOSSES)
            if not colon
            else InputError(f"a loss of your own must be written module.path:Class, got {name!r}")
        )


def loss_info(name: str) -> LossInfo:
    """Return what is known of a loss; one's own remembers what it likes per sample, and has no settings."""
    check_loss(name)
    return LOSSES.get(name) or LossInfo(name, "a class of your own", "", needs="indices")


def check_takes_probabilities(name: str, level: str) -> None:
    """Raise an InputError unless a loss takes the class probabilities that a noise level has in place of labels."""
    if not loss_info(name).takes_probabilities:
        able = " and ".join(one for one, info in LOSSES.items() if info.takes_probabilities)
        raise InputError(
            f"noise level {level!r} trains on class probabilities, and loss {name} takes one label per sample; {able} "
            "take them: leave out the level, or the loss"
        )
