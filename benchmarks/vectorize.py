"""Measures 16 trainings of a small network as one batched model against the same 16 in turn, on one core.

Run ``python benchmarks/vectorize.py`` in the repository. Both sides train the same configurations on the same data in
one process with one thread and take turns epoch by epoch; what is reported is the median over rounds of the ratio
within a round. On a CPU the seconds are those of the process (user and system), so that what else runs on the machine
takes no part. ``small_cnn`` is there to show why it is not batched on a CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from throughput import random_images, settings_of
from torch.utils.flop_counter import FlopCounterMode

from nls_tune.datasets import NoisyDataset, load_dataset
from nls_tune.machine.provenance import provenance
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training.data import DeviceData
from nls_tune.training.devices import fastest_kernels, keep_freed_memory
from nls_tune.training.training import Training
from nls_tune.training.vectorized import VectorizedTraining

#: Training images of ``small_cnn``: its ratio does not need many.
IMAGES = 256
#: Rounds by network: an epoch of 16 small CNNs takes seconds.
ROUNDS = {"mlp": 15, "small_cnn": 3}


def configurations(model: str, members: int, seeds: int) -> list[TrainingSettings]:
    """Return configurations that differ in rate and learning rate, with so many seeds among them."""
    base = TrainingSettings(model="mlp", epochs=1_000, weight_decay=0.05) if model == "mlp" else settings_of(model, 128)
    return [
        base.model_copy(update={"smooth_rate": -i / members, "lr": 1e-3 * (1 + i), "seed": i % seeds})
        for i in range(members)
    ]


def data_of(model: str, images: int) -> NoisyDataset:
    """Return Twonorm as a search has it for ``mlp``, else random images with half as many to evaluate."""
    if model == "mlp":
        return load_dataset("twonorm", "symmetric:0.4")
    dataset = random_images(images, num_test=images // 4)
    return replace(dataset, val_indices=dataset.val_indices[: images // 4])


def race(model: str, members: int, seeds: int, device: str, rounds: int, images: int = IMAGES) -> dict[str, Any]:
    """Let both sides take turns, with the kernels that trials have.

    Returns:
        Milliseconds an epoch and training of either side, and the ratio, round by round and their medians; the
        floating-point operations of a training's epoch, and of one sample forwards, by torch's counter
        (convolutions, matrix products).
    """
    with fastest_kernels(torch.device(device)):
        return _race(model, members, seeds, device, rounds, images)


def _race(model: str, members: int, seeds: int, device: str, rounds: int, images: int) -> dict[str, Any]:
    dataset = data_of(model, images)
    data = DeviceData.load(dataset, device)
    alone, batched = (
        [Training(dataset, each, device, data=data) for each in configurations(model, members, seeds)] for _ in range(2)
    )
    batch = VectorizedTraining(batched)

    def in_turn() -> None:
        for training in alone:
            training.run_epoch()

    clock = _clock(device)
    with FlopCounterMode(display=False) as counter:
        in_turn()
    one = next(alone[0].batches(1))[0][:1]
    with FlopCounterMode(display=False) as sample, torch.no_grad():
        alone[0].model(one)
    batch.run_epoch()
    found: dict[str, list[float]] = {"at_once": [], "in_turn": []}
    sides: dict[str, Callable[[], Any]] = {"at_once": batch.run_epoch, "in_turn": in_turn}
    for round_ in range(rounds):
        for name in sorted(sides, reverse=bool(round_ % 2)):
            start = clock()
            sides[name]()
            found[name].append(1000 * (clock() - start) / members)
    ratios = [theirs / ours for theirs, ours in zip(found["in_turn"], found["at_once"], strict=True)]
    return {
        "model": model,
        "members": members,
        "seeds": seeds,
        "precision": alone[0].precision,
        "train_samples": len(data.train_labels),
        "evaluated_samples": len(data.val_labels) + (0 if data.test_labels is None else len(data.test_labels)),
        "milliseconds": found,
        "ratios": ratios,
        "median": {name: statistics.median(values) for name, values in {**found, "ratio": ratios}.items()},
        "spread": [float(np.quantile(ratios, q)) for q in (0.1, 0.9)],
        "flops_of_an_epoch": counter.get_total_flops() / members,
        "flops_of_a_sample": sample.get_total_flops(),
    }


def _clock(device: str) -> Callable[[], float]:
    if device == "cpu":
        return time.process_time

    def synchronised() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return synchronised


def product_rates(members: int, samples: int, seconds: float = 1.0) -> dict[str, float]:
    """Return the rates in FLOP/s of products as an ``mlp`` has them in its largest layer: the best of many.

    Args:
        members: Networks.
        samples: In a batch.
        seconds: To measure for, each.

    Returns:
        ``torch`` multiplies those of all members at once; ``onednn``, in float32 on a CPU, one after another.
    """
    inputs, weights = torch.randn(members, samples, 128), torch.randn(members, 128, 128)
    products: dict[str, Callable[[], Any]] = {"torch": lambda: torch.bmm(inputs, weights)}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        linear = torch.ops.mkldnn._linear_pointwise
        products["onednn"] = lambda: [linear(x, w, None, "none", [], "") for x, w in zip(inputs, weights, strict=True)]
    return {name: 2 * members * samples * 128**2 / _quickest(product, seconds) for name, product in products.items()}


def _quickest(work: Callable[[], Any], seconds: float) -> float:
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def bound_of(found: dict[str, Any], rates: dict[str, dict[str, float]]) -> float:
    """Return how many times as fast a batch could be if nothing but its products took time, at the best rates.

    Args:
        found: What ``race`` returned for ``mlp``.
        rates: What ``product_rates`` returned for the batches of ``training`` and of ``evaluation``.
    """
    evaluation = found["evaluated_samples"] * found["flops_of_a_sample"]
    training = found["flops_of_an_epoch"] - evaluation
    seconds = training / max(rates["training"].values()) + evaluation / max(rates["evaluation"].values())
    # Of the quickest round: the rates are the best of many, too.
    return min(found["milliseconds"]["in_turn"]) / (1000 * seconds)


def measure(model: str, members: int, seeds: int, device: str, rounds: int) -> dict[str, Any]:
    """Race one network, and for ``mlp`` on a CPU say what its products allow."""
    found = race(model, members, seeds, device, rounds)
    if model != "mlp" or device != "cpu":
        return found
    rates = {"training": product_rates(members, 128), "evaluation": product_rates(members, 2000)}
    return {**found, "product_flops_per_second": rates, "largest_ratio": bound_of(found, rates)}


def readme_table(evidence: dict[str, Any]) -> list[str]:
    """Return README's table of the evidence."""
    lines = [
        "| 16 trainings at once | ms an epoch and training | in turn | ratio (10 to 90 %) | at most |",
        "|---|---|---|---|---|",
    ]
    for row in evidence["rows"]:
        name = f"{row['model']}, {row['seeds']} seed{'s' if row['seeds'] > 1 else ''}"
        low, high = row["spread"]
        lines.append(
            f"| {name} | {row['median']['at_once']:.1f} | {row['median']['in_turn']:.1f} "
            f"| {row['median']['ratio']:.2f} ({low:.2f} to {high:.2f}) "
            f"| {f'{bound:.1f}' if (bound := row.get('largest_ratio')) else '–'} |"
        )
    return lines


def main() -> None:
    """Measure, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "vectorize.json")
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)  # as a trial has it by default
        keep_freed_memory()
    rows = []
    for model, seeds in (("mlp", 1), ("mlp", options.members), ("small_cnn", options.members)):
        rows.append(measure(model, options.members, seeds, options.device, ROUNDS[model]))
        print("\n".join(readme_table({"rows": rows})), flush=True)
    evidence = {
        "what": "trainings as one batched model, beside the same in turn in the same minutes",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "device": options.device,
        "threads": torch.get_num_threads(),
        "rows": rows,
    }
    options.out.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
