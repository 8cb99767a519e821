"""Compares rules for a trial's best epoch: does one favour an arm, and what does it cost?

Run ``python benchmarks/best_epoch.py`` in the repository; it takes two minutes.

Bias: cross-entropy (CE) and a rate get the same true curve and noise of their own; what a rule says too much of CE
(its value minus the true accuracy at the epoch that it chooses), minus what it says too much of the rate, should be 0
at every length. It is measured where both choose among the epochs after the warm-up, so that only the rule can differ,
and as it is in a search, where CE may also be stopped in its warm-up: more choices, more luck, in favour of CE. True
curves are those of CE in the tables: test accuracy, mean over seeds, smoothed over 7 epochs. The noise is normal, as
large as validation curves of the table stray from their own means over 7 epochs.

Cost: test accuracy at the chosen epoch below that of the trial's best one (regret), and the same of the trial that
the rule's value selects among all of a level. ``--curves FILE`` adds public trainings (columns level, method, seed,
epoch, val_accuracy, test_accuracy).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from nls_tune.machine.provenance import provenance

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER / "tabulated"))
from table import Curve, Table  # noqa: E402

NAMES = ("twonorm", "waveform", "digits")
DRAWS = 400
WIDE = 7


def windows(length: int, rule: str, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the half-open windows over which a rule takes the mean at the epochs from ``first`` (0-based) on."""
    epochs = np.arange(first, length)
    if rule in ("mean of the last 3", "the smaller of that and its own"):
        return np.maximum(0, epochs - 2), epochs + 1
    if rule.startswith("mean of the last 2"):
        return np.maximum(0, epochs - 1), epochs + 1
    if rule == "centred over counting epochs (before)":
        return np.maximum(first, epochs - 1), np.minimum(length, epochs + 2)
    if rule == "centred over all epochs":
        return np.maximum(0, epochs - 1), np.minimum(length, epochs + 2)
    return epochs, epochs + 1  # each epoch alone


RULES = (
    "mean of the last 2 (as shipped)",
    "mean of the last 3",
    "the smaller of that and its own",
    "centred over counting epochs (before)",
    "centred over all epochs",
    "each epoch alone",
)


