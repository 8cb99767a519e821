"""Numbers and configurations as text: accuracies as percentages, times in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nls_tune.analysis.confirmation import ConfirmedConfiguration
from nls_tune.analysis.statistics import SampleMean
from nls_tune.losses.registry import LOSS_SETTINGS
from nls_tune.metrics import Metric
from nls_tune.runs.schemas import ON_ALL_LABELS, objective_columns
from nls_tune.spaces.settings import RATE_ARMS, Arm

#: What stands where there is no value.
NONE = "–"
_METRICS: dict[Metric, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
}
#: The settings that every configuration has, and the loss, which its arm names.
_ALWAYS = ("smooth_rate", "warmup_epochs", "lr", "loss")


def of_metric(text: str, metrics: Iterable[Metric]) -> str:
    """Return a text about accuracy as one about what runs select by, which need not be the same for all of them."""
    known = set(metrics) or {"accuracy"}
    name = _METRICS[known.pop()] if len(known) == 1 else "metric"
    return text.replace("accuracy", name).replace("Accuracy", name[0].upper() + name[1:])


def percent(value: float | None, digits: int = 1) -> str:
    """Write a fraction as a percentage; a dash where there is none."""
    return NONE if value is None else f"{100 * value:.{digits}f} %"


def points(value: float, digits: int = 1) -> str:
    """Write a difference of fractions in percentage points, with its sign."""
    shown = round(100 * value, digits) + 0.0  # adding 0 turns -0.0 into 0.0
    return f"{shown:+.{digits}f}".replace("-", "−")


def rate(value: float | None) -> str:
    """Write a smooth rate; a dash where there is none."""
    return NONE if value is None else f"{value + 0.0:.4g}".replace("-", "−")


def number(value: float) -> str:
    """Write a learning rate or another setting shortly."""
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Write seconds as people say them: ``42 s``, ``3 min 10 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def paused(seconds: float) -> str:
    """Say, after a time, that pauses between sessions are left out; nothing where they were under a second."""
    return f", without pauses of {duration(seconds)} between sessions" if seconds >= 1 else ""


def amount(count: int, noun: str) -> str:
    """Write how many there are of something: ``1 trial``, ``1,200 trials``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def seed_count(configurations: Iterable[ConfirmedConfiguration]) -> str:
    """Write how many fresh seeds some configurations, at least one, were confirmed with."""
    return seed_range(len(found.seeds) for found in configurations)


def seed_range(numbers: Iterable[int]) -> str:
    """Write numbers of fresh seeds, at least one, as one: ``5 fresh seeds``, ``2 to 5 fresh seeds``."""
    counts = set(numbers)
    return amount(max(counts), "fresh seed") if len(counts) == 1 else f"{min(counts)} to {max(counts)} fresh seeds"


def rate_name(arm: Arm, smooth_rate: float) -> str:
    """Write which loss it is: ``CE``, its rate as ``r = −4``, or the name of another loss."""
    return "CE" if arm == "ce" else f"r = {rate(smooth_rate)}" if arm in RATE_ARMS else arm


def other_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a configuration besides loss, rate, warm-up and learning rate."""
    return {name: value for name, value in config.items() if name not in _ALWAYS}


def average_of(readout: Any) -> float | None:
    """Return the span of a readout that is an average of weights; None for weights as they are, and a missing cell."""
    is_average = isinstance(readout, str) and readout.startswith("average:")
    return float(readout.removeprefix("average:")) if is_average else None


def weights_text(readout: Any) -> str:
    """Write which weights to use in one cell: ``average 0.2``, or ``as they are``."""
    span = average_of(readout)
    return "as they are" if span is None else f"average {number(span)}"


def settings_text(config: Mapping[str, Any]) -> str:
    """Write a configuration without its rate: ``warm-up 10, lr 0.003``, then what else is searched."""
    parts = [f"warm-up {config['warmup_epochs']}", f"lr {number(config['lr'])}"]
    for name, value in other_settings(config).items():
        parts.append(f"{name} {number(value) if isinstance(value, float) else value}")
    return ", ".join(parts)


def configuration(config: Mapping[str, Any]) -> str:
    """Write a configuration in one line: ``r=−4.06 warm-up 10 lr=0.003``, then what else is searched."""
    loss = config.get("loss", "gls")
    parts = [f"r={rate(config['smooth_rate'])}" if loss == "gls" else loss]
    names = {"warmup_epochs": "warm-up {}", "lr": "lr={}"}
    for name, value in config.items():
        if name not in ("smooth_rate", "loss"):
            shown = number(value) if isinstance(value, float) else value
            parts.append(names.get(name, f"{name}={{}}").format(shown))
    return " ".join(parts)


def trial_line(row: Mapping[str, Any], names: Sequence[str], metric: Metric = "accuracy") -> str:
    """Say in one line what a trial was and how it ended, from its row of ``trials/`` and the searched settings."""
    on_all, columns = row["stage"] == ON_ALL_LABELS, objective_columns(metric)
    seed = "" if row["stage"] in ("search", "sweep_search") else f" seed {row['seed']}"
    seed += " on all labels" if on_all else ""
    mine = [name for name in names if LOSS_SETTINGS.get(name, row["arm"]) == row["arm"]]
    config = {name: row[name] if name in row else row[f"config_{name}"] for name in mine}
    config |= {} if row["arm"] in RATE_ARMS else {"loss": row["arm"]}
    parts = [f"{row['noise_level']} {configuration(config)}{seed}: {row['status']}"]
    if row["error"]:
        parts.append(row["error"])
    parts.append(amount(row["epochs"], "epoch"))
    if row["best_epoch"]:
        parts.append(f"val {percent(row[columns.best_val])}")
        if row[columns.test_at_best] is not None:
            parts.append(f"test {percent(row[columns.test_at_best])} at epoch {row['best_epoch']}")
    if on_all and row[columns.last_test] is not None:
        average = row.get(columns.average_test)
        parts.append(f"test {percent(row[columns.last_test] if average is None else average)}")
    parts.append(duration(row["wall_seconds"]))
    return ", ".join(parts)


def printable(text: str) -> str:
    """Return a name that others gave, without characters that would move a cursor or break a line."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def mean_text(value: SampleMean | None) -> str:
    """Write an accuracy in % as mean ± standard deviation; a dash where there is none."""
    if value is None:
        return NONE
    spread = "" if math.isnan(value.standard_deviation) else f" ± {100 * value.standard_deviation:.2f}"
    return f"{100 * value.mean:.2f}{spread}"


def interval(found: SampleMean | None) -> str:
    """Write a difference in points with its 95 % t interval, where it has one; a dash where there is none."""
    if found is None:
        return NONE
    if math.isinf(found.low):
        return points(found.mean, 2)
    return f"{points(found.mean, 2)} [{points(found.low, 2)}, {points(found.high, 2)}]"
