"""What a search found at each noise level, always against the strongest cross-entropy (CE)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nls_tune.analysis.selection import Method, Selection, selection
from nls_tune.noise import signal_share
from nls_tune.runs.schemas import unpack_correct
from nls_tune.spaces.space import ARMS, Arm

if TYPE_CHECKING:
    import pandas as pd

#: What describes a configuration even where all trials share it.
_ALWAYS = ("smooth_rate", "warmup_epochs", "lr")
#: Two-sided 95 % of a normal distribution.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class RawBest:
    """The trial of an arm with the highest validation accuracy, lucky or not; often the selected one."""

    trial_id: str
    config: dict[str, Any]
    val_accuracy: float
    test_accuracy_at_best: float | None


@dataclass(frozen=True)
class ArmSummary:
    """The selected trial of an arm: chosen by noisy validation, described by everything.

    Accuracies are fractions. ``test_*`` are None without a test set.

    Attributes:
        method: How it was selected: by ``posterior`` mean, or ``raw``, by its accuracy, where there are few trials.
        posterior_mean: The validation accuracy that its configuration is worth; None for ``raw``.
        posterior_std: The standard deviation of that; None for ``raw``.
        raw_best: What the highest accuracy alone would have selected.
    """

    arm: Arm
    num_trials: int
    num_completed: int
    trial_id: str
    config: dict[str, Any]
    best_epoch: int
    epochs: int
    val_accuracy: float
    test_accuracy_at_best: float | None
    last_val_accuracy: float
    last_test_accuracy: float | None
    method: Method
    posterior_mean: float | None
    posterior_std: float | None
    raw_best: RawBest


@dataclass(frozen=True)
class DefaultCe:
    """The search trial of cross-entropy with the defaults of the space: what a user would run without a search.

    Accuracies are fractions; ``test_*`` are None without a test set.

    Attributes:
        status: How it ended; one that was stopped or diverged has not run to its end.
        epochs: Reached.
    """

    trial_id: str
    config: dict[str, Any]
    status: str
    best_epoch: int
    epochs: int
    val_accuracy: float
    test_accuracy_at_best: float | None
    last_val_accuracy: float | None
    last_test_accuracy: float | None


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of one trial minus that of another on the same samples.

    Attributes:
        difference: As a fraction.
        standard_error: From the samples on which the two disagree:
            ``sqrt(b + c - (b - c)**2 / n) / n``, b and c the samples that only one of them gets right
            (the variance of McNemar's test, not assuming that the two are equal).
        num_samples: n.
    """

    difference: float
    standard_error: float
    num_samples: int

    @property
    def distinct(self) -> bool:
        """Whether the 95 % interval excludes 0."""
        return abs(self.difference) > Z95 * self.standard_error


@dataclass(frozen=True)
class LevelSummary:
    """What the search found at one noise level.

    Attributes:
        noise_level: In its stored spelling.
        num_classes: K.
        noise_rate: Share of wrong labels, None where unknown.
        noise_cancelling_rate: Of the noise, None where it does not exist.
        signal_share: c of symmetric noise, by which validation differences shrink; None for other noise.
        statuses: How many trials ended in which way.
        arms: The selected trial of each arm that has a completed one.
        recommended: The arm whose selected trial is the best on validation, see ``best_arm``; None if there is none.
        rival: What the recommended arm is compared with: CE, or for CE the better of the others on validation.
        validation: Recommended minus rival on validation, at the best epochs; None where either is missing.
        test: Recommended minus rival on test, likewise.
        estimated_noise_rate: From the noisy labels; None where not estimated.
        default_ce: CE with the defaults; None where they are not given, or the search has no such trial with an
            epoch that counts.
    """

    noise_level: str
    num_classes: int
    noise_rate: float | None
    noise_cancelling_rate: float | None
    signal_share: float | None
    statuses: dict[str, int]
    arms: dict[Arm, ArmSummary]
    recommended: Arm | None
    rival: Arm | None
    validation: PairedDifference | None
    test: PairedDifference | None
    estimated_noise_rate: float | None = None
    default_ce: DefaultCe | None = None