def choose(
    accuracies: np.ndarray, rule: str, first: int, chosen_from: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the chosen epoch (0-based) and its value, each of shape (draws,), for curves of shape (draws, epochs).

    Epochs count from ``first`` on; fewer may be chosen, those from ``chosen_from`` on.
    """
    low, high = windows(accuracies.shape[1], rule, first)
    sums = np.cumsum(np.pad(accuracies, ((0, 0), (1, 0))), axis=1)
    values = (sums[:, high] - sums[:, low]) / (high - low)
    if rule == "the smaller of that and its own":
        values = np.minimum(values, accuracies[:, first:])
    start = 0 if chosen_from is None else chosen_from - first
    place = start + values[:, start:].argmax(axis=1)
    return first + place, values[np.arange(len(values)), place]


def smooth(curve: np.ndarray) -> np.ndarray:
    """Return the centred mean over ``WIDE`` epochs, over fewer at the ends, alike on both sides of an epoch."""
    half = [min(WIDE // 2, i, len(curve) - 1 - i) for i in range(len(curve))]
    return np.array([curve[i - h : i + h + 1].mean() for i, h in enumerate(half)])


def curves_of(table: Table) -> list[Curve]:
    """Return the trainings of a table that did not diverge and have an epoch that counts."""
    found = [c for level in table.levels for curves in level.curves.values() for c in curves.values()]
    return [c for c in found if not c.diverged and len(c.val) >= c.first_counting]


def true_curves(table: Table) -> list[np.ndarray]:
    """Return the smoothed test accuracies of CE, one curve per level, warm-up and learning rate."""
    found = []
    for level in table.levels:
        for point in level.curves[level.seeds[0]]:
            seeds = [level.curves[seed][point] for seed in level.seeds]
            if table.rates[point[0]] == 0 and all(len(c.val) == table.epochs for c in seeds):
                found.append(smooth(np.mean([(c.test["a"] + c.test["b"]) / 2 for c in seeds], axis=0)))
    return found


def bias(truth: np.ndarray, noise: float, warmup: int, rule: str, chosen_from: int, rng: np.random.Generator) -> float:
    """Return how much more a rule says too much of CE than of a rate with the same true curve."""
    said = []
    for first, start in ((0, chosen_from), (warmup, warmup)):
        chosen, value = choose(truth + rng.normal(0, noise, (DRAWS, len(truth))), rule, first, start)
        said.append(float((value - truth[chosen]).mean()))
    return said[0] - said[1]


def measure(name: str) -> dict[str, Any]:
    """Return bias by length and warm-up, regret and selection of every rule on one table."""
    table, rng = Table(name), np.random.default_rng(0)
    curves, truths = curves_of(table), true_curves(table)
    strays = [c.val - smooth(c.val) for c in curves if len(c.val) == table.epochs]
    noise = float(np.sqrt(np.mean(np.concatenate([s[WIDE:-WIDE] for s in strays]) ** 2) * WIDE / (WIDE - 1)))
    biases: dict[str, dict[str, dict[str, float]]] = {"same choices": {}, "as in a search": {}}
    for length in (2, 3, 4, 8, 16, table.epochs):
        for warmup in sorted({1, length // 4, length // 2} - {0}):
            for choices, start in (("same choices", warmup), ("as in a search", 0)):
                biases[choices][f"{length} epochs, {warmup} of them warm-up"] = {
                    rule: float(np.mean([bias(truth[:length], noise, warmup, rule, start, rng) for truth in truths]))
                    for rule in RULES
                }
    regrets, selected = {}, {}
    for rule in RULES:
        regrets[rule] = float(np.mean([_regret(c.val, _test(c), c.first_counting - 1, rule) for c in curves]))
        costs = []
        for level in table.levels:
            for by_point in level.curves.values():
                usable = [c for c in by_point.values() if not c.diverged and len(c.val) >= c.first_counting]
                found = [(choose(c.val_quarter[None], rule, c.first_counting - 1), _test(c)) for c in usable]
                (epoch, _), test = max(found, key=lambda one: one[0][1][0])
                costs.append(max(float(_test(c).max()) for c in usable) - float(test[epoch[0]]))
        selected[rule] = float(np.mean(costs))
    return {"noise": noise, "curves": len(curves), "bias": biases, "regret": regrets, "selected_regret": selected}


def _test(curve: Curve) -> np.ndarray:
    return (curve.test["a"] + curve.test["b"]) / 2


def _regret(val: np.ndarray, test: np.ndarray, first: int, rule: str) -> float:
    return float(test[first:].max() - test[choose(val[None], rule, first)[0][0]])


def public_regret(path: Path) -> dict[str, Any]:
    """Return the regret of every rule on public trainings, and of the last epoch."""
    import pandas as pd

    frame = pd.read_parquet(path).dropna().sort_values("epoch")
    runs = [
        (group["val_accuracy"].to_numpy(float), group["test_accuracy"].to_numpy(float))
        for _, group in frame.groupby(["level", "method", "seed"])
    ]
    regrets = {rule: float(np.mean([_regret(val, test, 0, rule) for val, test in runs])) for rule in RULES}
    return {"runs": len(runs), "regret": regrets | {"last epoch": float(np.mean([t.max() - t[-1] for _, t in runs]))}}


def main() -> None:
    """Measure every rule, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=Path, help="Parquet of public trainings")
    parser.add_argument("--out", type=Path, default=FOLDER / "evidence" / "best_epoch.json")
    options = parser.parse_args()
    evidence: dict[str, Any] = {"what": "rules for the best epoch; fractions", **provenance(), "draws": DRAWS}
    evidence["command"] = "best_epoch.py --curves FILE"
    for name in NAMES:
        evidence[name] = found = measure(name)
        print(f"{name}: noise {100 * found['noise']:.2f} points")
        for choices, by_length in found["bias"].items():
            for key, by_rule in by_length.items():
                print(f"  {choices}, {key}: " + ", ".join(f"{100 * value:+.2f}" for value in by_rule.values()))
    for choices in ("same choices", "as in a search"):
        evidence[f"mean bias, {choices}"] = {
            rule: float(np.mean([b[rule] for name in NAMES for b in evidence[name]["bias"][choices].values()]))
            for rule in RULES
        }
    if options.curves is not None:
        evidence["public"] = public_regret(options.curves)
    for rule in RULES:
        costs = ", ".join(
            f"{name} {100 * evidence[name]['regret'][rule]:.2f} ({100 * evidence[name]['selected_regret'][rule]:.2f})"
            for name in NAMES
        )
        same, search = (100 * evidence[f"mean bias, {c}"][rule] for c in ("same choices", "as in a search"))
        print(f"{rule}: mean bias {same:+.3f}, in a search {search:+.3f}; regret (of the selected): {costs}")
    if "public" in evidence:
        print("public trainings:", {rule: round(100 * v, 2) for rule, v in evidence["public"]["regret"].items()})
    options.out.write_text(json.dumps(evidence, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
