"""Counts false claims: how often does a run call a rate better that is not, and how often one that is?

Run ``python benchmarks/false_claims.py`` in the repository; it takes five minutes on one core.

A simulated run has 1 or 5 noise levels. At each, the selected cross-entropy (CE), CE with the defaults where that is
another configuration, a positive and a negative rate, and no or four other losses are trained with 2, 3, 5 or 8 fresh
seeds. The two rates are one method, and each loss is another; p values are corrected over levels and methods. Test
accuracy is the configuration's true one plus noise of the seed; validation accuracy is binomial on 4,000 labels of
which 40 % are wrong, and follows test accuracy seed by seed, so that a lucky seed is lucky in both. Nothing else is
shared.

False claims: the share of runs with at least one ``better`` where the true accuracy of every rate and loss equals that
of CE, or lies 0.2 points below it. Power: the share of levels at which a rate is ``better`` that gains 0.5 points, or
as much as ``detectable_difference`` says that 4 of 5 runs would find. Three harder cases follow. *Looking*: somebody
adds seeds (2, 3, 5, 8) until something is better. *Collapse*: a rate or loss has the mean of CE, but 1 of 10 seeds
loses 10 standard deviations. *New samples*: claims about accuracy on new samples, where the test set's own luck (0.15
points in the difference, as of 10,000 samples) is shared by all seeds; the claim that is made is for the test set at
hand.

Found: at most 4.1 % of runs claim falsely, whatever the levels, methods, seeds and noise, but for collapses (up to 30
%, with four other losses up to 39 %). Looking four times makes it 11 %; for new samples it is up to 33 % (58 %) where
seeds differ by 0.1 points only. A gain of 0.5 points is found at 32 % of single levels with 5 seeds that differ by
0.3 points, and at 13 % of five levels; among five methods at 12 and 3 %. Validation on noisy labels, which must rank
the rate before cross-entropy, keeps it from more.

``better`` is computed for all runs at once by ``is_better``, and the first runs of every shape are also given to
``nls_tune.analysis.verdicts.findings``: the two must agree.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr

from nls_tune.analysis.confirmation import SIGNIFICANT
from nls_tune.analysis.statistics import detectable_difference
from nls_tune.analysis.verdicts import findings
from nls_tune.machine.provenance import provenance

#: Levels, and losses besides CE and the rates.
SIZES = ((1, 0), (5, 0), (1, 4), (5, 4))
SEEDS, SPREADS = (2, 3, 5, 8), (0.001, 0.003, 0.01, 0.03)
#: The losses, as arms; their settings take no part.
LOSSES = ("gce", "sce", "elr", "bootstrap")
ACCURACY, NOISE_RATE, NUM_CLASSES, NUM_VAL, NUM_TEST = 0.8, 0.4, 10, 4000, 10_000
#: Noise of a seed with mean 0 and standard deviation 1.
SHAPES = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, shape) / 3**0.5,
    "skewed to low": lambda rng, shape: 1 - rng.exponential(size=shape),
    "skewed to high": lambda rng, shape: rng.exponential(size=shape) - 1,
}
#: Noise of rates where that of CE is normal.
COLLAPSE = "1 of 10 seeds of a rate collapses"
GAINS = {"equal": 0.0, "0.2 points below": -0.002}


def simulate(
    rng: np.random.Generator, runs: int, levels: int, seeds: int, spread: float, shape: str, gains: Any,
    num_ce: int = 1, shared: float = 0.0, losses: int = 0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return validation and test accuracies of shape (runs, levels, configurations, seeds): CE, two rates, losses.

    ``gains`` are those of all rates and losses, or one each; ``shared`` is the standard deviation that the test set
    adds to a difference.
    """
    others = 2 + losses
    size = (runs, levels, num_ce + others, seeds)
    noise = SHAPES["normal" if shape == COLLAPSE else shape](rng, size)
    if shape == COLLAPSE:
        noise[:, :, num_ce:] += 1 - 10 * (rng.random((runs, levels, others, seeds)) < 0.1)
    true = ACCURACY + np.array([0.0] * num_ce + list(np.broadcast_to(gains, others)))[:, None] + spread * noise
    luck = shared / 2**0.5 * rng.normal(size=(*size[:3], 1))
    test = np.round(NUM_TEST * np.clip(true + luck, 0, 1)) / NUM_TEST
    agreed = true * (1 - NOISE_RATE) + (1 - true) * NOISE_RATE / (NUM_CLASSES - 1)
    return rng.binomial(NUM_VAL, np.clip(agreed, 0, 1)) / NUM_VAL, test


