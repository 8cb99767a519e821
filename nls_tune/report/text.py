"""How numbers are written on screens: accuracies as percentages, times in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: How arms are called on screens.
ARM_NAMES = {"ce": "CE", "positive": "r > 0", "negative": "r < 0"}


def percent(value: float | None, digits: int = 1) -> str:
    """Write a fraction as a percentage; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def points(value: float, digits: int = 1) -> str:
    """Write a difference of fractions in percentage points, with its sign."""
    shown = round(100 * value, digits) + 0.0  # adding 0 turns -0.0 into 0.0
    return f"{shown:+.{digits}f}".replace("-", "−")


def rate(value: float | None) -> str:
    """Write a smooth rate; a dash where there is none."""
    return "–" if value is None else f"{value + 0.0:.4g}".replace("-", "−")


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


def configuration(config: Mapping[str, Any]) -> str:
    """Write a configuration in one line: ``r=−4.06 warm-up 10 lr=0.003``, then what else is searched."""
    parts = [f"r={rate(config['smooth_rate'])}"]
    names = {"warmup_epochs": "warm-up {}", "lr": "lr={}"}
    for name, value in config.items():
        if name != "smooth_rate":
            shown = number(value) if isinstance(value, float) else value
            parts.append(names.get(name, f"{name}={{}}").format(shown))
    return " ".join(parts)
