"""Searches the smooth rate for data and a network of your own, in a training loop of your own.

``python -m nls_tune.search`` takes the built-in datasets and networks. This program uses two of its parts without Ray:
the search space and the allocator, which says what to train next and which trial to stop. The rest is yours to change:
``make_data``, ``make_network`` and ``train``.

python examples/own_data.py
python examples/own_data.py --num-trials 4 --epochs 6 --seeds 2
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from nls_tune import gls_loss
from nls_tune.allocation.allocator import Allocator, Group
from nls_tune.allocation.asha import Rungs
from nls_tune.analysis.statistics import sample_mean
from nls_tune.metrics import best_epoch
from nls_tune.spaces.reading import load_space

WARMUP_LR = 0.01
#: Choose it for the sake of cross-entropy: one that memorises the noise is easy to beat, and proves nothing.
WEIGHT_DECAY = 0.05


def make_data() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return inputs and labels by split; labels of training and validation are noisy, those of test clean."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=4_000)
    inputs = rng.normal(size=(4_000, 20)) + np.where(labels[:, None] == 1, 0.3, -0.3)
    noisy = np.where(rng.random(4_000) < 0.3, 1 - labels, labels)
    x, y, clean = torch.from_numpy(inputs).float(), torch.from_numpy(noisy), torch.from_numpy(labels)
    return {
        "train": (x[:1_000], y[:1_000]), "val": (x[1_000:2_000], y[1_000:2_000]), "test": (x[2_000:], clean[2_000:]),
    }  # fmt: skip


def make_network() -> nn.Module:
    """Return a new network."""
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))


def train(
    data: Mapping[str, tuple[torch.Tensor, torch.Tensor]], config: Mapping[str, Any], epochs: int, seed: int = 0
) -> Iterator[tuple[float, float]]:
    """Train one configuration; yield validation and test accuracy after each epoch, NaN once the loss is not finite."""
    torch.manual_seed(seed)
    network, (inputs, labels) = make_network(), data["train"]
    for epoch in range(1, epochs + 1):
        warming = epoch <= config["warmup_epochs"]
        if epoch in (1, config["warmup_epochs"] + 1):  # a fresh optimiser at the start of each phase
            lr = WARMUP_LR if warming else config["lr"]
            optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=WEIGHT_DECAY)
        finite = True
        for batch in torch.randperm(len(labels)).split(64):
            loss = gls_loss(network(inputs[batch]), labels[batch], 0.0 if warming else config["smooth_rate"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            finite = finite and bool(loss.isfinite())
        with torch.no_grad():
            val, test = ((network(x).argmax(1) == y).double().mean().item() for x, y in (data["val"], data["test"]))
        yield (val, test) if finite else (math.nan, math.nan)


def main() -> None:
    """Search with a third of the labels wrong, then confirm the best configuration of each arm with fresh seeds."""
    parser = argparse.ArgumentParser(description="Search the smooth rate for data and a network of your own.")
    parser.add_argument("--num-trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    data = make_data()

    space = load_space("twonorm", epochs=options.epochs)  # or a YAML file of your own
    groups = [
        Group(arm, space.arm(arm), number, space.arm(arm).start([0.0, 0.1, -1.0])[:number], share=number)
        for arm, number in space.quotas(options.num_trials).items()
    ]
    allocator = Allocator(groups, Rungs.geometric(space.budget.grace_epochs, options.epochs, reduction_factor=2))
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    while (trial := allocator.ask()) is not None:
        accuracies: list[float] = []
        begin, outcome, value = time.perf_counter(), "completed", None
        warmup = trial.config["warmup_epochs"]
        for epoch, (accuracy, _) in enumerate(train(data, trial.config, options.epochs), start=1):
            if math.isnan(accuracy):
                outcome = "diverged"
                break
            accuracies.append(accuracy)
            found = best_epoch(accuracies, first_counting=1 if trial.group == "ce" else warmup + 1)
            value = None if found is None else found.value
            if not allocator.report(trial.number, max(0, epoch - warmup), value, time.perf_counter() - begin):
                outcome = "stopped"
                break
        allocator.tell(trial.number, outcome, value)
        if outcome == "completed" and value is not None and value > best.get(trial.group, (0.0, {}))[0]:
            best[trial.group] = value, trial.config

    # The best of many noisy accuracies is lucky: train the winners again, seed by seed, and compare with cross-entropy.
    seeds = range(1, options.seeds + 1)
    tests = {arm: [confirm(data, config, options.epochs, s) for s in seeds] for arm, (_, config) in best.items()}
    for arm, (value, config) in best.items():
        shown = ", ".join(f"{name} {setting:g}" for name, setting in config.items())
        print(f"{arm}: {shown}; validation {100 * value:.1f} %, test {100 * np.mean(tests[arm]):.1f} %", end="")
        if arm == "ce":
            print()
            continue
        gain = sample_mean([mine - ce for mine, ce in zip(tests[arm], tests["ce"], strict=True)])
        print(f", against ce {100 * gain.mean:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}] points")


def confirm(data: Mapping[str, Any], config: Mapping[str, Any], epochs: int, seed: int) -> float:
    """Return the test accuracy at the best epoch, which validation chooses; never by test."""
    history = [pair for pair in train(data, config, epochs, seed) if not math.isnan(pair[0])]
    found = best_epoch([val for val, _ in history], 1 if config["smooth_rate"] == 0 else config["warmup_epochs"] + 1)
    return 0.0 if found is None else history[found.epoch - 1][1]


if __name__ == "__main__":
    main()