def level_summaries(
    trials: pd.DataFrame, levels: Sequence[str] = (), space: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[LevelSummary, ...]:
    """Summarise the search trials of a run.

    Args:
        trials: Rows of ``trials/``.
        levels: The order of the levels; by default that of their first trials.
        space: The searched settings with their defaults, which rows do not know.

    Returns:
        One summary a level that has trials.
    """
    search = trials[trials["stage"] == "search"]
    present = list(dict.fromkeys(search["noise_level"]))
    order = [level for level in levels if level in present] or present
    defaults = None if space is None else {name: parameter["default"] for name, parameter in space.items()}
    return tuple(_summarise(search[search["noise_level"] == level], defaults) for level in order)


def _summarise(trials: pd.DataFrame, defaults: Mapping[str, Any] | None) -> LevelSummary:
    first = trials.iloc[0]
    found = {arm: selection(trials[trials["arm"] == arm]) for arm in ARMS}
    chosen = {arm: selected for arm, selected in found.items() if selected is not None}
    names = searched_settings(trials)
    arms = {arm: _arm_summary(arm, selected, trials[trials["arm"] == arm], names) for arm, selected in chosen.items()}
    recommended = best_arm(arms)
    rival: Arm | None = "ce" if "ce" in arms else None
    if recommended == "ce":
        rival = best_arm({arm: arms[arm] for arm in ARMS[1:] if arm in arms})
    validation = test = None
    if recommended is not None and rival is not None:
        validation = paired_trials(chosen[recommended].row, chosen[rival].row, "val")
        test = paired_trials(chosen[recommended].row, chosen[rival].row, "test")
    return LevelSummary(
        noise_level=str(first["noise_level"]),
        num_classes=int(first["num_classes"]),
        noise_rate=_number(first["noise_rate"]),
        noise_cancelling_rate=_number(first["noise_cancelling_rate"]),
        signal_share=_signal_share(str(first["noise_level"]), int(first["num_classes"])),
        statuses={str(k): int(v) for k, v in trials["status"].value_counts().items()},
        arms=arms,
        recommended=recommended,
        rival=rival,
        validation=validation,
        test=test,
        estimated_noise_rate=_number(first["estimated_noise_rate"]),
        default_ce=None if defaults is None else _default_ce(trials, defaults, names),
    )


def best_arm(arms: Mapping[Arm, ArmSummary]) -> Arm | None:
    """Return the arm whose selected trial is the best on validation.

    Posterior means are compared with posterior means: the luck of the best of many trials is taken out of them, so an
    arm does not win because it had more trials. An arm of few trials has none, and the best of the others meets it
    with the accuracies of both selected trials: a posterior mean without luck against the accuracy of the best of a
    few with luck would be unfair to the former.

    Args:
        arms: The summaries; ties go to the first.

    Returns:
        The arm, or None if there is none.
    """
    smoothed = {arm: found.posterior_mean for arm, found in arms.items() if found.posterior_mean is not None}
    passed = [arm for arm in smoothed if arm != max(smoothed, key=smoothed.__getitem__)]
    left = {arm: found.val_accuracy for arm, found in arms.items() if arm not in passed}
    return max(left, key=left.__getitem__, default=None)


def _arm_summary(arm: Arm, selected: Selection, trials: pd.DataFrame, names: Sequence[str]) -> ArmSummary:
    row, best = selected.row, selected.raw_best_row
    return ArmSummary(
        arm=arm,
        num_trials=len(trials),
        num_completed=int((trials["status"] == "completed").sum()),
        trial_id=str(row["trial_id"]),
        config=config_of(row, names),
        best_epoch=int(row["best_epoch"]),
        epochs=int(row["epochs"]),
        val_accuracy=float(row["best_val_accuracy"]),
        test_accuracy_at_best=_number(row["test_accuracy_at_best"]),
        last_val_accuracy=float(row["last_val_accuracy"]),
        last_test_accuracy=_number(row["last_test_accuracy"]),
        method=selected.method,
        posterior_mean=selected.posterior_mean,
        posterior_std=selected.posterior_std,
        raw_best=RawBest(
            trial_id=str(best["trial_id"]),
            config=config_of(best, names),
            val_accuracy=float(best["best_val_accuracy"]),
            test_accuracy_at_best=_number(best["test_accuracy_at_best"]),
        ),
    )


def _default_ce(trials: pd.DataFrame, defaults: Mapping[str, Any], names: Sequence[str]) -> DefaultCe | None:
    rows = trials[(trials["arm"] == "ce") & trials["best_val_accuracy"].notna()]
    for name, value in defaults.items():
        column = name if name in rows.columns else f"config_{name}"
        if name != "smooth_rate" and column in rows.columns:
            rows = rows[[_plain(found) == value for found in rows[column]]]
    if rows.empty:
        return None
    row = rows.loc[(rows["status"] != "completed").sort_values(kind="stable").index[0]]  # one that ended, if any did
    return DefaultCe(
        trial_id=str(row["trial_id"]),
        config=config_of(row, names),
        status=str(row["status"]),
        best_epoch=int(row["best_epoch"]),
        epochs=int(row["epochs"]),
        val_accuracy=float(row["best_val_accuracy"]),
        test_accuracy_at_best=_number(row["test_accuracy_at_best"]),
        last_val_accuracy=_number(row["last_val_accuracy"]),
        last_test_accuracy=_number(row["last_test_accuracy"]),
    )


def config_of(row: pd.Series, names: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a row as plain values, by the columns that hold them."""
    return {name.removeprefix("config_"): _plain(row[name]) for name in names}


def paired_difference(correct_a: np.ndarray, correct_b: np.ndarray) -> PairedDifference:
    """Return the difference of two accuracies on the same samples, with its standard error.

    Args:
        correct_a: Which samples the first got right, shape (n,), bool.
        correct_b: The same for the second.

    Returns:
        First minus second.

    Raises:
        ValueError: If the shapes differ or are empty.
    """
    if correct_a.shape != correct_b.shape or correct_a.size == 0:
        raise ValueError(f"both must cover the same samples, got {correct_a.shape} and {correct_b.shape}")
    n = correct_a.size
    only_a = int((correct_a & ~correct_b).sum())
    only_b = int((correct_b & ~correct_a).sum())
    variance = (only_a + only_b - (only_a - only_b) ** 2 / n) / n**2
    return PairedDifference((only_a - only_b) / n, math.sqrt(variance), n)


def paired_trials(a: pd.Series, b: pd.Series, split: str) -> PairedDifference | None:
    """Return the accuracy of one row of ``trials/`` minus another's at their best epochs, on the same samples.

    Args:
        a: The first.
        b: The second; validated and tested on the same samples.
        split: ``val`` or ``test``.

    Returns:
        The difference; None where a row has no bits.
    """
    correct = []
    for row in (a, b):
        bits = row[f"{split}_correct_at_best"]
        if not isinstance(bits, bytes):
            return None
        correct.append(unpack_correct(bits, int(row[f"num_{split}"])))
    return paired_difference(*correct)


def _signal_share(noise_level: str, num_classes: int) -> float | None:
    kind, _, rate = noise_level.partition(":")
    return signal_share(float(rate), num_classes) if kind == "symmetric" else None


def searched_settings(trials: pd.DataFrame) -> list[str]:
    """Return the columns of rate, warm-up and learning rate, and of every other setting in which trials differ."""
    return [*_ALWAYS, *(c for c in trials.columns if c.startswith("config_") and _differs(trials[c]))]


def _differs(values: pd.Series) -> bool:
    if values.dtype != object:
        return values.nunique(dropna=False) > 1
    # Lists are not hashed; their bytes are, which is much quicker than to write them out.
    return len({value.tobytes() if isinstance(value, np.ndarray) else str(value) for value in values}) > 1


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _plain(value: Any) -> Any:
    """A cell as a plain Python value."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