def holm(p: np.ndarray) -> np.ndarray:
    """Return p values corrected over the last axis."""
    order = np.argsort(p, axis=1)
    ranked = np.take_along_axis(p, order, 1) * (p.shape[1] - np.arange(p.shape[1]))
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.maximum.accumulate(ranked, axis=1), 1)
    return corrected


def is_better(val: np.ndarray, test: np.ndarray, losses: int = 0) -> np.ndarray:
    """Return which methods at which levels of which runs are ``better``, shape (runs, levels, 1 + losses)."""
    num_ce, n = val.shape[2] - 2 - losses, val.shape[3]
    means = np.round(val.mean(axis=3), 12)  # equal means differ by rounding
    ce = means[:, :, :num_ce].argmax(axis=2, keepdims=True)
    rate = num_ce + means[:, :, num_ce : num_ce + 2].argmax(axis=2, keepdims=True)
    best = np.concatenate([rate, np.broadcast_to(num_ce + 2 + np.arange(losses), (*rate.shape[:2], losses))], axis=2)
    claimed = np.take_along_axis(means, best, 2) > np.take_along_axis(means, ce, 2)
    pick = [np.take_along_axis(test, i[..., None], 2) for i in (best, ce)]
    gap = np.round(pick[0] - pick[1], 9)
    mean, spread = gap.mean(axis=3), gap.std(axis=3, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t_p = np.where(np.ptp(gap, axis=3) < 1e-12, 1.0, 2 * stdtr(n - 1, -np.abs(mean) / (spread / n**0.5)))
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    flip_p = np.mean(np.abs(gap @ signs.T) >= np.abs(gap.sum(axis=3, keepdims=True)) - 1e-9, axis=3)

    def is_proven(p: np.ndarray) -> np.ndarray:
        return holm(np.where(claimed, p, 1.0).reshape(len(p), -1)).reshape(p.shape) <= SIGNIFICANT

    proven = is_proven(t_p)
    smallest = 2.0 ** (1 - n)
    if smallest * best[0].size <= SIGNIFICANT:
        proven &= is_proven(flip_p)
    elif smallest <= SIGNIFICANT:
        proven &= flip_p <= smallest
    return np.asarray(claimed & proven & (mean > 0))


def frame(levels: int, num_ce: int, seeds: int, losses: int) -> pd.DataFrame:
    """Return rows of ``trials/`` of a run, with one search trial per configuration, still without accuracies."""
    rates = [0.0] * num_ce + [0.3, -2.0] + [0.0] * losses
    arms = ["ce"] * num_ce + ["positive", "negative", *LOSSES[:losses]]
    rows = [
        {
            "trial_id": f"{level} {i} {seed}", "stage": "confirm" if seed else "search", "arm": arms[i],
            "noise_level": f"level {level}", "smooth_rate": rates[i], "warmup_epochs": 2, "lr": 0.01 * (i + 1),
            "seed": seed, "noise_seed": 0, "status": "completed", "epochs": 10, "best_epoch": 9, "started_at": 0,
            "num_classes": NUM_CLASSES, "num_val": NUM_VAL, "num_test": NUM_TEST, "noise_rate": NOISE_RATE,
            "noise_cancelling_rate": -0.8, "estimated_noise_rate": None, "val_correct_at_best": None,
            "readout": "plain",
        }
        for level in range(levels)
        for i in range(len(arms))
        for seed in range(seeds + 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def disagreements(rng: np.random.Generator, levels: int, seeds: int, num_ce: int, runs: int, losses: int) -> int:
    """Return how often ``is_better`` and ``findings`` differ, with gains that make both answers common."""
    gains = (0.0, 0.008, *[0.008, 0.0] * losses)[: 2 + losses]
    val, test = simulate(rng, runs, levels, seeds, 0.003, "normal", gains, num_ce, losses=losses)
    trials, said = frame(levels, num_ce, seeds, losses), is_better(val, test, losses)
    wrong = 0
    for run in range(runs):
        for column, values in (("best_val_accuracy", val), ("test_accuracy_at_best", test)):
            trials[column] = np.concatenate([values[run][:, :, :1], values[run]], axis=2).ravel()
        for column in ("val_accuracy", "test_accuracy"):
            trials[f"last_{column}"] = trials["test_accuracy_at_best"]
        for level, verdict in enumerate(findings(trials).verdicts):
            found = {one.method: one.finding for one in verdict.methods} or {"gls": verdict.finding}
            methods = ("gls", *LOSSES[:losses])
            wrong += int(([found[name] == "better" for name in methods] != said[run, level]).sum())
    return wrong


def measure(runs: int, checked: int) -> dict[str, Any]:
    """Return false claims and power by levels, methods and seeds."""
    rng, out = np.random.default_rng(0), {}
    for (levels, losses), seeds in itertools.product(SIZES, SEEDS):
        false: dict[str, float] = {}
        for shape, spread, (gain, by), num_ce in itertools.product((*SHAPES, COLLAPSE), SPREADS, GAINS.items(), (1, 2)):
            key = f"{shape}, spread {100 * spread:g} points, {gain}, {num_ce} CE"
            drawn = simulate(rng, runs, levels, seeds, spread, shape, by, num_ce, losses=losses)
            false[key] = _share(is_better(*drawn, losses))
        power, fresh, looks = {}, {}, {}
        for spread in SPREADS:
            key = f"spread {100 * spread:g} points"
            detectable = detectable_difference(2**0.5 * spread, seeds, SIGNIFICANT / (levels * (1 + losses)))
            for name, by in (("0.5 points", 0.005), ("detectable", detectable)):
                gains = (0.0, by, *[0.0] * losses)
                drawn = simulate(rng, runs, levels, seeds, spread, "normal", gains, losses=losses)
                power[f"{key}, gain {name}"] = float(is_better(*drawn, losses)[:, :, 0].mean())
            fresh[key] = _share(
                is_better(*simulate(rng, runs, levels, seeds, spread, "normal", 0.0, 1, 0.0015, losses), losses)
            )
            val, test = simulate(rng, runs, levels, seeds, spread, "normal", 0.0, losses=losses)
            each = [is_better(val[..., :n], test[..., :n], losses) for n in SEEDS if n <= seeds]
            looks[key] = _share(np.any(each, axis=0))
        wrong = sum(disagreements(rng, levels, seeds, num_ce, checked, losses) for num_ce in (1, 2))
        methods = f"{1 + losses} methods, " if losses else ""
        out[f"{levels} levels, {methods}{seeds} seeds"] = {
            "false claims": false, "looking": looks, "new samples": fresh, "power": power,
            "differ from findings": wrong,
        }  # fmt: skip
    return out


def _share(better: np.ndarray) -> float:
    """The share of runs with any ``better``."""
    return float(better.any(axis=(1, 2)).mean())


def main() -> None:
    """Measure, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000, help="simulated runs per cell")
    parser.add_argument("--checked", type=int, default=20, help="runs per shape that findings decides as well")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "false_claims.json")
    options = parser.parse_args()
    found = measure(options.runs, options.checked)
    for name, cell in found.items():
        shown = {key: value for key, value in cell["false claims"].items() if COLLAPSE not in key}
        worst = max(shown, key=lambda key: shown[key])
        collapse = max(value for key, value in cell["false claims"].items() if COLLAPSE in key)
        print(f"{name}: false claims at most {shown[worst]:.2%} ({worst}); collapse {collapse:.1%}")
        for kind in ("looking", "new samples", "power"):
            print(f"  {kind}: " + "; ".join(f"{key}: {value:.1%}" for key, value in cell[kind].items()))
        print(f"  answers in which findings differs: {cell['differ from findings']}")
    what = "share of simulated runs with a false claim, and of levels at which a true gain is found"
    evidence = {"what": what, **provenance(), "command": "false_claims.py"}
    evidence |= {"runs": options.runs, "checked": options.checked, **found}
    options.out.write_text(json.dumps(evidence, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
